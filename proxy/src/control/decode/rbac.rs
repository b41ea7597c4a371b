//! RBAC rules, compiled into trees. What is not understood is an error: a policy never silently loses a part.

use weft_api::xds::{
    envoy::{
        config::{
            core::v3::TypedExtensionConfig,
            rbac::v3::{
                Permission as PbPermission, Policy as PbPolicy, Principal as PbPrincipal,
                Rbac as PbRules, permission::Rule, principal::Identifier, rbac::Action,
            },
        },
        extensions::{
            filters::{
                http::rbac::v3::Rbac as PbHttpRbac, network::rbac::v3::Rbac as PbNetworkRbac,
            },
            path::r#match::uri_template::v3::UriTemplateMatchConfig,
        },
        r#type::matcher::v3::{FilterStateMatcher, filter_state_matcher::Matcher},
    },
    google::protobuf::Any,
};

use super::{
    invalid::{At, Invalid, each, refuse, refuse_all},
    matcher,
    value::{cidr, port, unpack},
};
use crate::config::rbac::{
    PathMatcher, Permission, Policy, Principal, Rbac, RbacAction, RbacRules,
};

/// Where Istio's proxies keep the peer's identity; the same as the URI SAN of its certificate.
const PEER_PRINCIPAL: &str = "io.istio.peer_principal";

/// `envoy.filters.http.rbac`.
pub fn http(config: &PbHttpRbac) -> Result<Rbac, Invalid> {
    refuse_all(&[
        (config.matcher.is_some(), "matcher"),
        (config.shadow_matcher.is_some(), "shadow_matcher"),
    ])?;
    Ok(Rbac {
        stat_prefix: config.shadow_rules_stat_prefix.as_str().into(),
        rules: config.rules.as_ref().map(rules).transpose().at("rules")?,
        shadow: config.shadow_rules.as_ref().map(rules).transpose().at("shadow_rules")?,
    })
}

/// `envoy.filters.network.rbac`.
pub fn network(any: &Any) -> Result<Rbac, Invalid> {
    let config: PbNetworkRbac = unpack(any)?;
    refuse_all(&[
        (config.matcher.is_some(), "matcher"),
        (config.shadow_matcher.is_some(), "shadow_matcher"),
        (config.delay_deny.is_some(), "delay_deny"),
    ])?;
    Ok(Rbac {
        stat_prefix: config.stat_prefix.as_str().into(),
        rules: config.rules.as_ref().map(rules).transpose().at("rules")?,
        shadow: config.shadow_rules.as_ref().map(rules).transpose().at("shadow_rules")?,
    })
}

fn rules(rules: &PbRules) -> Result<RbacRules, Invalid> {
    let action = match Action::try_from(rules.action) {
        Ok(Action::Allow) => RbacAction::Allow,
        Ok(Action::Deny) => RbacAction::Deny,
        Ok(Action::Log) => RbacAction::Log,
        Err(_) => {
            return Err(Invalid::value(rules.action.to_string(), "an action")).at("action");
        }
    };
    let mut policies = rules
        .policies
        .iter()
        .map(|(name, rule)| Ok((name.as_str().into(), policy(rule).at_key("policies", name)?)))
        .collect::<Result<Vec<(Box<str>, Policy)>, Invalid>>()?;
    policies.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(RbacRules { action, policies })
}

fn policy(policy: &PbPolicy) -> Result<Policy, Invalid> {
    refuse_all(&[
        (policy.condition.is_some(), "condition"),
        (policy.checked_condition.is_some(), "checked_condition"),
        (policy.cel_config.is_some(), "cel_config"),
        (policy.permissions.is_empty(), "permissions that are empty"),
        (policy.principals.is_empty(), "principals that are empty"),
    ])?;
    Ok(Policy {
        permissions: each(&policy.permissions, "permissions", permission)?,
        principals: each(&policy.principals, "principals", principal)?,
    })
}

fn permission(permission: &PbPermission) -> Result<Permission, Invalid> {
    Ok(match permission.rule.as_ref().ok_or_else(|| Invalid::missing("rule"))? {
        Rule::Any(any) => {
            refuse(!any, "any: false")?;
            Permission::Any
        }
        Rule::AndRules(set) => Permission::And(permissions(&set.rules).at("and_rules")?),
        Rule::OrRules(set) => Permission::Or(permissions(&set.rules).at("or_rules")?),
        Rule::NotRule(inner) => Permission::Not(Box::new(self::permission(inner).at("not_rule")?)),
        Rule::Header(header) => Permission::Header(matcher::header(header).at("header")?),
        Rule::UrlPath(path) => {
            Permission::Path(PathMatcher::String(matcher::path(path).at("url_path")?))
        }
        Rule::UriTemplate(template) => Permission::Path(uri_template(template).at("uri_template")?),
        Rule::DestinationIp(range) => Permission::DestinationIp(cidr(range).at("destination_ip")?),
        Rule::DestinationPort(value) => {
            Permission::DestinationPort(port(*value).at("destination_port")?)
        }
        Rule::DestinationPortRange(range) => {
            let bound = |value: i32| {
                u32::try_from(value)
                    .map_err(|_| Invalid::value(value.to_string(), "a port"))
                    .at("destination_port_range")
            };
            Permission::DestinationPortRange { start: bound(range.start)?, end: bound(range.end)? }
        }
        Rule::RequestedServerName(name) => {
            Permission::ServerName(matcher::string(name).at("requested_server_name")?)
        }
        Rule::Metadata(_) => return Err(Invalid::unsupported("metadata")),
        Rule::Matcher(_) => return Err(Invalid::unsupported("matcher")),
        Rule::SourcedMetadata(_) => return Err(Invalid::unsupported("sourced_metadata")),
    })
}

