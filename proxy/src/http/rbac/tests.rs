use super::*;
use crate::{
    config::matcher::{HeaderMatcher, HeaderValueMatch, StringMatcher},
    http::head::tests::head,
};

fn exact(value: &str) -> StringMatcher {
    StringMatcher::Exact { value: value.into(), ignore_case: false }
}

fn prefix(value: &str) -> StringMatcher {
    StringMatcher::Prefix { value: value.into(), ignore_case: false }
}

fn method(name: &str) -> Permission {
    Permission::Header(HeaderMatcher {
        name: ":method".into(),
        value: HeaderValueMatch::String(exact(name)),
        invert: false,
        treat_missing_as_empty: false,
    })
}

fn policy(permission: Permission, principal: Principal) -> Policy {
    Policy { permissions: vec![permission], principals: vec![principal] }
}

fn rbac(action: RbacAction, policies: Vec<(&str, Policy)>) -> Rbac {
    let policies = policies.into_iter().map(|(name, policy)| (name.into(), policy)).collect();
    Rbac { rules: Some(RbacRules { action, policies }), ..Rbac::default() }
}

struct Peer {
    names: Option<Vec<String>>,
    remote: &'static str,
}

fn order_service() -> Peer {
    Peer {
        names: Some(vec!["spiffe://cluster.local/ns/default/sa/order-service".into()]),
        remote: "10.0.0.1",
    }
}

fn nobody() -> Peer {
    Peer { names: None, remote: "10.0.0.1" }
}

fn facts<'a>(head: Option<&'a Head>, peer: &'a Peer) -> Facts<'a> {
    Facts {
        head,
        destination: ("10.0.0.9".parse().unwrap(), 8080),
        direct_remote: peer.remote.parse().unwrap(),
        remote: "192.0.2.7".parse().unwrap(),
        peer_names: peer.names.as_deref(),
        server_name: "outbound_.80_._.payment",
    }
}

#[test]
fn only_the_order_service_may_post_payments() {
    let name = "ns[default]-policy[payment-service-policy]-rule[0]";
    let allow = rbac(
        RbacAction::Allow,
        vec![(
            name,
            policy(
                Permission::And(vec![
                    method("POST"),
                    Permission::Path(PathMatcher::String(prefix("/payments/"))),
                ]),
                Principal::Authenticated(Some(exact(
                    "spiffe://cluster.local/ns/default/sa/order-service",
                ))),
            ),
        )],
    );
    let user = Peer {
        names: Some(vec!["spiffe://cluster.local/ns/default/sa/user-service".into()]),
        remote: "10.0.0.1",
    };
    for (method, target, peer, expected) in [
        ("POST", "/payments/1", order_service(), Verdict::Allowed),
        ("POST", "/payments/1?x=/", order_service(), Verdict::Allowed),
        ("GET", "/payments/1", order_service(), Verdict::Denied(None)),
        ("POST", "/other?/payments/", order_service(), Verdict::Denied(None)),
        ("POST", "/payments/1", user, Verdict::Denied(None)),
        ("POST", "/payments/1", nobody(), Verdict::Denied(None)),
    ] {
        let head = head(method, "payment", target, &[]);
        assert_eq!(
            evaluate(&allow, &facts(Some(&head), &peer)),
            (expected, None),
            "{method} {target}"
        );
    }
}

#[test]
fn a_denial_names_its_policy() {
    let deny = rbac(
        RbacAction::Deny,
        vec![
            ("ns[a]-policy[b]-rule[0]", policy(method("DELETE"), Principal::Any)),
            ("ns[a]-policy[b]-rule[1]", policy(method("PUT"), Principal::Any)),
        ],
    );
    let peer = nobody();
    let put = head("PUT", "a", "/", &[]);
    let get = head("GET", "a", "/", &[]);
    assert_eq!(
        evaluate(&deny, &facts(Some(&put), &peer)).0,
        Verdict::Denied(Some("ns[a]-policy[b]-rule[1]"))
    );
    assert_eq!(evaluate(&deny, &facts(Some(&get), &peer)).0, Verdict::Allowed);
    assert_eq!(
        Verdict::details(Some("ns[a]-policy[b c]-rule[1]")),
        "rbac_access_denied_matched_policy[ns[a]-policy[b_c]-rule[1]]"
    );
    assert_eq!(Verdict::details(None), "rbac_access_denied_matched_policy[none]");
}

