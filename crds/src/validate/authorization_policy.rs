//! Validation of AuthorizationPolicies (`istio-behaviours` 2.9, items 75 to 83).

use super::{NOT_YET, Validation, text};
use crate::{
    path::Path,
    security::{
        AuthorizationAction, AuthorizationCondition, AuthorizationPolicy, AuthorizationPolicySpec,
        Operation, Rule, Source,
    },
};

/// Switches a policy to noting what it would do.
const DRY_RUN: &str = "istio.io/dry-run";

/// Keys of conditions that are whole; others have a name in brackets.
const KEYS: [&str; 12] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.serviceAccount",
    "source.trustDomain",
    "source.principal",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
];

/// Beginnings of keys with a name in brackets.
const NAMED_KEYS: [&str; 3] =
    ["request.headers", "request.auth.claims", "experimental.envoy.filters."];

const NO_TOKENS: &str = "this version of Weft reads no tokens: no request has such a property";

pub(super) fn validate(policy: &AuthorizationPolicy, report: &mut Validation) {
    let (path, spec) = (Path::root("spec"), &policy.spec);
    text::selector(spec.selector.as_ref(), &path.field("selector"), report);
    targets(spec, report);
    action(spec, report);
    dry_run(policy, report);
    let list = path.field("rules");
    for (index, rule) in spec.rules.iter().enumerate() {
        self::rule(rule, spec.action, &list.index(index), report);
    }
}

fn targets(spec: &AuthorizationPolicySpec, report: &mut Validation) {
    let path = Path::root("spec");
    let list = path.field("targetRefs");
    let one = spec.target_ref.iter().map(|target| (path.field("targetRef"), target));
    let many = spec.target_refs.iter().enumerate().map(|(i, target)| (list.index(i), target));
    for (at, target) in one.chain(many) {
        if !target.namespace.is_empty() {
            let reason = "must be empty: a policy is attached to objects of its own namespace";
            report.error(&at.field("namespace"), reason);
        }
        report.warn(
            &at,
            "takes effect in gateways and waypoints only: sidecars pass over the policy",
        );
    }
}

fn action(spec: &AuthorizationPolicySpec, report: &mut Validation) {
    let path = Path::root("spec");
    let (rules, provider) = (path.field("rules"), path.field("provider"));
    if spec.rules.is_empty() {
        match spec.action {
            AuthorizationAction::Deny | AuthorizationAction::Custom => {
                report.error(
                    &rules,
                    format!("is required: {} without rules means nothing", spec.action),
                );
            }
            AuthorizationAction::Audit => {
                report.warn(&rules, "is empty, so that no request is noted");
            }
            // Allows nothing, which is a usual policy.
            AuthorizationAction::Allow => {}
        }
    }
    match spec.action {
        AuthorizationAction::Audit => report.warn(&path.field("action"), NOT_YET),
        AuthorizationAction::Custom => {
            let reason =
                "this version of Weft has no providers: requests that the rules match are refused";
            report.warn(&path.field("action"), reason);
        }
        AuthorizationAction::Allow | AuthorizationAction::Deny => {}
    }
    let named = spec.provider.as_ref().is_some_and(|p| !p.name.is_empty());
    if spec.action == AuthorizationAction::Custom && !named {
        report.error(&provider.field("name"), "is required for action CUSTOM");
    }
    if spec.action != AuthorizationAction::Custom && spec.provider.is_some() {
        report.error(&provider, "can be set with action CUSTOM only");
    }
}

fn dry_run(policy: &AuthorizationPolicy, report: &mut Validation) {
    let annotations = policy.metadata.annotations.as_ref();
    let Some(value) = annotations.and_then(|all| all.get(DRY_RUN)) else { return };
    let root = Path::root("metadata");
    let path = root.field("annotations");
    if !matches!(value.as_str(), "true" | "false") {
        report.error(&path.key(DRY_RUN), format!("{value:?} is neither \"true\" nor \"false\""));
    }
    let action = policy.spec.action;
    if !matches!(action, AuthorizationAction::Allow | AuthorizationAction::Deny) {
        report.error(&path.key(DRY_RUN), format!("is not supported for action {action}"));
    }
}

