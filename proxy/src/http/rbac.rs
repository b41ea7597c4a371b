//! Evaluating RBAC policies, for requests and for connections.
//!
//! Source: Envoy's `RBACEngine`; denials are named as its HTTP filter names them.

use std::net::IpAddr;

use super::{
    head::Head,
    matching::{any_matches, header_matches},
};
use crate::config::rbac::{
    PathMatcher, Permission, Policy, Principal, Rbac, RbacAction, RbacRules,
};

/// What policies look at.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The request; `None` for a connection.
    pub head: Option<&'a Head>,
    /// Where the connection went to.
    pub destination: (IpAddr, u16),
    /// The TCP peer.
    pub direct_remote: IpAddr,
    /// The client, after `x-forwarded-for`.
    pub remote: IpAddr,
    /// Names in the peer's verified certificate (URI SANs, then DNS SANs); `None`: no verified certificate.
    pub peer_names: Option<&'a [String]>,
    /// SNI.
    pub server_name: &'a str,
}

/// What a filter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It may pass.
    Allowed,
    /// It may not; the policy that says so, if it was one.
    Denied(Option<&'a str>),
}

impl Verdict<'_> {
    /// `response_code_details` of a denial.
    pub fn details(policy: Option<&str>) -> String {
        format!("rbac_access_denied_matched_policy[{}]", policy.unwrap_or("none").replace(' ', "_"))
    }
}

/// Evaluates a filter: first the rules that are only tried (the second value), then those that count.
pub fn evaluate<'a>(rbac: &'a Rbac, facts: &Facts<'_>) -> (Verdict<'a>, Option<Verdict<'a>>) {
    let shadow = rbac.shadow.as_ref().map(|rules| evaluate_rules(rules, facts));
    let verdict =
        rbac.rules.as_ref().map_or(Verdict::Allowed, |rules| evaluate_rules(rules, facts));
    (verdict, shadow)
}

fn evaluate_rules<'a>(rules: &'a RbacRules, facts: &Facts<'_>) -> Verdict<'a> {
    let matched = rules
        .policies
        .iter()
        .find(|(_, policy)| policy_matches(policy, facts))
        .map(|(name, _)| &**name);
    match (rules.action, matched) {
        (RbacAction::Log, _) | (RbacAction::Allow, Some(_)) | (RbacAction::Deny, None) => {
            Verdict::Allowed
        }
        (RbacAction::Allow, None) => Verdict::Denied(None),
        (RbacAction::Deny, Some(name)) => Verdict::Denied(Some(name)),
    }
}

fn policy_matches(policy: &Policy, facts: &Facts<'_>) -> bool {
    policy.permissions.iter().any(|permission| permission_matches(permission, facts))
        && policy.principals.iter().any(|principal| principal_matches(principal, facts))
}

fn permission_matches(permission: &Permission, facts: &Facts<'_>) -> bool {
    match permission {
        Permission::Any => true,
        Permission::And(all) => all.iter().all(|inner| permission_matches(inner, facts)),
        Permission::Or(any) => any.iter().any(|inner| permission_matches(inner, facts)),
        Permission::Not(inner) => !permission_matches(inner, facts),
        Permission::Header(matcher) => facts.head.is_some_and(|head| header_matches(matcher, head)),
        Permission::Path(matcher) => path_matches(matcher, facts),
        Permission::DestinationIp(net) => net.contains(&facts.destination.0),
        Permission::DestinationPort(port) => facts.destination.1 == *port,
        Permission::DestinationPortRange { start, end } => {
            (*start..*end).contains(&u32::from(facts.destination.1))
        }
        Permission::ServerName(matcher) => matcher.matches(facts.server_name),
    }
}

fn principal_matches(principal: &Principal, facts: &Facts<'_>) -> bool {
    match principal {
        Principal::Any => true,
        Principal::And(all) => all.iter().all(|inner| principal_matches(inner, facts)),
        Principal::Or(any) => any.iter().any(|inner| principal_matches(inner, facts)),
        Principal::Not(inner) => !principal_matches(inner, facts),
        Principal::Authenticated(None) => facts.peer_names.is_some(),
        Principal::Authenticated(Some(matcher)) => facts.peer_names.is_some_and(|names| {
            names.iter().any(|name| any_matches(std::slice::from_ref(matcher), name))
        }),
        Principal::DirectRemoteIp(net) => net.contains(&facts.direct_remote),
        Principal::RemoteIp(net) => net.contains(&facts.remote),
        Principal::Header(matcher) => facts.head.is_some_and(|head| header_matches(matcher, head)),
        Principal::Path(matcher) => path_matches(matcher, facts),
    }
}

fn path_matches(matcher: &PathMatcher, facts: &Facts<'_>) -> bool {
    let Some(head) = facts.head else { return false };
    match matcher {
        PathMatcher::String(string) => string.matches(head.path()),
        PathMatcher::Template(regex) => regex.is_match(head.path()),
    }
}

#[cfg(test)]
mod tests;
