//! `istio.v1.auth.IstioCertificateService`: a workload sends a CSR and a bearer token, and gets its chain.
#![allow(missing_docs, unused_qualifications, clippy::all)]

tonic::include_proto!("istio.v1.auth");

/// The audience that a workload's service-account token must carry.
pub const TOKEN_AUDIENCE: &str = "istio-ca";