#[test]
fn no_rules_allow_and_no_policies_deny_when_allowing() {
    let peer = nobody();
    let get = head("GET", "a", "/", &[]);
    let verdict = |rbac: &Rbac| match evaluate(rbac, &facts(Some(&get), &peer)).0 {
        Verdict::Allowed => "allowed",
        Verdict::Denied(None) => "denied",
        Verdict::Denied(Some(_)) => "denied by name",
    };
    assert_eq!(verdict(&Rbac::default()), "allowed");
    assert_eq!(verdict(&rbac(RbacAction::Allow, vec![])), "denied");
    assert_eq!(verdict(&rbac(RbacAction::Deny, vec![])), "allowed");
    assert_eq!(verdict(&rbac(RbacAction::Log, vec![])), "allowed");
}

#[test]
fn shadow_rules_are_only_reported() {
    let mut filter =
        rbac(RbacAction::Allow, vec![("all", policy(Permission::Any, Principal::Any))]);
    filter.shadow = rbac(RbacAction::Allow, vec![]).rules;
    let peer = nobody();
    assert_eq!(
        evaluate(&filter, &facts(None, &peer)),
        (Verdict::Allowed, Some(Verdict::Denied(None)))
    );
}

#[test]
fn permissions_and_principals_look_at_the_connection() {
    let net = |text: &str| text.parse().unwrap();
    let peer = order_service();
    for (permission, expected) in [
        (Permission::DestinationPort(8080), true),
        (Permission::DestinationPort(80), false),
        (Permission::DestinationPortRange { start: 8080, end: 8081 }, true),
        (Permission::DestinationPortRange { start: 8000, end: 8080 }, false),
        (Permission::DestinationIp(net("10.0.0.0/24")), true),
        (Permission::DestinationIp(net("10.0.1.0/24")), false),
        (Permission::ServerName(prefix("outbound_.80_")), true),
        // A connection has no path and no headers.
        (Permission::Path(PathMatcher::String(prefix(""))), false),
        (method("GET"), false),
        (Permission::Not(Box::new(method("GET"))), true),
        (Permission::Or(vec![Permission::DestinationPort(1), Permission::Any]), true),
        (Permission::And(vec![]), true),
        (Permission::Or(vec![]), false),
    ] {
        assert_eq!(
            permission_matches(&permission, &facts(None, &peer)),
            expected,
            "{permission:?}"
        );
    }
    for (principal, expected) in [
        (Principal::DirectRemoteIp(net("10.0.0.1/32")), true),
        (Principal::RemoteIp(net("192.0.2.0/24")), true),
        (Principal::RemoteIp(net("10.0.0.1/32")), false),
        (Principal::Authenticated(None), true),
        (Principal::Authenticated(Some(prefix("spiffe://cluster.local/ns/default/"))), true),
        (Principal::Authenticated(Some(prefix("spiffe://other/"))), false),
        (Principal::Not(Box::new(Principal::Authenticated(None))), false),
    ] {
        assert_eq!(principal_matches(&principal, &facts(None, &peer)), expected, "{principal:?}");
    }
    // Plaintext has no identity: it matches no principal, and so every excluded one.
    let nobody = nobody();
    assert!(!principal_matches(&Principal::Authenticated(None), &facts(None, &nobody)));
    assert!(principal_matches(
        &Principal::Not(Box::new(Principal::Authenticated(Some(prefix("spiffe://"))))),
        &facts(None, &nobody)
    ));
}
