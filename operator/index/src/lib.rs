//! Watch events in, immutable snapshots of the mesh model out.
//!
//! A source (Kubernetes, a folder of YAML) feeds [`Index`] with objects, one owner, synchronously; whoever owns it takes
//! [`Index::snapshot`]s when it likes and publishes them. What the resources mean is decided in `weft-core`; what stays in
//! effect while resources contradict each other, in [`Index`].
#![deny(missing_docs)]

mod index;
mod journal;
mod kubernetes;
pub mod mesh_config;
mod object;
mod registry;
mod routing;
mod secret;
mod service_entry;

pub use index::Index;
pub use object::{Kind, Object, ObjectError};
