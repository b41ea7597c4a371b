//! `weft-proxy init`: captures the connections of the network namespace that it runs in, or checks that they are.

use std::io::{self, Write};

use super::{
    address,
    netlink::{NetlinkError, Socket},
    nftables::{self, Missing},
    rules::{self, TABLE},
    settings::InitArgs,
};

/// Why connections are not captured.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// `--redirect-dns`.
    #[error("--redirect-dns: capture of DNS is not supported")]
    Dns,
    /// The rules cannot be written.
    #[error(
        "cannot write the rules of table inet {TABLE}: this needs NET_ADMIN and a kernel with nf_tables and NAT"
    )]
    Apply(#[source] NetlinkError),
    /// `::6` cannot be given to the loopback interface.
    #[error("cannot give the loopback interface the address {}", address::SOURCE)]
    Address(#[source] NetlinkError),
    /// The rules cannot be read.
    #[error("cannot read the rules of table inet {TABLE}: this needs NET_ADMIN")]
    Read(#[source] NetlinkError),
    /// Something is not there.
    #[error("connections are not captured as they should be:\n  {}", .0.join("\n  "))]
    Missing(Vec<String>),
    /// The output is closed.
    #[error("cannot print the rules")]
    Print(#[source] io::Error),
}

/// Does what the arguments say.
///
/// # Errors
/// See [`InitError`].
pub fn run(args: &InitArgs, output: &mut impl Write) -> Result<(), InitError> {
    if args.redirect_dns {
        return Err(InitError::Dns);
    }
    let rules = rules::rules(args);
    if args.print {
        return output.write_all(rules::print(&rules).as_bytes()).map_err(InitError::Print);
    }
    let open = || Socket::open(Some(rustix::net::netlink::NETFILTER));
    if !args.check {
        let socket = open().map_err(InitError::Apply)?;
        address::add().map_err(InitError::Address)?;
        nftables::apply(&socket, &rules).map_err(InitError::Apply)?;
    }
    // What the kernel took is read back in any case: a proxy that captures nothing must not look like one that does.
    let socket = open().map_err(InitError::Read)?;
    let missing = nftables::check(&socket, &rules).map_err(InitError::Read)?;
    let mut missing: Vec<String> = missing.iter().map(Missing::to_string).collect();
    if address::is_missing() {
        missing.push(format!("interface lo has no address {}", address::SOURCE));
    }
    if missing.is_empty() { Ok(()) } else { Err(InitError::Missing(missing)) }
}
