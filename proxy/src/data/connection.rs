//! One client connection, from the accepted socket (or a tunnel) to its terminal filter.
//!
//! Destination, listener, first bytes, filter chain, TLS, network policies, then HTTP or bytes. A connection that lives on
//! while the configuration changes is held to the new one: its chain is chosen again before the next request, and closed
//! when it would not be let in any more.

use std::{
    cell::RefCell,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{net::TcpStream, time::sleep};

use super::{
    chain::{self, Input, Questions},
    destination::{self, Destination},
    proxy_protocol,
    sniff::{self, SniffError, Sniffed},
    stream::{Prefixed, Stream, Transport},
    thread::Thread,
};
use crate::{
    config::{
        ProxyConfig,
        http::HttpConnectionManager,
        listener::{FilterChain, Listener, TcpProxy, Terminal, TrafficDirection},
        rbac::Rbac,
    },
    http::{
        access_log::{self, Entry},
        downstream, rbac,
    },
    net::{
        flags::ResponseFlags,
        tls::{self, PeerInfo},
    },
    shared::coarse_now,
    stats::GaugeGuard,
};

/// For TLS handshakes where the chain says nothing.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A client connection behind its filter chain.
#[derive(Debug)]
pub struct Connection {
    /// The thread that has it.
    pub thread: Rc<Thread>,
    /// Where it wants to go.
    pub destination: Destination,
    /// Which way it flows.
    pub direction: TrafficDirection,
    /// Our end.
    pub local: SocketAddr,
    /// The client's end.
    pub peer: SocketAddr,
    /// Who connected on the client's behalf (the PROXY protocol): the end of the socket.
    through: Option<Box<SocketAddr>>,
    /// For clusters that take the connection's own destination.
    pub original: Option<SocketAddr>,
    /// What the TLS handshake said; `None`: no TLS.
    pub tls: Option<Box<PeerInfo>>,
    /// The listener's name.
    listener: Arc<str>,
    /// What the chain was chosen by.
    input: Input,
    current: RefCell<Current>,
}

/// The chain in effect, and the configuration that it is from.
#[derive(Clone, Debug)]
struct Current {
    /// `None`: the listener was found in one configuration, and another may be in effect by now.
    generation: Option<u64>,
    chain: Arc<FilterChain>,
}

impl Connection {
    /// SNI, if there was one.
    pub fn server_name(&self) -> Option<&str> {
        self.input
            .sniffed
            .server_name
            .as_deref()
            .or(self.tls.as_ref().and_then(|info| info.server_name.as_deref()))
    }

    /// The other end of the socket, which is not the client's where a proxy has announced it.
    pub fn direct_peer(&self) -> SocketAddr {
        self.through.as_deref().copied().unwrap_or(self.peer)
    }

    /// The names in the client's verified certificate.
    pub fn peer_names(&self) -> Option<&[String]> {
        self.tls.as_ref().filter(|info| info.verified).map(|info| &*info.certificate.uri_sans)
    }

    /// Whether client and proxy have shown each other certificates.
    pub fn is_mutual_tls(&self) -> bool {
        self.tls.as_ref().is_some_and(|info| info.verified)
    }

    /// Whether it is from outside of the pod: those are told to go away when the pod leaves.
    pub fn is_from_outside(&self) -> bool {
        self.direction == TrafficDirection::Inbound
            || matches!(self.destination, Destination::Listener(_))
    }

    /// Whether the listener that the connection came in by is gone: what is under way may finish.
    pub fn is_retired(&self) -> bool {
        matches!(self.destination, Destination::Listener(_))
            && !matches!(self.thread.config().listeners.get(&self.listener), Some(Some(_)))
    }

    /// The connection manager for the next request, and the configuration that it is from. `None`: the connection would not be let in any more.
    ///
    /// Waits where the listener is asked for anew: it may have been dropped while the connection was idle.
    pub async fn manager(&self) -> Option<(Arc<ProxyConfig>, Arc<HttpConnectionManager>)> {
        let mut config = self.thread.config();
        if let Destination::Outbound { .. } = self.destination {
            match config.listeners.get(&self.listener) {
                Some(Some(listener)) => listener.touch(coarse_now()),
                Some(None) => {}
                None => {
                    // Without an answer the connection goes on as it is.
                    let _ = destination::listener(&self.thread, &self.destination).await;
                    config = self.thread.config();
                }
            }
        }
        match &self.chain(&config)?.terminal {
            Terminal::Http(manager) => Some((config, manager.clone())),
            Terminal::Tcp(_) => None,
        }
    }

    /// The chain in effect: chosen again when the configuration has changed.
    fn chain(&self, config: &ProxyConfig) -> Option<Arc<FilterChain>> {
        let current = self.current.borrow().clone();
        if current.generation == Some(config.generation) {
            return Some(current.chain);
        }
        let listener = match config.listeners.get(&self.listener) {
            Some(Some(listener)) => listener.value.clone(),
            // The listener is gone (idle, or the service was removed): what is connected may finish.
            Some(None) | None => return Some(current.chain),
        };
        let chain = chain::choose(&listener, &self.input)?.clone();
        let changed = !Arc::ptr_eq(&chain, &current.chain);
        if changed && !self.still_admitted(&current.chain, &chain) {
            tracing::info!(peer = %self.peer, local = %self.local, "connection not admitted by the new configuration");
            return None;
        }
        *self.current.borrow_mut() =
            Current { generation: Some(config.generation), chain: chain.clone() };
        Some(chain)
    }

    /// Whether a connection that one chain let in would be let in by another just so.
    fn still_admitted(&self, old: &FilterChain, new: &FilterChain) -> bool {
        let verified = self.is_mutual_tls();
        let certificate =
            new.tls.as_ref().is_none_or(|tls| !tls.require_client_certificate || verified);
        old.tls.is_some() == new.tls.is_some() && certificate && self.admitted(&new.rbac)
    }

    /// Whether the network policies allow the connection.
    fn admitted(&self, policies: &[Arc<Rbac>]) -> bool {
        self.denial(policies).is_none()
    }

    /// Which policy denies the connection, as access logs say it; `None` when it is allowed.
    fn denial(&self, policies: &[Arc<Rbac>]) -> Option<String> {
        let facts = rbac::Facts {
            head: None,
            destination: (self.local.ip(), self.local.port()),
            direct_remote: self.direct_peer().ip(),
            remote: self.peer.ip(),
            peer_names: self.peer_names(),
            server_name: self.server_name().unwrap_or_default(),
        };
        policies.iter().find_map(|policy| {
            let (verdict, shadow) = rbac::evaluate(policy, &facts);
            self.thread.network_rbac(&policy.stat_prefix).count(&verdict, shadow.as_ref());
            let rbac::Verdict::Denied(by) = verdict else { return None };
            tracing::info!(
                peer = %self.peer, local = %self.local, principal = ?self.peer_names(),
                policy = by.unwrap_or("none"), "connection denied"
            );
            Some(rbac::Verdict::details(by))
        })
    }
}

/// Serves a connection that was accepted, to its end.
pub fn accepted(
    thread: &Rc<Thread>,
    stream: TcpStream,
    ends: Ends,
) -> impl Future<Output = ()> + use<> {
    let thread = thread.clone();
    // What leads to it is boxed: its place is given back, while the connection may live long.
    let prepared = Box::pin(async move { prepare(&thread, stream, ends).await });
    async move {
        if let Some(mut serving) = prepared.await {
            serving.run().await;
        }
    }
}

/// Everything before the connection is served.
async fn prepare(
    thread: &Rc<Thread>,
    stream: TcpStream,
    Ends { local, peer, destination }: Ends,
) -> Option<Serving> {
    let settings = &thread.shared.settings;
    let (destination, local) = match destination.learn(settings, &stream, local) {
        Ok(learnt) => learnt,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::info!(%peer, %local, %error, cause, "connection closed");
            return None;
        }
    };
    let stream = Prefixed::new(Transport::Tcp(stream));
    let listener = match destination::listener(thread, &destination).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::info!(%peer, ?destination, %error, "connection closed");
            return None;
        }
    };
    admit(thread, stream, Ends { local, peer, destination }, &listener).await
}

