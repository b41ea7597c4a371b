//! The conditions of a rule (`when`): each is of the client or of the destination.

use weft_api::xds::envoy::config::rbac::v3::{permission, principal};
use weft_crds::security::AuthorizationCondition;

use super::{
    Context, Unchecked,
    pattern::{cidr, header, nobody, nothing_done, string},
    source::{self, Lists, add_permissions, add_principals},
};

/// What conditions ask of the two sides.
#[derive(Default)]
pub(super) struct Conditions {
    /// Of the destination.
    pub permissions: Vec<permission::Rule>,
    /// Of the client and its request.
    pub principals: Vec<principal::Identifier>,
}

/// All conditions of a rule.
///
/// # Errors
/// When one asks for what a raw connection does not have, and leaving it out would allow more.
pub(super) fn conditions(
    list: &[AuthorizationCondition],
    context: Context<'_>,
) -> Result<Conditions, Unchecked> {
    let mut all = Conditions::default();
    for condition in list {
        add(&mut all, condition, context)?;
    }
    Ok(all)
}

fn add(
    all: &mut Conditions,
    condition: &AuthorizationCondition,
    context: Context<'_>,
) -> Result<(), Unchecked> {
    let key = condition.key.as_str();
    let lists =
        |request| Lists { values: &condition.values, not_values: &condition.not_values, request };
    let (from, to) = (&mut all.principals, &mut all.permissions);
    match key {
        "source.ip" => add_principals(from, &lists(false), context, source::source_ip),
        "remote.ip" => add_principals(from, &lists(false), context, source::remote_ip),
        "source.namespace" => add_principals(from, &lists(false), context, source::namespace),
        "source.serviceAccount" => {
            add_principals(from, &lists(false), context, source::service_account)
        }
        "source.trustDomain" => add_principals(from, &lists(false), context, source::trust_domain),
        "source.principal" => add_principals(from, &lists(false), context, source::identity),
        "destination.ip" => add_permissions(to, &lists(false), context, |block| {
            vec![cidr(block).map_or_else(nothing_done, permission::Rule::DestinationIp)]
        }),
        "destination.port" => add_permissions(to, &lists(false), context, source::port),
        "connection.sni" => add_permissions(to, &lists(false), context, |name| {
            vec![permission::Rule::RequestedServerName(string(name, ""))]
        }),
        _ => add_request_condition(all, key, &lists(true), context),
    }
}

fn add_request_condition(
    all: &mut Conditions,
    key: &str,
    lists: &Lists<'_>,
    context: Context<'_>,
) -> Result<(), Unchecked> {
    let name = key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']'));
    if let Some(name) = name {
        return add_principals(&mut all.principals, lists, context, |value, _| {
            principal::Identifier::Header(header(name, value))
        });
    }
    if key.starts_with("request.auth.") {
        return add_principals(&mut all.principals, lists, context, source::token);
    }
    // A property that cannot be looked at: an ALLOW rule does not match, a DENY rule matches whatever it is.
    if !context.deny {
        all.principals.push(nobody());
    }
    Ok(())
}
