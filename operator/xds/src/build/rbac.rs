//! AuthorizationPolicy as Envoy's RBAC filters, for requests and for raw connections.
//!
//! A rule becomes a policy `ns[NS]-policy[NAME]-rule[N]`: its `to` and the conditions on the destination are permissions,
//! its `from` and the other conditions principals. Order of filters: CUSTOM, DENY, ALLOW (`istio-behaviours` 2.9). What
//! the mesh cannot check fails closed.

use std::sync::Arc;

use weft_api::xds::envoy::{
    config::{
        listener::v3::{Filter, filter::ConfigType as NetworkConfig},
        rbac::v3::{Permission, Policy, Principal, Rbac, permission, principal, rbac::Action},
    },
    extensions::filters::{
        http::rbac::v3::Rbac as HttpRbac,
        network::{
            http_connection_manager::v3::{HttpFilter, http_filter::ConfigType as HttpConfig},
            rbac::v3::Rbac as NetworkRbac,
        },
    },
};
use weft_core::{mesh::MeshConfig, resource::Resource, snapshot::WorkloadAuthorization};
use weft_crds::security::{AuthorizationPolicySpec, Rule};

use crate::wire;

mod condition;
mod pattern;
mod source;

use condition::Conditions;

const DRY_RUN: &str = "istio.io/dry-run";

/// What a set of rules is built for.
#[derive(Clone, Copy)]
struct Context<'a> {
    mesh: &'a MeshConfig,
    /// Only a connection is seen: fields of requests cannot be checked (item 76).
    tcp: bool,
    /// A field that cannot be checked is left out, which makes the rule match more. Otherwise the rule is left out.
    deny: bool,
    /// The policy's namespace, for service accounts without one.
    namespace: &'a str,
}

/// A field that cannot be checked here.
struct Unchecked;

impl Context<'_> {
    /// What becomes of a field that only requests have: `Ok(false)` leaves the field out.
    fn request_field(self) -> Result<bool, Unchecked> {
        match (self.tcp, self.deny) {
            (false, _) => Ok(true),
            (true, true) => Ok(false),
            (true, false) => Err(Unchecked),
        }
    }
}

/// One filter's rules: enforced and only tried.
struct Stage {
    rules: Option<Rbac>,
    shadow: Option<Rbac>,
    shadow_prefix: &'static str,
}

/// The filters of a workload's requests.
pub(crate) fn http_filters(auth: &WorkloadAuthorization, mesh: &MeshConfig) -> Vec<HttpFilter> {
    let filter = |stage: Stage| HttpFilter {
        name: "envoy.filters.http.rbac".into(),
        config_type: Some(HttpConfig::TypedConfig(wire::pack(&HttpRbac {
            rules: stage.rules,
            shadow_rules: stage.shadow,
            shadow_rules_stat_prefix: stage.shadow_prefix.into(),
            ..HttpRbac::default()
        }))),
        ..HttpFilter::default()
    };
    stages(auth, mesh, false).into_iter().map(filter).collect()
}

/// The filters of a workload's raw connections.
pub(crate) fn network_filters(
    auth: &WorkloadAuthorization,
    mesh: &MeshConfig,
    stat_prefix: &str,
) -> Vec<Filter> {
    let filter = |stage: Stage| Filter {
        name: "envoy.filters.network.rbac".into(),
        config_type: Some(NetworkConfig::TypedConfig(wire::pack(&NetworkRbac {
            rules: stage.rules,
            shadow_rules: stage.shadow,
            stat_prefix: stat_prefix.into(),
            shadow_rules_stat_prefix: stage.shadow_prefix.into(),
            ..NetworkRbac::default()
        }))),
    };
    stages(auth, mesh, true).into_iter().map(filter).collect()
}

fn stages(auth: &WorkloadAuthorization, mesh: &MeshConfig, tcp: bool) -> Vec<Stage> {
    // No provider of CUSTOM decisions can be asked, so what such a policy covers is denied.
    let lists = [
        (&auth.custom, Action::Deny, "istio_dry_run_deny_"),
        (&auth.deny, Action::Deny, "istio_dry_run_deny_"),
        (&auth.allow, Action::Allow, "istio_dry_run_allow_"),
    ];
    lists
        .into_iter()
        .filter_map(|(list, action, prefix)| stage(list, action, prefix, mesh, tcp))
        .collect()
}