/// Where a connection comes from and goes to.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Our end.
    pub local: SocketAddr,
    /// The client's end.
    pub peer: SocketAddr,
    /// Where it wants to go.
    pub destination: Destination,
}

/// A connection that was let in.
struct Established {
    connection: Rc<Connection>,
    stream: Stream,
    chain: Arc<FilterChain>,
    counted: Option<GaugeGuard>,
}

/// Serves a connection whose listener is known, to its end.
pub async fn serve(thread: &Rc<Thread>, stream: Prefixed, ends: Ends, listener: &Arc<Listener>) {
    if let Some(mut serving) = Box::pin(admit(thread, stream, ends, listener)).await {
        serving.run().await;
    }
}

/// A connection that was let in, ready to be served.
struct Serving {
    terminal: Terminated,
    _counted: Option<GaugeGuard>,
}

/// What its chain ends in.
enum Terminated {
    Http(Box<downstream::Serving>),
    Tcp(Pin<Box<dyn Future<Output = ()>>>),
}

impl Serving {
    /// To its end.
    fn run(&mut self) -> impl Future<Output = ()> {
        poll_fn(|cx| match &mut self.terminal {
            Terminated::Http(serving) => serving.poll(cx),
            Terminated::Tcp(serving) => serving.as_mut().poll(cx),
        })
    }
}