fn permissions(rules: &[PbPermission]) -> Result<Vec<Permission>, Invalid> {
    refuse(rules.is_empty(), "rules that are empty")?;
    each(rules, "rules", permission)
}

fn principal(principal: &PbPrincipal) -> Result<Principal, Invalid> {
    Ok(match principal.identifier.as_ref().ok_or_else(|| Invalid::missing("identifier"))? {
        Identifier::Any(any) => {
            refuse(!any, "any: false")?;
            Principal::Any
        }
        Identifier::AndIds(set) => Principal::And(principals(&set.ids).at("and_ids")?),
        Identifier::OrIds(set) => Principal::Or(principals(&set.ids).at("or_ids")?),
        Identifier::NotId(inner) => Principal::Not(Box::new(self::principal(inner).at("not_id")?)),
        Identifier::Authenticated(authenticated) => Principal::Authenticated(
            authenticated
                .principal_name
                .as_ref()
                .map(matcher::string)
                .transpose()
                .at("authenticated.principal_name")?,
        ),
        Identifier::FilterState(matcher) => peer_principal(matcher).at("filter_state")?,
        Identifier::SourceIp(range) => Principal::DirectRemoteIp(cidr(range).at("source_ip")?),
        Identifier::DirectRemoteIp(range) => {
            Principal::DirectRemoteIp(cidr(range).at("direct_remote_ip")?)
        }
        Identifier::RemoteIp(range) => Principal::RemoteIp(cidr(range).at("remote_ip")?),
        Identifier::Header(header) => Principal::Header(matcher::header(header).at("header")?),
        Identifier::UrlPath(path) => {
            Principal::Path(PathMatcher::String(matcher::path(path).at("url_path")?))
        }
        Identifier::Metadata(_) => return Err(Invalid::unsupported("metadata")),
        Identifier::SourcedMetadata(_) => return Err(Invalid::unsupported("sourced_metadata")),
        Identifier::Custom(_) => return Err(Invalid::unsupported("custom")),
    })
}

fn principals(ids: &[PbPrincipal]) -> Result<Vec<Principal>, Invalid> {
    refuse(ids.is_empty(), "ids that are empty")?;
    each(ids, "ids", principal)
}

fn peer_principal(matcher: &FilterStateMatcher) -> Result<Principal, Invalid> {
    if matcher.key != PEER_PRINCIPAL {
        return Err(Invalid::unsupported_value(&matcher.key)).at("key");
    }
    match &matcher.matcher {
        Some(Matcher::StringMatch(name)) => {
            Ok(Principal::Authenticated(Some(matcher::string(name).at("string_match")?)))
        }
        Some(Matcher::AddressMatch(_)) => Err(Invalid::unsupported("address_match")),
        None => Err(Invalid::missing("matcher")),
    }
}

fn uri_template(extension: &TypedExtensionConfig) -> Result<PathMatcher, Invalid> {
    let any = extension.typed_config.as_ref().ok_or_else(|| Invalid::missing("typed_config"))?;
    let config: UriTemplateMatchConfig = unpack(any).at("typed_config")?;
    let pattern = template_pattern(&config.path_template)
        .ok_or_else(|| Invalid::value(&config.path_template, "a path template"))
        .at("typed_config.path_template")?;
    Ok(PathMatcher::Template(matcher::anchored(&pattern).at("typed_config.path_template")?))
}

/// A path template as a regular expression: `*` and `{*}` are one segment, `**` and `{**}` any number; `{name}`,
/// `{name=*}` and `{name=**}` as well.
fn template_pattern(template: &str) -> Option<String> {
    const SEGMENT: &str = "[^/?#]+";
    const ANY: &str = "[^?#]*";
    let mut pattern = String::new();
    for segment in template.strip_prefix('/')?.split('/') {
        pattern.push('/');
        let mut rest = segment;
        while !rest.is_empty() {
            if let Some(tail) = rest.strip_prefix("**") {
                pattern.push_str(ANY);
                rest = tail;
            } else if let Some(tail) = rest.strip_prefix('*') {
                pattern.push_str(SEGMENT);
                rest = tail;
            } else if let Some(inner) = rest.strip_prefix('{') {
                let (variable, tail) = inner.split_once('}')?;
                let glob = variable
                    .split_once('=')
                    .map_or(if variable == "**" { "**" } else { "*" }, |(_, glob)| glob);
                pattern.push_str(match glob {
                    "*" => SEGMENT,
                    "**" => ANY,
                    _ => return None,
                });
                rest = tail;
            } else {
                let end = rest.find(['*', '{', '}']).unwrap_or(rest.len());
                if end == 0 {
                    return None;
                }
                pattern.push_str(&regex::escape(&rest[..end]));
                rest = &rest[end..];
            }
        }
    }
    Some(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_template_matches_segments() {
        for (template, path, expected) in [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{*}", "/foo/bar/baz", false),
            ("/foo/{**}/bar", "/foo/a/b/bar", true),
            ("/foo/{**}", "/foo/", true),
            ("/foo/*/x", "/foo/y/x", true),
            ("/foo/{id=*}.json", "/foo/7.json", true),
            ("/a.b", "/aXb", false),
        ] {
            let regex = matcher::anchored(&template_pattern(template).unwrap()).unwrap();
            assert_eq!(regex.is_match(path), expected, "{template} {path}");
        }
        for template in ["foo", "/{x", "/{x=a}", "/x}"] {
            assert_eq!(template_pattern(template), None, "{template}");
        }
    }
}
