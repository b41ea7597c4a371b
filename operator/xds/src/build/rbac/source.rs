//! The clients and operations of a rule.

use weft_api::xds::envoy::{
    config::rbac::v3::{permission, principal},
    r#type::matcher::v3::StringMatcher,
};
use weft_crds::security::{Operation, Source};

use super::{
    Context, Unchecked,
    pattern::{
        any_permission, any_principal, authorities, cidr, escaped, header, nobody, not_permission,
        not_principal, nothing_done, path, regex, string,
    },
};

const SCHEME: &str = "spiffe://";

/// A client whose verified identity matches.
fn authenticated(matcher: StringMatcher) -> principal::Identifier {
    principal::Identifier::Authenticated(principal::Authenticated { principal_name: Some(matcher) })
}

/// A principal, `<trust domain>/ns/<namespace>/sa/<account>`, in the mesh's own trust domain and its aliases where it
/// names one of them or the default one (item 81).
pub(super) fn identity(pattern: &str, context: Context<'_>) -> principal::Identifier {
    let mesh = context.mesh;
    let own = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    let rest = pattern.split_once('/').filter(|(domain, _)| {
        *domain == "cluster.local" || own.clone().any(|own| **own == **domain)
    });
    match rest {
        Some((_, rest)) => any_principal(
            own.map(|domain| authenticated(string(&format!("{domain}/{rest}"), SCHEME))).collect(),
        ),
        None if pattern == "*" => {
            principal::Identifier::Authenticated(principal::Authenticated { principal_name: None })
        }
        None => authenticated(string(pattern, SCHEME)),
    }
}

/// A client of a namespace.
pub(super) fn namespace(pattern: &str, _: Context<'_>) -> principal::Identifier {
    authenticated(regex(format!("spiffe://[^/]+/ns/{}/sa/.+", escaped(pattern))))
}

/// A client with a service account, `<namespace>/<name>` or one of the policy's namespace.
pub(super) fn service_account(pattern: &str, context: Context<'_>) -> principal::Identifier {
    let (namespace, name) = pattern.split_once('/').unwrap_or((context.namespace, pattern));
    authenticated(regex(format!("spiffe://[^/]+/ns/{}/sa/{}", escaped(namespace), escaped(name))))
}

/// A client of a trust domain.
pub(super) fn trust_domain(pattern: &str, _: Context<'_>) -> principal::Identifier {
    authenticated(regex(format!("spiffe://{}/.+", escaped(pattern))))
}

/// The connection's other end.
pub(super) fn source_ip(block: &str, _: Context<'_>) -> principal::Identifier {
    cidr(block).map_or_else(nobody, principal::Identifier::DirectRemoteIp)
}

/// The original client.
pub(super) fn remote_ip(block: &str, _: Context<'_>) -> principal::Identifier {
    cidr(block).map_or_else(nobody, principal::Identifier::RemoteIp)
}

/// The identity of a token. No token is ever verified here, so nobody has one.
pub(super) fn token(_: &str, _: Context<'_>) -> principal::Identifier {
    nobody()
}

/// A value's list and its `not` list, with what a value means.
pub(super) struct Lists<'a> {
    /// Any of these.
    pub values: &'a [String],
    /// None of these.
    pub not_values: &'a [String],
    /// Only requests have it.
    pub request: bool,
}

/// Adds what the lists ask of a client.
///
/// # Errors
/// When they ask for what a raw connection does not have.
pub(super) fn add_principals(
    all: &mut Vec<principal::Identifier>,
    lists: &Lists<'_>,
    context: Context<'_>,
    meaning: impl Fn(&str, Context<'_>) -> principal::Identifier,
) -> Result<(), Unchecked> {
    let given = !lists.values.is_empty() || !lists.not_values.is_empty();
    if !given || (lists.request && !context.request_field()?) {
        return Ok(());
    }
    let any =
        |values: &[String]| any_principal(values.iter().map(|v| meaning(v, context)).collect());
    if !lists.values.is_empty() {
        all.push(any(lists.values));
    }
    if !lists.not_values.is_empty() {
        all.push(not_principal(any(lists.not_values)));
    }
    Ok(())
}

/// Adds what the lists ask of an operation.
///
/// # Errors
/// When they ask for what a raw connection does not have.
pub(super) fn add_permissions(
    all: &mut Vec<permission::Rule>,
    lists: &Lists<'_>,
    context: Context<'_>,
    meaning: impl Fn(&str) -> Vec<permission::Rule>,
) -> Result<(), Unchecked> {
    let given = !lists.values.is_empty() || !lists.not_values.is_empty();
    if !given || (lists.request && !context.request_field()?) {
        return Ok(());
    }
    let any = |values: &[String]| any_permission(values.iter().flat_map(|v| meaning(v)).collect());
    if !lists.values.is_empty() {
        all.push(any(lists.values));
    }
    if !lists.not_values.is_empty() {
        all.push(not_permission(any(lists.not_values)));
    }
    Ok(())
}

/// What a source asks of the client: all of it.
///
/// # Errors
/// When it asks for what a raw connection does not have, and leaving that out would allow more.
pub(super) fn source(
    source: &Source,
    context: Context<'_>,
) -> Result<Vec<principal::Identifier>, Unchecked> {
    let mut all = Vec::new();
    type Meaning = fn(&str, Context<'_>) -> principal::Identifier;
    let fields: [(&[String], &[String], bool, Meaning); 7] = [
        (&source.principals, &source.not_principals, false, identity),
        (&source.request_principals, &source.not_request_principals, true, token),
        (&source.namespaces, &source.not_namespaces, false, namespace),
        (&source.service_accounts, &source.not_service_accounts, false, service_account),
        (&source.ip_blocks, &source.not_ip_blocks, false, source_ip),
        (&source.remote_ip_blocks, &source.not_remote_ip_blocks, false, remote_ip),
        (&source.trust_domains, &source.not_trust_domains, false, trust_domain),
    ];
    for (values, not_values, request, meaning) in fields {
        add_principals(&mut all, &Lists { values, not_values, request }, context, meaning)?;
    }
    Ok(all)
}

/// A port of the workload.
pub(super) fn port(value: &str) -> Vec<permission::Rule> {
    let rule = value
        .parse::<u16>()
        .map_or_else(|_| nothing_done(), |port| permission::Rule::DestinationPort(port.into()));
    vec![rule]
}

/// What an operation asks of the request: all of it.
///
/// # Errors
/// When it asks for what a raw connection does not have, and leaving that out would allow more.
pub(super) fn operation(
    operation: &Operation,
    context: Context<'_>,
) -> Result<Vec<permission::Rule>, Unchecked> {
    let hosts =
        |value: &str| authorities(value).into_iter().map(permission::Rule::Header).collect();
    let methods = |value: &str| vec![permission::Rule::Header(header(":method", value))];
    let paths = |value: &str| vec![permission::Rule::UrlPath(path(value))];
    let mut all = Vec::new();
    let lists = |values, not_values, request| Lists { values, not_values, request };
    let of = operation;
    add_permissions(&mut all, &lists(&of.hosts, &of.not_hosts, true), context, hosts)?;
    add_permissions(&mut all, &lists(&of.methods, &of.not_methods, true), context, methods)?;
    add_permissions(&mut all, &lists(&of.paths, &of.not_paths, true), context, paths)?;
    add_permissions(&mut all, &lists(&of.ports, &of.not_ports, false), context, port)?;
    Ok(all)
}
