//! Metrics: Istio's (`istio_*`) and Envoy's names for clusters, listeners and the server.
//!
//! A data thread has a [`ThreadStats`]: cells that only it writes, so that counting is a load and a store. New series
//! are told to the process's [`Registry`] by a queue; it sums the threads' cells when it is asked for the text. The
//! number of series is bounded: those that were idle for longest make room.

mod cells;
mod labels;
mod registry;
mod render;
mod traffic;

pub use cells::{Counter, Gauge, GaugeGuard, Histogram};
pub use labels::{Reporter, RequestProtocol, SecurityPolicy, TrafficLabels, service_of};
pub use registry::{Registry, ThreadStats};
pub use traffic::{HttpRecord, TcpTraffic, Traffic};
