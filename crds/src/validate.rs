//! Validation of one resource by itself: what a validating webhook would refuse, and what it would warn of.
//!
//! An error means that the resource cannot take effect; a warning that it does, but not as somebody may expect. What
//! the schema already demands is checked by the parser. Follows `istio-behaviours` 1.0 and the rules cited in it.

mod authorization_policy;
mod destination_rule;
mod envoy_filter;
mod gateway;
mod http_route;
mod load_balancer;
mod peer_authentication;
mod service_entry;
mod text;
mod virtual_service;

use crate::{AnyResource, FieldError, path::Path};

/// Said of what is read and kept, but not acted on by this version.
const NOT_YET: &str = "has no effect in this version of Weft";

/// What is to be said about a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validation {
    /// Why it cannot take effect.
    pub errors: Vec<FieldError>,
    /// What may surprise.
    pub warnings: Vec<FieldError>,
}

impl Validation {
    /// Whether the resource can take effect.
    pub fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }

    fn error(&mut self, path: &Path<'_>, reason: impl Into<String>) {
        self.errors.push(FieldError::new(path, reason));
    }

    fn warn(&mut self, path: &Path<'_>, reason: impl Into<String>) {
        self.warnings.push(FieldError::new(path, reason));
    }

    /// Notes an error if there is one.
    fn check(&mut self, path: &Path<'_>, result: Result<(), String>) {
        if let Err(reason) = result {
            self.error(path, reason);
        }
    }
}

/// Validates a resource by itself.
pub fn validate(resource: &AnyResource) -> Validation {
    let mut report = Validation::default();
    let namespace = resource.namespace();
    match resource {
        AnyResource::VirtualService(r) => virtual_service::validate(&r.spec, &mut report),
        AnyResource::DestinationRule(r) => {
            destination_rule::validate(&r.spec, namespace, &mut report);
        }
        AnyResource::Gateway(r) => gateway::validate(&r.spec, &mut report),
        AnyResource::ServiceEntry(r) => service_entry::validate(&r.spec, &mut report),
        AnyResource::EnvoyFilter(r) => envoy_filter::validate(&r.spec, &mut report),
        AnyResource::PeerAuthentication(r) => peer_authentication::validate(&r.spec, &mut report),
        AnyResource::AuthorizationPolicy(r) => authorization_policy::validate(r, &mut report),
    }
    report
}

#[cfg(test)]
mod tests;