/// Lets a connection in, or not, and finds out what it speaks.
async fn admit(
    thread: &Rc<Thread>,
    stream: Prefixed,
    ends: Ends,
    listener: &Arc<Listener>,
) -> Option<Serving> {
    let established = establish(thread, stream, ends, listener).await?;
    let Established { connection, stream, chain, counted } = established;
    let terminal = match &chain.terminal {
        Terminal::Http(manager) => {
            let codec = downstream::Codec::new(
                manager.codec,
                connection.tls.as_deref(),
                &connection.input.sniffed,
            );
            Terminated::Http(Box::new(downstream::prepare(connection, stream, codec).await?))
        }
        Terminal::Tcp(proxy) => {
            let proxy = proxy.clone();
            Terminated::Tcp(Box::pin(async move { tcp(&connection, stream, &proxy).await }))
        }
    };
    Some(Serving { terminal, _counted: counted })
}

/// First bytes, filter chain, TLS and network policies; `None`: the connection is not let in.
async fn establish(
    thread: &Rc<Thread>,
    mut stream: Prefixed,
    mut ends: Ends,
    listener: &Arc<Listener>,
) -> Option<Established> {
    let accepted = (ends.local, ends.peer);
    let counters = match ends.destination {
        Destination::Outbound { .. } => None,
        _ => Some(thread.listener_counters(&listener.name)),
    };
    let counted = counters.as_ref().map(|counters| counters.connection());
    let looked = tokio::select! {
        biased;
        looked = look(thread, listener, &mut stream, &mut ends) => looked,
        () = thread.last_chance() => return None,
    };
    let Ends { local, peer, .. } = ends;
    let input = match looked {
        Ok(input) => input,
        Err(error) => {
            tracing::debug!(%peer, %local, %error, "connection closed");
            return None;
        }
    };
    let Some(chain) = chain::choose(listener, &input).cloned() else {
        tracing::info!(%peer, %local, sniffed = ?input.sniffed, "no filter chain takes the connection");
        refuse(thread, listener, &ends, &input, accepted.1);
        return None;
    };
    let terminated = terminate_tls(thread, stream, &chain, peer).await;
    if let Some(counters) = counters.filter(|_| chain.tls.is_some()) {
        counters.handshake(terminated.is_some());
    }
    let (stream, info) = terminated?;
    let connection = Rc::new(Connection {
        thread: thread.clone(),
        listener: listener.name.clone(),
        // What a proxy says of addresses opens no way to them.
        original: ends.destination.original(accepted.0, application(thread, accepted.0)),
        destination: ends.destination,
        direction: listener.direction,
        local,
        peer,
        through: (accepted.1 != peer).then(|| Box::new(accepted.1)),
        tls: info.map(Box::new),
        input,
        current: RefCell::new(Current { generation: None, chain: chain.clone() }),
    });
    if let Some(details) = connection.denial(&chain.rbac) {
        if let Terminal::Tcp(proxy) = &chain.terminal {
            super::tcp::denied(&connection, proxy, &details);
        }
        return None;
    }
    Some(Established { connection, stream, chain, counted })
}

