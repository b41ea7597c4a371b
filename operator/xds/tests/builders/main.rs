//! What the mesh's resources become: YAML in, readable resources out.
#![allow(clippy::unwrap_used)]

mod captured;
mod clusters;
mod gateway;
mod gateway_tls;
mod inbound;
mod mesh;
mod outbound;
mod routes;
mod stability;