fn rule(rule: &Rule, action: AuthorizationAction, path: &Path<'_>, report: &mut Validation) {
    let list = path.field("from");
    for (index, from) in rule.from.iter().enumerate() {
        let entry = list.index(index);
        let at = entry.field("source");
        if from.source == Source::default() {
            report.error(&at, "must not be empty");
        }
        source(&from.source, action, &at, report);
    }
    let list = path.field("to");
    for (index, to) in rule.to.iter().enumerate() {
        let entry = list.index(index);
        let at = entry.field("operation");
        if to.operation == Operation::default() {
            report.error(&at, "must not be empty");
        }
        operation(&to.operation, &at, report);
    }
    let list = path.field("when");
    for (index, when) in rule.when.iter().enumerate() {
        condition(when, action, &list.index(index), report);
    }
}

type Check = fn(&str) -> Result<(), String>;

fn each(values: &[String], check: Check, path: &Path<'_>, report: &mut Validation) {
    for (index, value) in values.iter().enumerate() {
        let result = if value.is_empty() { Err("must not be empty".into()) } else { check(value) };
        report.check(&path.index(index), result);
    }
}

fn anything(_: &str) -> Result<(), String> {
    Ok(())
}

fn source(source: &Source, action: AuthorizationAction, path: &Path<'_>, report: &mut Validation) {
    let peers: [(&str, &[String], Check); 10] = [
        ("principals", &source.principals, pattern),
        ("notPrincipals", &source.not_principals, pattern),
        ("requestPrincipals", &source.request_principals, pattern),
        ("notRequestPrincipals", &source.not_request_principals, pattern),
        ("namespaces", &source.namespaces, pattern),
        ("notNamespaces", &source.not_namespaces, pattern),
        ("serviceAccounts", &source.service_accounts, service_account),
        ("notServiceAccounts", &source.not_service_accounts, service_account),
        ("trustDomains", &source.trust_domains, pattern),
        ("notTrustDomains", &source.not_trust_domains, pattern),
    ];
    for (field, values, check) in peers {
        let at = path.field(field);
        each(values, check, &at, report);
        if field.ends_with("equestPrincipals") && !values.is_empty() {
            report.warn(&at, NO_TOKENS);
        }
        if action == AuthorizationAction::Custom && !values.is_empty() {
            report.error(&at, "cannot be used with action CUSTOM");
        }
    }
    for (field, values) in
        [("principals", &source.principals), ("notPrincipals", &source.not_principals)]
    {
        never_matches(values, never_a_principal, &path.field(field), report);
    }
    for (field, values) in [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ] {
        each(values, text::ip_or_cidr, &path.field(field), report);
    }
    let together = |accounts: &[String], principals: &[String], namespaces: &[String]| {
        let others = !principals.is_empty() || !namespaces.is_empty();
        others && !accounts.is_empty()
    };
    if together(&source.service_accounts, &source.principals, &source.namespaces) {
        let reason = "cannot be used together with principals or namespaces";
        report.error(&path.field("serviceAccounts"), reason);
    }
    if together(&source.not_service_accounts, &source.not_principals, &source.not_namespaces) {
        let reason = "cannot be used together with notPrincipals or notNamespaces";
        report.error(&path.field("notServiceAccounts"), reason);
    }
}

fn operation(operation: &Operation, path: &Path<'_>, report: &mut Validation) {
    let fields: [(&str, &[String], Check); 8] = [
        ("hosts", &operation.hosts, pattern),
        ("notHosts", &operation.not_hosts, pattern),
        ("ports", &operation.ports, port),
        ("notPorts", &operation.not_ports, port),
        ("methods", &operation.methods, pattern),
        ("notMethods", &operation.not_methods, pattern),
        ("paths", &operation.paths, path_pattern),
        ("notPaths", &operation.not_paths, path_pattern),
    ];
    for (field, values, check) in fields {
        each(values, check, &path.field(field), report);
    }
    for (field, values, why) in [
        ("methods", &operation.methods, never_a_method as Never),
        ("notMethods", &operation.not_methods, never_a_method),
        ("paths", &operation.paths, never_a_path),
        ("notPaths", &operation.not_paths, never_a_path),
    ] {
        never_matches(values, why, &path.field(field), report);
    }
}

/// Why no request can have such a value; `None` when one can.
type Never = fn(&str) -> Option<&'static str>;