/// Takes from the first bytes who connects, and what the chain is chosen by.
async fn look(
    thread: &Thread,
    listener: &Listener,
    stream: &mut Prefixed,
    ends: &mut Ends,
) -> Result<Input, SniffError> {
    let mut until = None;
    if let Some(settings) = listener.proxy_protocol {
        let deadline = *until.insert(sniff::deadline(listener));
        let taken = proxy_protocol::take(settings, stream, deadline).await;
        if let Some(name) = proxy_protocol::counter(&taken) {
            thread.count(name);
        }
        if let Some(addresses) = taken?.and_then(|header| header.addresses) {
            (ends.peer, ends.local) = (addresses.source, addresses.destination);
        }
    }
    let destination = ends.destination.matched(ends.local);
    let questions = Questions::of(listener, destination);
    let sniffed = sniff::sniff(listener, questions, stream, until).await?;
    Ok(Input { destination, source: ends.peer, sniffed })
}

/// Where the application is that an inbound connection is for: a captured one names it.
fn application(thread: &Thread, local: SocketAddr) -> IpAddr {
    let settings = &thread.shared.settings;
    if settings.is_captured() { local.ip() } else { settings.app_address }
}

/// Notes a connection that no filter chain takes.
fn refuse(
    thread: &Thread,
    listener: &Listener,
    ends: &Ends,
    input: &Input,
    direct_peer: SocketAddr,
) {
    match ends.destination {
        Destination::Outbound { .. } => {
            thread.count(&format!("listener.{}.no_filter_chain_match", listener.name));
        }
        _ => thread.listener_counters(&listener.name).unmatched(),
    }
    let entry = Entry {
        flags: ResponseFlags::NR,
        downstream_local: Some(ends.local),
        downstream_remote: Some(ends.peer),
        downstream_direct_remote: Some(direct_peer),
        server_name: input.sniffed.server_name.as_deref(),
        ..Entry::new(SystemTime::now())
    };
    access_log::write(&listener.access_logs, &entry);
}

/// Terminates TLS where the chain says so.
async fn terminate_tls(
    thread: &Rc<Thread>,
    stream: Prefixed,
    chain: &FilterChain,
    peer: SocketAddr,
) -> Option<(Stream, Option<PeerInfo>)> {
    let Some(settings) = &chain.tls else { return Some((Stream::Plain(stream), None)) };
    let limit = chain.handshake_timeout.unwrap_or(HANDSHAKE);
    let accepted = match thread.tls().server(settings) {
        Ok(server) => tokio::select! {
            biased;
            accepted = tls::accept(&server, stream, limit) => accepted,
            () = thread.last_chance() => return None,
        },
        Err(error) => Err(error),
    };
    match accepted {
        Ok((stream, info)) => Some((Stream::Tls(Box::new(stream)), Some(info))),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::info!(%peer, chain = &*chain.name, %error, cause, "TLS handshake failed");
            None
        }
    }
}

/// Proxies bytes, until an end, or until a new configuration would not let the connection in.
async fn tcp(connection: &Rc<Connection>, stream: Stream, proxy: &Arc<TcpProxy>) {
    let mut changes = connection.thread.shared.config_changed.clone();
    let closed_by_policy = async {
        while changes.changed().await.is_ok() {
            if connection.chain(&connection.thread.config()).is_none() {
                return;
            }
            if connection.is_retired() {
                // As long as a process that ends would wait for it.
                sleep(connection.thread.shared.settings.drain_duration).await;
                if connection.is_retired() {
                    return;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = super::tcp::proxy(connection, stream, proxy) => {}
        () = closed_by_policy => {}
    }
}

impl Sniffed {
    /// Whether HTTP/2 with prior knowledge was found.
    pub fn is_h2c(&self) -> bool {
        self.protocols.iter().any(|protocol| **protocol == *b"h2c")
    }
}

#[cfg(test)]
mod tests;
