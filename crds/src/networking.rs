//! The kinds of `networking.istio.io`.

mod destination_rule;
mod envoy_filter;
mod gateway;
mod load_balancer;
mod local_rate_limit;
mod service_entry;
mod traffic_policy;
mod virtual_service;

pub use destination_rule::*;
pub use envoy_filter::*;
pub use gateway::*;
pub use load_balancer::*;
pub use local_rate_limit::*;
pub use service_entry::*;
pub use traffic_policy::*;
pub use virtual_service::*;
