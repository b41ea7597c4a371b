//! The comparison of the proxy with Envoy, HAProxy and nginx on this machine: one command, one table.
//!
//! `scenario` says what is measured, `peer` how each proxy is run from its committed configuration, `loads` and `client`
//! what is sent through it, `measure` takes one sample, `campaign` takes turns and repeats, `figures` makes medians and
//! ratios, `table` and `chart` show them. Nothing here asserts a time: figures are for people.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub mod backend;
pub mod campaign;
pub mod certificates;
pub mod chart;
pub mod client;
pub mod figures;
pub mod gates;
pub mod install;
pub mod layout;
pub mod loads;
pub mod measure;
pub mod peer;
pub mod scenario;
pub mod table;
pub mod tether;
pub mod usage;

/// An address of loopback that nobody else is likely to use.
const fn loopback(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 77, 0, host)), port)
}
