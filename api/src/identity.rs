//! SPIFFE identities of workloads: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//!
//! Source: the SPIFFE ID specification, and the path layout that Istio's authority writes.

use std::{fmt, str::FromStr, sync::Arc};

/// The identity of a workload: one service account of one namespace in one trust domain.
///
/// Cheap to clone; compares by its parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// The trust domain, e.g. `cluster.local`.
    pub trust_domain: Arc<str>,
    /// The Kubernetes namespace.
    pub namespace: Arc<str>,
    /// The Kubernetes service account.
    pub service_account: Arc<str>,
}

impl SpiffeId {
    /// Builds an identity from its parts.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }

    /// The form that AuthorizationPolicy calls a principal: the URI without its scheme.
    pub fn principal(&self) -> String {
        format!("{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

/// Why a URI is not a workload's identity.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpiffeIdError {
    /// The URI's scheme is not `spiffe`.
    #[error("not a spiffe:// URI")]
    Scheme,
    /// The path is not `/ns/<namespace>/sa/<service account>`.
    #[error("path is not /ns/<namespace>/sa/<service account>")]
    Path,
    /// A part is empty, too long (2,048 bytes in all, per the SPIFFE specification) or has a character outside its set.
    #[error("{part} is empty, too long or has a character that is not allowed")]
    Part {
        /// Which part it was.
        part: &'static str,
    },
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        if uri.len() > 2048 {
            return Err(SpiffeIdError::Part { part: "URI" });
        }
        let rest = uri.strip_prefix("spiffe://").ok_or(SpiffeIdError::Scheme)?;
        let mut parts = rest.split('/');
        let (Some(trust_domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SpiffeIdError::Path);
        };
        let allowed = |part: &str| {
            !part.is_empty()
                && part.len() <= 255
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        for (part, value) in
            [("trust domain", trust_domain), ("namespace", namespace), ("service account", account)]
        {
            if !allowed(value) {
                return Err(SpiffeIdError::Part { part });
            }
        }
        Ok(Self::new(trust_domain, namespace, account))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_round_trips_through_its_uri() {
        let id = SpiffeId::new("cluster.local", "default", "order-service");
        assert_eq!(id.to_string(), "spiffe://cluster.local/ns/default/sa/order-service");
        assert_eq!(id.to_string().parse(), Ok(id.clone()));
        assert_eq!(id.principal(), "cluster.local/ns/default/sa/order-service");
    }

    #[test]
    fn uris_of_another_shape_are_refused() {
        for (uri, error) in [
            ("https://cluster.local/ns/a/sa/b", SpiffeIdError::Scheme),
            ("spiffe://cluster.local/ns/a", SpiffeIdError::Path),
            ("spiffe://cluster.local/ns/a/sa/b/c", SpiffeIdError::Path),
            ("spiffe://cluster.local/sa/a/ns/b", SpiffeIdError::Path),
            ("spiffe:///ns/a/sa/b", SpiffeIdError::Part { part: "trust domain" }),
            ("spiffe://td/ns//sa/b", SpiffeIdError::Part { part: "namespace" }),
            ("spiffe://td/ns/a/sa/b%2fc", SpiffeIdError::Part { part: "service account" }),
        ] {
            assert_eq!(uri.parse::<SpiffeId>(), Err(error), "{uri}");
        }
    }
}
