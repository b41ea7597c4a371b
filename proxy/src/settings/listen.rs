//! What the machine gives: the addresses of a pod that can be listened on, and CPUs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// Where the proxy's own ports are in a pod, and where administration is.
pub(super) fn in_pod() -> (Vec<IpAddr>, Vec<IpAddr>) {
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let here = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    (usable(everywhere), usable(here))
}

/// Those that the pod has: there may be only one family.
fn usable(addresses: [IpAddr; 2]) -> Vec<IpAddr> {
    let can_bind = |address: &IpAddr| TcpListener::bind(SocketAddr::new(*address, 0)).is_ok();
    addresses.into_iter().filter(can_bind).collect()
}

/// The CPUs that the process may use, but no more than a sidecar is good for.
pub(super) fn default_concurrency() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(2)
}
