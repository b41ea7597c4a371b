//! PeerAuthentications and AuthorizationPolicies.

use serde_json::json;

use super::*;

#[test]
fn peer_authentications_are_checked() {
    assert_errors(
        "PeerAuthentication",
        &[
            ("{mtls: {mode: STRICT}}", &[]),
            ("{}", &[]),
            ("{selector: {matchLabels: {app: a}}, portLevelMtls: {8080: {mode: DISABLE}}}", &[]),
            (
                "{portLevelMtls: {8080: {mode: DISABLE}}}",
                &["spec.portLevelMtls: needs a selector with matchLabels"],
            ),
            (
                "{selector: {matchLabels: {app: 'a*'}}}",
                &["spec.selector.matchLabels[app]: \"a*\" is not the value of a label"],
            ),
        ],
    );
}

#[test]
fn authorization_policies_are_checked() {
    assert_errors(
        "AuthorizationPolicy",
        &[
            ("{}", &[]),
            ("{rules: [{}]}", &[]),
            ("{action: DENY}", &["spec.rules: is required: DENY without rules means nothing"]),
            (
                "{action: CUSTOM, rules: [{}]}",
                &["spec.provider.name: is required for action CUSTOM"],
            ),
            (
                "{action: CUSTOM, provider: {name: p}, rules: [{from: [{source: {namespaces: [a], ipBlocks: [10.0.0.1]}}], when: [{key: source.principal, values: [a]}]}]}",
                &[
                    "spec.rules[0].from[0].source.namespaces: cannot be used with action CUSTOM",
                    "spec.rules[0].when[0].key: source.principal cannot be used with action CUSTOM",
                ],
            ),
            ("{provider: {name: p}}", &["spec.provider: can be set with action CUSTOM only"]),
            (
                "{rules: [{from: [{}], to: [{operation: {}}]}]}",
                &[
                    "spec.rules[0].from[0].source: must not be empty",
                    "spec.rules[0].to[0].operation: must not be empty",
                ],
            ),
            (
                "{rules: [{from: [{source: {principals: ['', 'a*b', '*', 'a/*', '*/b'], ipBlocks: [x]}}]}]}",
                &[
                    "spec.rules[0].from[0].source.principals[0]: must not be empty",
                    "spec.rules[0].from[0].source.principals[1]: \"a*b\": * can stand at the beginning or at the end, once",
                    "spec.rules[0].from[0].source.ipBlocks[0]: \"x\" is neither an IP address nor a range such as 10.0.0.0/8",
                ],
            ),
            (
                "{rules: [{from: [{source: {serviceAccounts: [a, b/c, 'd/*'], namespaces: [x]}}]}]}",
                &[
                    "spec.rules[0].from[0].source.serviceAccounts[2]: \"d/*\" is not a service account: name or namespace/name, no wildcards",
                    "spec.rules[0].from[0].source.serviceAccounts: cannot be used together with principals or namespaces",
                ],
            ),
            (
                "{rules: [{to: [{operation: {ports: ['80', '0', http], paths: [/a/*, '/a/{*}/b/{**}', '/{**}/{*}', '/a{*}']}}]}]}",
                &[
                    "spec.rules[0].to[0].operation.ports[1]: \"0\" is not a port",
                    "spec.rules[0].to[0].operation.ports[2]: \"http\" is not a port",
                    "spec.rules[0].to[0].operation.paths[2]: \"/{**}/{*}\" is not a path template: nothing but text can follow {**}",
                    "spec.rules[0].to[0].operation.paths[3]: \"/a{*}\" is not a path template: a segment is text, {*} or {**}",
                ],
            ),
            (
                "{rules: [{when: [{key: 'request.headers[x-a]', values: ['a*b*']}, {key: source.ip, notValues: [a]}, {key: destination.port, values: ['x']}]}]}",
                &[
                    "spec.rules[0].when[1].notValues[0]: \"a\" is neither an IP address nor a range such as 10.0.0.0/8",
                    "spec.rules[0].when[2].values[0]: \"x\" is not a port",
                ],
            ),
            (
                "{rules: [{when: [{key: 'request.headers[]', values: [a]}, {key: source.namespace}]}]}",
                &[
                    "spec.rules[0].when[0].key: \"request.headers[]\" needs a name in brackets",
                    "spec.rules[0].when[1]: must have values or notValues",
                ],
            ),
        ],
    );
    let found = validate(&resource(
        "AuthorizationPolicy",
        "{rules: [{when: [{key: source.nam, values: [a]}]}]}",
    ));
    assert!(
        found.errors[0].reason.starts_with("\"source.nam\" is not a property; known are source.ip"),
        "{found:?}"
    );
}

#[test]
fn values_that_no_request_has_are_warned_of() {
    assert_warnings(
        "AuthorizationPolicy",
        &[
            ("{rules: [{from: [{source: {principals: [cluster.local/ns/a/sa/b, '*']}}]}]}", &[]),
            (
                "{rules: [{to: [{operation: {methods: [GET, 'P*', '*'], paths: [/a, '*.js', '*']}}]}]}",
                &[],
            ),
            (
                "{rules: [{from: [{source: {notPrincipals: ['spiffe://cluster.local/ns/a/sa/b']}}]}]}",
                &[
                    "spec.rules[0].from[0].source.notPrincipals[0]: \"spiffe://cluster.local/ns/a/sa/b\" never matches: a principal is written without spiffe://",
                ],
            ),
            (
                "{rules: [{to: [{operation: {methods: [get], notPaths: [orders/*, '/a?b=c']}}]}]}",
                &[
                    "spec.rules[0].to[0].operation.methods[0]: \"get\" never matches: methods are compared with their case, such as GET",
                    "spec.rules[0].to[0].operation.notPaths[0]: \"orders/*\" never matches: a path begins with /",
                    "spec.rules[0].to[0].operation.notPaths[1]: \"/a?b=c\" never matches: paths are compared without their query",
                ],
            ),
        ],
    );
}

#[test]
fn dry_run_is_true_or_false_and_for_allow_and_deny() {
    let policy = |action: &str, value: &str| {
        parse(
            &json!({
                "apiVersion": "security.istio.io/v1",
                "kind": "AuthorizationPolicy",
                "metadata": { "name": "a", "annotations": { "istio.io/dry-run": value } },
                "spec": { "action": action, "rules": [{}] },
            })
            .to_string(),
        )
    };
    for (action, value, errors) in [
        ("ALLOW", "true", vec![]),
        ("DENY", "false", vec![]),
        (
            "DENY",
            "yes",
            vec![
                "metadata.annotations[istio.io/dry-run]: \"yes\" is neither \"true\" nor \"false\"",
            ],
        ),
        (
            "AUDIT",
            "true",
            vec!["metadata.annotations[istio.io/dry-run]: is not supported for action AUDIT"],
        ),
    ] {
        assert_eq!(lines(&validate(&policy(action, value)).errors), errors, "{action} {value}");
    }
}
