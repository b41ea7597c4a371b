//! RBAC rules.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{header, pruned, regex, string};
use crate::config::{
    matcher::StringMatcher,
    rbac::{PathMatcher, Permission, Principal, Rbac, RbacAction, RbacRules},
};

/// The fields of either RBAC filter.
pub fn rbac(rbac: &Rbac) -> Value {
    pruned(json!({
        "stat_prefix": rbac.stat_prefix,
        "rules": rbac.rules.as_ref().map(rules),
        "shadow_rules": rbac.shadow.as_ref().map(rules),
    }))
}

fn rules(rules: &RbacRules) -> Value {
    let action = match rules.action {
        RbacAction::Allow => "ALLOW",
        RbacAction::Deny => "DENY",
        RbacAction::Log => "LOG",
    };
    let policies: Map<String, Value> = rules
        .policies
        .iter()
        .map(|(name, policy)| {
            let permissions: Vec<_> = policy.permissions.iter().map(permission).collect();
            let principals: Vec<_> = policy.principals.iter().map(principal).collect();
            let policy = json!({"permissions": permissions, "principals": principals});
            (name.to_string(), policy)
        })
        .collect();
    json!({"action": action, "policies": policies})
}

fn cidr(range: &IpNet) -> Value {
    json!({"address_prefix": range.addr().to_string(), "prefix_len": range.prefix_len()})
}

fn path(matcher: &PathMatcher) -> (&'static str, Value) {
    match matcher {
        PathMatcher::String(matcher) => ("url_path", json!({"path": string(matcher)})),
        PathMatcher::Template(template) => ("uri_template", regex(template)),
    }
}

fn permission(rule: &Permission) -> Value {
    let list = |rules: &[Permission]| -> Vec<_> { rules.iter().map(permission).collect() };
    match rule {
        Permission::Any => json!({"any": true}),
        Permission::And(rules) => json!({"and_rules": {"rules": list(rules)}}),
        Permission::Or(rules) => json!({"or_rules": {"rules": list(rules)}}),
        Permission::Not(rule) => json!({"not_rule": permission(rule)}),
        Permission::Header(matcher) => json!({"header": header(matcher)}),
        Permission::Path(matcher) => {
            let (field, value) = path(matcher);
            json!({ field: value })
        }
        Permission::DestinationIp(range) => json!({"destination_ip": cidr(range)}),
        Permission::DestinationPort(port) => json!({"destination_port": port}),
        Permission::DestinationPortRange { start, end } => {
            json!({"destination_port_range": {"start": start, "end": end}})
        }
        Permission::ServerName(matcher) => json!({"requested_server_name": string(matcher)}),
    }
}

fn principal(id: &Principal) -> Value {
    let list = |ids: &[Principal]| -> Vec<_> { ids.iter().map(principal).collect() };
    match id {
        Principal::Any => json!({"any": true}),
        Principal::And(ids) => json!({"and_ids": {"ids": list(ids)}}),
        Principal::Or(ids) => json!({"or_ids": {"ids": list(ids)}}),
        Principal::Not(id) => json!({"not_id": principal(id)}),
        Principal::Authenticated(name) => {
            let name: Option<&StringMatcher> = name.as_ref();
            let name = name.map_or(Value::Null, string);
            json!({"authenticated": pruned(json!({"principal_name": name}))})
        }
        Principal::DirectRemoteIp(range) => json!({"direct_remote_ip": cidr(range)}),
        Principal::RemoteIp(range) => json!({"remote_ip": cidr(range)}),
        Principal::Header(matcher) => json!({"header": header(matcher)}),
        Principal::Path(matcher) => {
            let (field, value) = path(matcher);
            json!({ field: value })
        }
    }
}
