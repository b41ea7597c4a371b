//! Traffic capture: the packet rules that send a pod's connections to its proxy, and where a captured one wanted to go.
//!
//! [`rules`] says what is redirected (`istio-behaviours`, 3.4), [`nftables`] puts it into the kernel in one transaction and
//! reads it back. Run by `weft-proxy init` in the pod's network namespace; the proxy itself needs no rights for
//! [`original`]. IPv4 and IPv6 share one table of the family `inet`.

pub mod address;
pub mod init;
pub mod netlink;
pub mod nftables;
pub mod original;
pub mod rules;
pub mod settings;
#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
