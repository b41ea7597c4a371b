//! Weft's control plane as a process: settings, sockets, sources and the administration port.
//!
//! `source -> weft-index (mesh task) -> snapshots -> weft-xds`, beside it `weft-ca`; both are served on one TLS port
//! ([`server`]). [`Operator`] wires them; the program's `main` adds logging and signals.

mod admin;
mod backoff;
mod exposition;
pub mod kubernetes;
mod listen;
pub mod mesh;
mod operator;
pub mod server;
pub mod settings;
pub mod source;
pub mod telemetry;
pub mod tls;
mod webhooks;

pub use operator::{Operator, run};
pub use settings::Settings;
