//! What a client means by the authority of a request, and every way to write a service's name (`istio-behaviours`, item 5).

use std::net::{IpAddr, Ipv6Addr};

use weft_core::service::{Registry, Service};

/// The port that an authority without one means.
const DEFAULT_PORT: u16 = 80;

/// A request's authority, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    /// A name or an address, without brackets and without a dot at the end.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Authority {
    /// Reads an authority; `None` for what no client can mean, wildcards included.
    pub(crate) fn parse(authority: &str) -> Option<Self> {
        if authority.len() > 255 + ":65535".len() {
            return None;
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<Ipv6Addr>().ok()?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let is_address = host.parse::<IpAddr>().is_ok();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.is_empty() || !(is_address || host.bytes().all(is_name)) {
            return None;
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok()?,
            Some(_) => return None,
        };
        Some(Self { host: host.to_ascii_lowercase(), port })
    }
}

/// Adds a name to the domains, with the port and, where it may be left out, without.
fn add(domains: &mut Vec<String>, name: &str, port: u16) {
    let name = match name.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => name.to_ascii_lowercase(),
    };
    if port == DEFAULT_PORT {
        domains.push(name.clone());
    }
    domains.push(format!("{name}:{port}"));
}

/// Every authority by which a client of a namespace means a service's port, without repetitions.
pub(crate) fn domains(service: &Service, port: u16, namespace: &str, domain: &str) -> Vec<String> {
    let mut domains = Vec::new();
    let hostname = service.hostname();
    let mut names = vec![hostname.to_owned()];
    if !hostname.starts_with('*') {
        names.push(format!("{hostname}."));
    }
    let suffix = format!(".svc.{domain}");
    if service.registry == Registry::Kubernetes
        && let Some(qualified) = hostname.strip_suffix(&suffix)
        && let Some((short, own)) = qualified.rsplit_once('.')
    {
        if own == namespace {
            names.push(short.to_owned());
        }
        names.push(qualified.to_owned());
        names.push(format!("{qualified}.svc"));
    }
    if service.headless {
        let pods: Vec<String> = names.iter().map(|name| format!("*.{name}")).collect();
        names.extend(pods);
    }
    for name in &names {
        add(&mut domains, name, port);
    }
    for address in &service.addresses {
        add(&mut domains, &address.to_string(), port);
    }
    unique(domains)
}

/// The authorities by which a client means a host that is no service.
pub(crate) fn domains_of_name(name: &str, port: u16) -> Vec<String> {
    let mut domains = Vec::new();
    add(&mut domains, name, port);
    domains
}

/// Without repetitions, in order.
pub(crate) fn unique(domains: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    domains.into_iter().filter(|domain| seen.insert(domain.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_read_as_clients_write_them() {
        let table = [
            ("reviews", Some(("reviews", 80))),
            ("Reviews.Default:8080", Some(("reviews.default", 8080))),
            ("reviews.", Some(("reviews", 80))),
            ("10.0.0.1:80", Some(("10.0.0.1", 80))),
            ("[::1]:8080", Some(("::1", 8080))),
            ("[::1]", Some(("::1", 80))),
            ("*", None),
            ("*.example.com", None),
            ("a:b", None),
            ("a:", None),
            ("a:+1", None),
            ("a:70000", None),
            ("[x]:1", None),
            ("[::1]x", None),
            ("", None),
            (".", None),
            (":80", None),
            ("a b", None),
            ("user@a", None),
        ];
        for (text, expected) in table {
            let expected = expected.map(|(host, port)| Authority { host: host.into(), port });
            assert_eq!(Authority::parse(text), expected, "{text}");
        }
    }
}
