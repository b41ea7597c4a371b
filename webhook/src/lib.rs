//! The admission webhooks: injection of the proxy into pods, and validation of the mesh's resources.
//!
//! A library. The operator's process serves [`router`] over TLS and hands it the configuration ([`InjectConfig`]) as it
//! changes; `weft inject` calls [`inject_document`] on files. Nothing here talks to Kubernetes: a request holds all that is
//! needed. Pods are changed as JSON, so that fields which this version does not know stay as they are.
//! Behaviour: `istio-behaviours` section 3.
#![deny(missing_docs)]

mod annotations;
mod config;
mod decision;
mod inject;
mod json;
mod manifest;
mod metrics;
mod owner;
mod patch;
mod quantity;
mod review;
mod selector;
mod server;
mod validate;

pub use annotations::Interception;
pub use config::{
    ConfigError, InjectConfig, Injection, NativeSidecars, PullPolicy, ReadinessConfig, Resources,
};
pub use decision::Skip;
pub use inject::{InjectError, Injected, Outcome, Problem, inject, strip};
pub use manifest::{Document, inject_document};
pub use owner::Owner;
pub use selector::Selector;
pub use server::{State, router};
