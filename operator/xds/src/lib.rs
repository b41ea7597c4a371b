//! The mesh model as xDS resources by name, and the delta ADS server that serves them.
//!
//! `weft-operator` publishes snapshots into a [`SnapshotSender`] and mounts [`AdsServer`]; `ARCHITECTURE.md`, chapter "The
//! xDS contract", says what is served. Protocol ([`server`], `stream`, `session`), a client's subscription
//! (`subscription`), resources (`cache`, [`resolver`]) and what they are made of ([`build`]) are kept apart.
#![deny(missing_docs)]

pub mod build;
mod cache;
pub mod connections;
mod metrics;
pub mod readable;
pub mod resolver;
pub mod resource_type;
pub mod server;
mod session;
pub mod snapshots;
mod stream;
mod subscription;
pub mod trust;
pub mod wire;

pub use build::MeshResolver;
pub use connections::Connections;
pub use resource_type::ResourceType;
pub use server::{AdsOptions, AdsServer};
pub use snapshots::{SnapshotReceiver, SnapshotSender};
pub use trust::PeerIdentity;
