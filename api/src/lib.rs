//! What Weft's operator and proxy agree on, and nothing else: the xDS types and their URLs, the names of
//! resources, SPIFFE identities, node metadata, formats of access logs and the certificate-signing service.
//!
//! `ARCHITECTURE.md`, chapter "The xDS contract", says how the names and types here are used.
#![deny(missing_docs)]

pub mod access_log;
pub mod ca;
pub mod identity;
pub mod names;
pub mod node;
pub mod type_url;

/// Envoy's xDS v3 types.
pub use envoy_types::pb as xds;
