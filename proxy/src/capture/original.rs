//! Where a captured connection wanted to go: the kernel remembers it (`SO_ORIGINAL_DST`).

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use socket2::SockRef;
use tokio::net::TcpStream;

/// The destination that the client named. A connection that was not redirected names our own port.
///
/// # Errors
/// The kernel does not track connections, or has forgotten this one.
pub fn destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let is_v4 = match stream.local_addr()?.ip() {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
    };
    let found = if is_v4 { socket.original_dst_v4() } else { socket.original_dst_v6() }?;
    found.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}
