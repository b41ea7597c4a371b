//! The loopback address `::6`, from which the proxy calls applications over IPv6. IPv4 has all of 127.0.0.0/8 anyway.
//!
//! Source: Linux `include/uapi/linux/{rtnetlink,if_addr}.h`.

use std::{fs, net::Ipv6Addr};

use rustix::net::netdevice::name_to_index;

use super::netlink::{ACK, Batch, CREATE, NetlinkError, REPLACE, REQUEST, Socket};

const NEW_ADDRESS: u16 = 20;
const AF_INET6: u8 = 10;
/// Nobody else has it: no need to ask around.
const NO_DUPLICATE_DETECTION: u8 = 2;
const HOST_SCOPE: u8 = 254;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// The address.
pub const SOURCE: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// The IPv6 addresses of this network namespace, as the kernel lists them; none where it has no IPv6.
fn held() -> Vec<Ipv6Addr> {
    let list = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    let address = |line: &str| u128::from_str_radix(line.get(..32)?, 16).ok().map(Ipv6Addr::from);
    list.lines().filter_map(address).collect()
}

/// Whether the address is needed and not there.
pub fn is_missing() -> bool {
    let held = held();
    !held.is_empty() && !held.contains(&SOURCE)
}

/// Gives the loopback interface the address, unless it has it or there is no IPv6.
///
/// # Errors
/// No rights (NET_ADMIN).
pub fn add() -> Result<(), NetlinkError> {
    if !is_missing() {
        return Ok(());
    }
    let socket = Socket::open(None)?;
    let loopback = name_to_index(socket.descriptor(), "lo").map_err(std::io::Error::from)?;
    let mut fixed = vec![AF_INET6, 128, NO_DUPLICATE_DETECTION, HOST_SCOPE];
    fixed.extend(loopback.to_ne_bytes());
    let mut batch = Batch::default();
    batch.message(NEW_ADDRESS, REQUEST | ACK | CREATE | REPLACE, &fixed, |list| {
        list.bytes(IFA_LOCAL, &SOURCE.octets()).bytes(IFA_ADDRESS, &SOURCE.octets());
    });
    socket.send(&batch)
}
