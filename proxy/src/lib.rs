//! Weft's data plane.
//!
//! One control thread keeps [`config::ProxyConfig`] current; N data threads read it and move bytes.

pub mod capture;
pub mod config;
pub mod control;
pub mod data;
pub mod h1;
pub mod hooks;
pub mod http;
pub mod http2;
pub mod identity;
pub mod logging;
pub mod net;
pub mod settings;
pub mod shared;
pub mod stats;
