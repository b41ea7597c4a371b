//! The sample application: a shop of four services in one binary, each with HTTP, gRPC and TCP ports.
//!
//! `storefront -> order-service -> user-service, payment-service`. The application knows nothing of the mesh: it
//! calls its upstreams by name and honours `http_proxy` as any HTTP client does. The tests use its types to read
//! what a request looked like when it arrived.

pub mod answer;
pub mod client;
pub mod control;
pub mod load;
pub mod request;
pub mod role;
pub mod server;
pub mod settings;
pub mod wiretap;

/// The gRPC interface, generated from `proto/payment.proto`.
#[allow(missing_docs, unused_qualifications, rust_2018_idioms, clippy::all, clippy::too_many_lines)]
pub mod payment {
    tonic::include_proto!("_");
}
