//! Policies of a workload's inbound side: which apply, and in which order (`istio-behaviours` 2.8 to 2.10).
//!
//! Each question takes the table of its kind, the root namespace and the workload's namespace and labels.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use weft_crds::{
    networking::EnvoyFilterSpec,
    security::{
        AuthorizationAction, AuthorizationPolicySpec, MutualTls, MutualTlsMode,
        PeerAuthenticationSpec,
    },
};

use crate::{
    resource::{Resource, table::ResourceTable},
    selector::{Labels, selects},
};

/// The mutual TLS modes of a workload's inbound side, with inheritance resolved: never `Unset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthenticationModes {
    /// For ports without a mode of their own.
    pub default: MutualTlsMode,
    /// By workload port.
    pub ports: BTreeMap<u16, MutualTlsMode>,
}

impl PeerAuthenticationModes {
    /// The mode of a workload's port.
    pub fn mode(&self, port: u16) -> MutualTlsMode {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }
}

/// The authorization policies of a workload, each list ordered oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkloadAuthorization {
    /// `action: CUSTOM`.
    pub custom: Vec<Arc<Resource<AuthorizationPolicySpec>>>,
    /// `action: AUDIT`.
    pub audit: Vec<Arc<Resource<AuthorizationPolicySpec>>>,
    /// `action: DENY`.
    pub deny: Vec<Arc<Resource<AuthorizationPolicySpec>>>,
    /// `action: ALLOW`.
    pub allow: Vec<Arc<Resource<AuthorizationPolicySpec>>>,
}

/// The workload that a question is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The mesh's root namespace.
    pub root: &'a str,
    /// The workload's namespace.
    pub namespace: &'a str,
    /// The workload's labels.
    pub labels: &'a Labels,
}

/// The labels that a PeerAuthentication selects by; `None` when it is for its whole namespace.
pub fn peer_authentication_selector(spec: &PeerAuthenticationSpec) -> Option<&Labels> {
    spec.selector
        .as_ref()
        .map(|selector| &selector.match_labels)
        .filter(|labels| !labels.is_empty())
}

fn mode(mtls: Option<MutualTls>) -> Option<MutualTlsMode> {
    mtls.map(|mtls| mtls.mode).filter(|mode| *mode != MutualTlsMode::Unset)
}

/// The modes of a workload: its own policy, else its namespace's, else the root namespace's, else PERMISSIVE; on each
/// level the oldest policy alone counts, and what it leaves unset comes from the level above (item 68).
pub fn peer_authentication(
    table: &ResourceTable<PeerAuthenticationSpec>,
    subject: Subject<'_>,
) -> PeerAuthenticationModes {
    let wide = |namespace| {
        let list: &[Arc<Resource<PeerAuthenticationSpec>>] = table.of(namespace);
        list.iter().find(|policy| peer_authentication_selector(&policy.spec).is_none())
    };
    // In the root namespace a policy with a selector means nothing, not even to workloads there.
    let own = if subject.namespace == subject.root { &[] } else { table.of(subject.namespace) };
    let selecting = own.iter().find(|policy| {
        peer_authentication_selector(&policy.spec)
            .is_some_and(|selector| selects(selector, subject.labels))
    });
    let default = [selecting, wide(subject.namespace), wide(subject.root)]
        .into_iter()
        .flatten()
        .find_map(|policy| mode(policy.spec.mtls))
        .unwrap_or(MutualTlsMode::Permissive);
    let ports = selecting.map(|policy| &policy.spec.port_level_mtls).into_iter().flatten();
    PeerAuthenticationModes {
        default,
        ports: ports.map(|(port, mtls)| (*port, mode(Some(*mtls)).unwrap_or(default))).collect(),
    }
}

/// Whether an AuthorizationPolicy is for workloads: one that is attached to something by reference is not.
pub fn authorization_selects(spec: &AuthorizationPolicySpec, labels: &Labels) -> bool {
    spec.target_ref.is_none()
        && spec.target_refs.is_empty()
        && spec.selector.as_ref().is_none_or(|selector| selects(&selector.match_labels, labels))
}

/// The authorization policies of a workload: those of the root namespace and of its own that select it (items 73, 74).
pub fn authorization(
    table: &ResourceTable<AuthorizationPolicySpec>,
    subject: Subject<'_>,
) -> WorkloadAuthorization {
    let mut policies: Vec<_> = table
        .of_root_and(subject.root, subject.namespace)
        .filter(|policy| authorization_selects(&policy.spec, subject.labels))
        .collect();
    policies.sort_by(|a, b| a.oldest_first(b));
    let mut result = WorkloadAuthorization::default();
    for policy in policies {
        let list = match policy.spec.action {
            AuthorizationAction::Custom => &mut result.custom,
            AuthorizationAction::Audit => &mut result.audit,
            AuthorizationAction::Deny => &mut result.deny,
            AuthorizationAction::Allow => &mut result.allow,
        };
        list.push(policy.clone());
    }
    result
}

/// Whether an EnvoyFilter is for workloads with these labels: one that is attached to something by reference is not.
pub fn envoy_filter_selects(spec: &EnvoyFilterSpec, labels: &Labels) -> bool {
    spec.target_refs.is_empty()
        && spec.workload_selector.as_ref().is_none_or(|selector| selects(&selector.labels, labels))
}

/// The EnvoyFilters of a workload in order of application: by priority, those of the root namespace first, then the
/// oldest (item 88).
pub fn envoy_filters(
    table: &ResourceTable<EnvoyFilterSpec>,
    subject: Subject<'_>,
) -> Vec<Arc<Resource<EnvoyFilterSpec>>> {
    let mut filters: Vec<_> = table
        .of_root_and(subject.root, subject.namespace)
        .filter(|filter| envoy_filter_selects(&filter.spec, subject.labels))
        .cloned()
        .collect();
    let rank = |filter: &Resource<EnvoyFilterSpec>| {
        (filter.spec.priority, Reverse(filter.namespace() == subject.root))
    };
    filters.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.oldest_first(b)));
    filters
}
