//! RBAC policies as trees (`envoy.config.rbac.v3`), and the paths that they may name.

use ipnet::IpNet;

use super::matcher::{HeaderMatcher, StringMatcher};

/// What a matching policy means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RbacAction {
    /// A request must match some policy.
    Allow,
    /// A request must match none.
    Deny,
    /// Matches are only counted.
    Log,
}

/// A filter's rules: those that count and those that are only tried (`shadow_rules`).
#[derive(Clone, Debug, Default)]
pub struct Rbac {
    /// For statistics.
    pub stat_prefix: Box<str>,
    /// Enforced; `None`: everything passes.
    pub rules: Option<RbacRules>,
    /// Only counted and logged.
    pub shadow: Option<RbacRules>,
}

/// A set of policies with one action.
#[derive(Clone, Debug)]
pub struct RbacRules {
    /// What a match means.
    pub action: RbacAction,
    /// Policies by name, `ns[NS]-policy[NAME]-rule[N]`, ordered by name as Envoy does.
    pub policies: Vec<(Box<str>, Policy)>,
}

/// A policy: some permission and some principal must match.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What is done.
    pub permissions: Vec<Permission>,
    /// Who does it.
    pub principals: Vec<Principal>,
}

/// What is done.
#[derive(Clone, Debug)]
pub enum Permission {
    /// Anything.
    Any,
    /// All of these.
    And(Vec<Permission>),
    /// One of these.
    Or(Vec<Permission>),
    /// Not this.
    Not(Box<Permission>),
    /// A header, also `:method` and `:authority`.
    Header(HeaderMatcher),
    /// The path without query and fragment.
    Path(PathMatcher),
    /// The destination address.
    DestinationIp(IpNet),
    /// The destination port.
    DestinationPort(u16),
    /// The destination port in `start..end`.
    DestinationPortRange { start: u32, end: u32 },
    /// SNI of the connection.
    ServerName(StringMatcher),
}

/// A path, or a template with `{*}` (one segment) and `{**}` (any).
#[derive(Clone, Debug)]
pub enum PathMatcher {
    /// A string matcher.
    String(StringMatcher),
    /// A template, kept as an anchored regular expression.
    Template(regex::Regex),
}

/// Who does it.
#[derive(Clone, Debug)]
pub enum Principal {
    /// Anyone.
    Any,
    /// All of these.
    And(Vec<Principal>),
    /// One of these.
    Or(Vec<Principal>),
    /// Not this.
    Not(Box<Principal>),
    /// The URI SAN of the client's certificate matches; `None`: any verified certificate.
    Authenticated(Option<StringMatcher>),
    /// The TCP peer's address (`direct_remote_ip`, `source_ip`).
    DirectRemoteIp(IpNet),
    /// The client's address after `x-forwarded-for` (`remote_ip`).
    RemoteIp(IpNet),
    /// A header.
    Header(HeaderMatcher),
    /// The path without query and fragment.
    Path(PathMatcher),
}