fn never_matches(values: &[String], why: Never, path: &Path<'_>, report: &mut Validation) {
    for (index, value) in values.iter().enumerate() {
        if let Some(why) = why(value) {
            report.warn(&path.index(index), format!("{value:?} never matches: {why}"));
        }
    }
}

fn never_a_principal(text: &str) -> Option<&'static str> {
    text.contains("://").then_some("a principal is written without spiffe://")
}

fn never_a_method(text: &str) -> Option<&'static str> {
    text.bytes()
        .any(|byte| byte.is_ascii_lowercase())
        .then_some("methods are compared with their case, such as GET")
}

fn never_a_path(text: &str) -> Option<&'static str> {
    if !text.is_empty() && !text.starts_with(['/', '*']) {
        return Some("a path begins with /");
    }
    text.contains(['?', '#']).then_some("paths are compared without their query")
}

/// A text, `abc*`, `*abc` or `*`.
fn pattern(text: &str) -> Result<(), String> {
    let inner = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
    if inner.contains('*') {
        return Err(format!("{text:?}: * can stand at the beginning or at the end, once"));
    }
    Ok(())
}

fn port(text: &str) -> Result<(), String> {
    let number: Result<u16, _> = text.parse();
    number
        .map_err(|_| format!("{text:?} is not a port"))
        .and_then(|number| text::port(number).map_err(|_| format!("{text:?} is not a port")))
}

fn service_account(text: &str) -> Result<(), String> {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    if text::is_label(namespace) && text::domain(name).is_ok() {
        return Ok(());
    }
    Err(format!("{text:?} is not a service account: name or namespace/name, no wildcards"))
}

/// A pattern, or a template in which `{*}` stands for one segment and `{**}` for any number.
fn path_pattern(text: &str) -> Result<(), String> {
    if !text.contains(['{', '}']) {
        return pattern(text);
    }
    let wrong = |why: &str| Err(format!("{text:?} is not a path template: {why}"));
    if !text.starts_with('/') {
        return wrong("it must begin with /");
    }
    let mut rest_seen = false;
    for segment in text.split('/').skip(1) {
        match segment {
            "{*}" | "{**}" if rest_seen => return wrong("nothing but text can follow {**}"),
            "{**}" => rest_seen = true,
            "{*}" => {}
            other if other.contains(['{', '}', '*']) => {
                return wrong("a segment is text, {*} or {**}");
            }
            _ => {}
        }
    }
    Ok(())
}

fn condition(
    condition: &AuthorizationCondition,
    action: AuthorizationAction,
    path: &Path<'_>,
    report: &mut Validation,
) {
    let key = condition.key.as_str();
    if condition.values.is_empty() && condition.not_values.is_empty() {
        report.error(path, "must have values or notValues");
    }
    report.check(&path.field("key"), condition_key(key));
    let check: Check = match key {
        "source.ip" | "remote.ip" | "destination.ip" => text::ip_or_cidr,
        "destination.port" => port,
        "source.serviceAccount" => service_account,
        // Values of headers and claims may hold any text.
        _ if key.starts_with("request.") || key.starts_with("experimental.") => anything,
        _ => pattern,
    };
    each(&condition.values, check, &path.field("values"), report);
    each(&condition.not_values, check, &path.field("notValues"), report);
    if key.starts_with("request.auth.") {
        report.warn(&path.field("key"), NO_TOKENS);
    }
    let identity = key.starts_with("request.auth.")
        || matches!(
            key,
            "source.namespace"
                | "source.principal"
                | "source.serviceAccount"
                | "source.trustDomain"
        );
    if action == AuthorizationAction::Custom && identity {
        report.error(&path.field("key"), format!("{key} cannot be used with action CUSTOM"));
    }
}

fn condition_key(key: &str) -> Result<(), String> {
    if KEYS.contains(&key) {
        return Ok(());
    }
    let named = NAMED_KEYS.iter().find(|start| key.starts_with(**start));
    let Some(start) = named else {
        return Err(format!(
            "{key:?} is not a property; known are {}, request.headers[NAME] and request.auth.claims[NAME]",
            KEYS.join(", ")
        ));
    };
    let name = key[start.len()..].split_once('[').and_then(|(_, rest)| rest.strip_suffix(']'));
    match name {
        None | Some("") => Err(format!("{key:?} needs a name in brackets")),
        Some(name) if *start == "request.headers" => text::header_name(name),
        Some(_) => Ok(()),
    }
}