fn stage(
    policies: &[Arc<Resource<AuthorizationPolicySpec>>],
    action: Action,
    shadow_prefix: &'static str,
    mesh: &MeshConfig,
    tcp: bool,
) -> Option<Stage> {
    let (tried, enforced): (Vec<_>, Vec<_>) = policies
        .iter()
        .partition(|policy| policy.annotations.get(DRY_RUN).is_some_and(|value| value == "true"));
    let rules = |list: Vec<&Arc<Resource<AuthorizationPolicySpec>>>| {
        (!list.is_empty()).then(|| Rbac {
            action: action as i32,
            policies: list
                .into_iter()
                .flat_map(|policy| named_rules(policy, action, mesh, tcp))
                .collect(),
            ..Rbac::default()
        })
    };
    let (rules, shadow) = (rules(enforced), rules(tried));
    let nothing = rules.is_none() && shadow.is_none();
    let shadow_prefix = if shadow.is_some() { shadow_prefix } else { "" };
    (!nothing).then_some(Stage { rules, shadow, shadow_prefix })
}

fn named_rules(
    resource: &Resource<AuthorizationPolicySpec>,
    action: Action,
    mesh: &MeshConfig,
    tcp: bool,
) -> Vec<(String, Policy)> {
    let reference = &resource.reference;
    let context =
        Context { mesh, tcp, deny: action == Action::Deny, namespace: resource.namespace() };
    let name =
        |index| format!("ns[{}]-policy[{}]-rule[{index}]", reference.namespace, reference.name);
    resource
        .spec
        .rules
        .iter()
        .enumerate()
        .filter_map(|(index, rule)| Some((name(index), policy(rule, context).ok()?)))
        .collect()
}

/// # Errors
/// When the rule needs what a raw connection does not have, and leaving that out would allow more.
fn policy(rule: &Rule, context: Context<'_>) -> Result<Policy, Unchecked> {
    let Conditions { permissions: on_destination, principals: on_source } =
        condition::conditions(&rule.when, context)?;
    let operations = rule
        .to
        .iter()
        .map(|to| source::operation(&to.operation, context))
        .collect::<Result<Vec<_>, _>>()?;
    let sources = rule
        .from
        .iter()
        .map(|from| source::source(&from.source, context))
        .collect::<Result<Vec<_>, _>>()?;
    let or_anything = |list: Vec<Vec<_>>| if list.is_empty() { vec![vec![]] } else { list };
    let permissions = or_anything(operations)
        .into_iter()
        .map(|rules| all_permissions(rules.into_iter().chain(on_destination.iter().cloned())))
        .collect();
    let or_anybody = |list: Vec<Vec<_>>| if list.is_empty() { vec![vec![]] } else { list };
    let principals = or_anybody(sources)
        .into_iter()
        .map(|rules| all_principals(rules.into_iter().chain(on_source.iter().cloned())))
        .collect();
    Ok(Policy { permissions, principals, ..Policy::default() })
}

fn all_permissions(rules: impl Iterator<Item = permission::Rule>) -> Permission {
    let mut rules: Vec<_> = rules.map(|rule| Permission { rule: Some(rule) }).collect();
    match rules.len() {
        0 => Permission { rule: Some(permission::Rule::Any(true)) },
        1 => rules.remove(0),
        _ => Permission { rule: Some(permission::Rule::AndRules(permission::Set { rules })) },
    }
}

fn all_principals(ids: impl Iterator<Item = principal::Identifier>) -> Principal {
    let mut ids: Vec<_> = ids.map(|id| Principal { identifier: Some(id) }).collect();
    match ids.len() {
        0 => Principal { identifier: Some(principal::Identifier::Any(true)) },
        1 => ids.remove(0),
        _ => Principal { identifier: Some(principal::Identifier::AndIds(principal::Set { ids })) },
    }
}

#[cfg(test)]
mod tests;
