//! The mesh's certificate authority: roots, signing of workload certificates, and checks of bearer tokens.
//!
//! A folder ([`state::StateDir`]) is its only store. [`service::CertificateService`] is the signing RPC that workloads
//! call over TLS; the runtime opens the sockets and asks [`authority::Authority`] for its own serving certificate.
//! Nothing here knows Kubernetes: who may have which identity is a [`token::TokenVerifier`]'s business.
#![deny(missing_docs)]

pub mod authority;
pub mod bundle;
pub mod csr;
pub mod metrics;
pub mod service;
pub mod state;
pub mod token;
