//! Upstream side: TLS, clusters, connection pools, TCP proxying; and what both sides know of their peers.
//!
//! State that data threads share is atomics in [`cluster::ClusterState`] and [`cluster::EndpointState`]; everything
//! else here belongs to one thread.

pub mod body;
pub mod clock;
pub mod cluster;
pub mod flags;
pub mod grpc;
pub mod outbound;
pub mod peer;
pub mod pool;
pub mod scratch;
pub mod spare;
pub mod tcp;
pub(crate) mod through;
pub mod tls;
pub mod unread;
pub mod upstreams;

#[cfg(test)]
mod testing;
