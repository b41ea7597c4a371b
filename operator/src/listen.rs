//! The operator's sockets.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Context;
use tokio::net::TcpListener;

/// Binds the address of a flag.
///
/// # Errors
/// When it cannot be bound; the text names the flag.
pub async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    let error = match TcpListener::bind(address).await {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let context = || format!("{flag} {address} cannot be bound");
    let Some(instead) = without_ipv6(address, &error) else {
        return Err(error).with_context(context);
    };
    tracing::info!(%address, %instead, %error, "the node has no IPv6");
    TcpListener::bind(instead).await.with_context(context)
}

/// All addresses, where the kernel knows IPv4 alone (`ipv6.disable=1`): `[::]`, which otherwise takes both, is none there.
fn without_ipv6(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let of_the_port = matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::PermissionDenied);
    (!of_the_port && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED))
        .then(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_those_of_ipv4_where_there_is_nothing_else() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (unknown_family, not_available) = (97, 99);
        for (asked, error, instead) in [
            ("[::]:15012", unknown_family, Some("0.0.0.0:15012")),
            ("[::]:15012", not_available, Some("0.0.0.0:15012")),
            ("[::1]:15012", not_available, None),
            ("10.0.0.1:15012", not_available, None),
            ("0.0.0.0:15012", not_available, None),
        ] {
            let error = io::Error::from_raw_os_error(error);
            assert_eq!(without_ipv6(address(asked), &error), instead.map(address), "{asked}");
        }
        for kind in [ErrorKind::AddrInUse, ErrorKind::PermissionDenied] {
            assert_eq!(without_ipv6(address("[::]:15012"), &kind.into()), None, "{kind}");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = bind(taken.local_addr().unwrap(), "--listen").await.unwrap_err();
        assert!(error.to_string().starts_with("--listen 127.0.0.1:"), "{error}");
    }
}
