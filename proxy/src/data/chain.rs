//! Choosing a listener's filter chain.
//!
//! Source: Envoy's `FilterChainManagerImpl`: destination port, destination address, server name, transport, application
//! protocols, source address. Each step keeps the most specific matches and never goes back to a less specific one.

use std::{net::SocketAddr, sync::Arc};

use ipnet::IpNet;

use super::sniff::Sniffed;
use crate::config::listener::{FilterChain, FilterChainMatch, Listener, TransportMatch};

/// What the choice looks at.
#[derive(Clone, Debug)]
pub struct Input {
    /// Where the connection went to.
    pub destination: SocketAddr,
    /// The client.
    pub source: SocketAddr,
    /// What its first bytes say.
    pub sniffed: Sniffed,
}

/// What a connection's first bytes have to tell before its chain can be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// Whether it is TLS, and what its ClientHello says.
    pub tls: bool,
    /// Whether it is HTTP.
    pub http: bool,
}

impl Questions {
    /// What the chains of this destination depend on, as far as the listener looks at first bytes at all.
    ///
    /// Where nothing depends on them nobody waits for them: a server may be the first to speak.
    pub fn of(listener: &Listener, destination: SocketAddr) -> Self {
        if !listener.inspect_tls && !listener.inspect_http {
            return Self::default();
        }
        let chains = of_destination(listener, destination);
        let protocols: [&[u8]; 3] = [b"http/1.0", b"http/1.1", b"h2c"];
        let asks_tls = |matches: &FilterChainMatch| {
            matches.transport.is_some()
                || !matches.server_names.is_empty()
                || !matches.application_protocols.is_empty()
        };
        let asks_http = |matches: &FilterChainMatch| {
            matches.transport != Some(TransportMatch::Tls)
                && matches.application_protocols.iter().any(|p| protocols.contains(&&**p))
        };
        Self {
            tls: listener.inspect_tls && chains.iter().any(|chain| asks_tls(&chain.matches)),
            http: listener.inspect_http && chains.iter().any(|chain| asks_http(&chain.matches)),
        }
    }
}

/// The chains for a destination, before the first bytes are asked.
fn of_destination(listener: &Listener, destination: SocketAddr) -> Vec<&Arc<FilterChain>> {
    let mut chains: Vec<&Arc<FilterChain>> = listener.chains.iter().collect();
    narrow(&mut chains, |matches| match matches.destination_port {
        None => Some(0),
        Some(port) => (port == destination.port()).then_some(1),
    });
    narrow(&mut chains, |matches| longest(&matches.destination_ranges, destination));
    chains
}

/// The chain for a connection; the default chain where none matches.
pub fn choose<'a>(listener: &'a Listener, input: &Input) -> Option<&'a Arc<FilterChain>> {
    let mut chains = of_destination(listener, input.destination);
    let name = input.sniffed.server_name.as_deref().unwrap_or_default();
    narrow(&mut chains, |matches| server_name_rank(&matches.server_names, name));
    narrow(&mut chains, |matches| match matches.transport {
        None => Some(0),
        Some(transport) => (transport == input.sniffed.transport).then_some(1),
    });
    narrow(&mut chains, |matches| protocol_rank(matches, &input.sniffed.protocols));
    narrow(&mut chains, |matches| longest(&matches.source_ranges, input.source));
    chains.first().copied().or(listener.default_chain.as_ref())
}

/// Keeps the chains of the highest rank; `None` does not match at all.
fn narrow(chains: &mut Vec<&Arc<FilterChain>>, rank: impl Fn(&FilterChainMatch) -> Option<usize>) {
    let best = chains.iter().filter_map(|chain| rank(&chain.matches)).max();
    match best {
        None => chains.clear(),
        Some(best) => chains.retain(|chain| rank(&chain.matches) == Some(best)),
    }
}

/// The longest prefix that contains the address; no ranges match everything.
fn longest(ranges: &[IpNet], address: SocketAddr) -> Option<usize> {
    if ranges.is_empty() {
        return Some(0);
    }
    ranges
        .iter()
        .filter(|range| range.contains(&address.ip()))
        .map(|range| 1 + usize::from(range.prefix_len()))
        .max()
}

/// An exact name, then the longest suffix, then no name at all.
fn server_name_rank(names: &[Box<str>], name: &str) -> Option<usize> {
    if names.is_empty() {
        return Some(0);
    }
    names
        .iter()
        .filter_map(|pattern| match pattern.strip_prefix('*') {
            Some(suffix) => {
                (name.len() > suffix.len() && name.ends_with(suffix)).then_some(1 + suffix.len())
            }
            None => (**pattern == *name).then_some(usize::MAX),
        })
        .max()
}

/// The client's most preferred protocol that a chain names, then no protocol at all.
fn protocol_rank(matches: &FilterChainMatch, offered: &[Box<[u8]>]) -> Option<usize> {
    if matches.application_protocols.is_empty() {
        return Some(0);
    }
    offered
        .iter()
        .position(|protocol| matches.application_protocols.contains(protocol))
        .map(|position| usize::MAX - position)
}

#[cfg(test)]
mod tests;
