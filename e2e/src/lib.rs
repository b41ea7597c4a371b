//! The mesh on one machine, as processes: operator, proxies and the sample application from a folder of YAML.
//!
//! `mesh` starts and stops it; `client`, `load` and `metrics` talk to it; `bounds` says what chance allows. The demo and
//! the tests are made of these.

pub mod authority;
pub mod block;
pub mod bounds;
pub mod checks;
pub mod cluster;
pub mod demo;
pub mod edge;
pub mod envoy;
pub mod kube;
pub mod memory;
pub mod mesh;
pub mod metrics;
pub mod process;
pub mod programs;
pub mod wait;

pub use weft_samples::{load, request as client};
