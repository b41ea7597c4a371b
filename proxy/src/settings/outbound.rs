//! Named services: the addresses of the workload's own range that stand for the services it names.

use std::{collections::HashMap, fmt::Write as _, net::SocketAddr, sync::Arc};

use ipnet::IpNet;

use super::SettingsError;
use crate::shared::NamedService;

/// Gives every distinct host the next address of the range, in the order in which hosts are named.
pub(super) fn assign(
    range: Option<IpNet>,
    outbound: &[(String, u16)],
) -> Result<Vec<NamedService>, SettingsError> {
    if outbound.is_empty() {
        return Ok(Vec::new());
    }
    let range = range.ok_or(SettingsError::RangeMissing)?;
    let mut free = range.hosts();
    let mut hosts = HashMap::new();
    let mut services: Vec<NamedService> = Vec::new();
    for (host, port) in outbound {
        let host: Arc<str> = host.to_ascii_lowercase().into();
        let address = match hosts.get(&host) {
            Some(address) => *address,
            None => {
                let address = free
                    .next()
                    .ok_or_else(|| SettingsError::RangeFull { range, host: host.to_string() })?;
                hosts.insert(host.clone(), address);
                address
            }
        };
        let service = NamedService { bind: SocketAddr::new(address, *port), host, port: *port };
        if !services.contains(&service) {
            services.push(service);
        }
    }
    Ok(services)
}

/// `ADDRESS HOST`, every host once.
pub(super) fn hosts_lines(services: &[NamedService]) -> String {
    let mut lines = String::new();
    let mut seen = Vec::new();
    for service in services {
        if !seen.contains(&&service.host) {
            seen.push(&service.host);
            let _ = writeln!(lines, "{} {}", service.bind.ip(), service.host);
        }
    }
    lines
}
