use std::collections::BTreeMap;

use prost::Message;
use weft_api::xds::envoy::{
    config::route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    r#type::matcher::v3::{PathMatcher, StringMatcher, path_matcher, string_matcher::MatchPattern},
};
use weft_core::resource::ResourceRef;

use super::*;

fn text(matcher: &StringMatcher) -> String {
    let text = match matcher.match_pattern.as_ref().unwrap() {
        MatchPattern::Exact(text) => format!("={text}"),
        MatchPattern::Prefix(text) => format!("^{text}"),
        MatchPattern::Suffix(text) => format!("${text}"),
        MatchPattern::SafeRegex(regex) => format!("~{}", regex.regex),
        other => panic!("{other:?}"),
    };
    if matcher.ignore_case { format!("{text} i") } else { text }
}

fn header(matcher: &HeaderMatcher) -> String {
    match matcher.header_match_specifier.as_ref().unwrap() {
        HeaderMatchSpecifier::StringMatch(string) => format!("{}{}", matcher.name, text(string)),
        HeaderMatchSpecifier::PresentMatch(true) => format!("{}?", matcher.name),
        other => panic!("{other:?}"),
    }
}

fn path(matcher: &PathMatcher) -> String {
    let path_matcher::Rule::Path(string) = matcher.rule.as_ref().unwrap();
    format!("path{}", text(string))
}

fn permission(permission: &Permission) -> String {
    use permission::Rule;
    let all =
        |rules: &[Permission], by| rules.iter().map(self::permission).collect::<Vec<_>>().join(by);
    match permission.rule.as_ref().unwrap() {
        Rule::Any(true) => "any".into(),
        Rule::AndRules(set) => format!("({})", all(&set.rules, " & ")),
        Rule::OrRules(set) => format!("({})", all(&set.rules, " | ")),
        Rule::NotRule(rule) => format!("!{}", self::permission(rule)),
        Rule::Header(matcher) => header(matcher),
        Rule::UrlPath(matcher) => path(matcher),
        Rule::DestinationPort(port) => format!("port={port}"),
        Rule::DestinationIp(range) => {
            format!("to={}/{}", range.address_prefix, range.prefix_len.as_ref().unwrap().value)
        }
        Rule::RequestedServerName(name) => format!("sni{}", text(name)),
        other => panic!("{other:?}"),
    }
}

fn principal(principal: &Principal) -> String {
    use principal::Identifier;
    let all = |ids: &[Principal], by| ids.iter().map(self::principal).collect::<Vec<_>>().join(by);
    match principal.identifier.as_ref().unwrap() {
        Identifier::Any(true) => "any".into(),
        Identifier::AndIds(set) => format!("({})", all(&set.ids, " & ")),
        Identifier::OrIds(set) => format!("({})", all(&set.ids, " | ")),
        Identifier::NotId(id) => format!("!{}", self::principal(id)),
        Identifier::Authenticated(id) => match &id.principal_name {
            Some(name) => format!("id{}", text(name)),
            None => "id?".into(),
        },
        Identifier::DirectRemoteIp(range) => {
            format!("from={}/{}", range.address_prefix, range.prefix_len.as_ref().unwrap().value)
        }
        Identifier::RemoteIp(range) => {
            format!("client={}/{}", range.address_prefix, range.prefix_len.as_ref().unwrap().value)
        }
        Identifier::Header(matcher) => header(matcher),
        other => panic!("{other:?}"),
    }
}

fn rules(rules: &Rbac) -> Vec<String> {
    let ordered: BTreeMap<_, _> = rules.policies.iter().collect();
    let list = ordered.into_iter().map(|(name, policy)| {
        let to: Vec<_> = policy.permissions.iter().map(permission).collect();
        let from: Vec<_> = policy.principals.iter().map(principal).collect();
        format!("{name}: {} by {}", to.join(" or "), from.join(" or "))
    });
    list.collect()
}

fn resource(name: &str, yaml: &str) -> Arc<Resource<AuthorizationPolicySpec>> {
    let document = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\nspec: {yaml}"
    );
    let mut parsed = weft_crds::parse_text(&document);
    let spec = match parsed.remove(0).unwrap() {
        weft_crds::Parsed::Ours(resource) => match *resource {
            weft_crds::AnyResource::AuthorizationPolicy(policy) => policy.spec,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    Arc::new(Resource {
        reference: ResourceRef {
            kind: "AuthorizationPolicy",
            namespace: "default".into(),
            name: name.into(),
        },
        created: 0,
        generation: 1,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        spec,
    })
}

fn http(auth: &WorkloadAuthorization, mesh: &MeshConfig) -> Vec<HttpRbac> {
    let decode = |filter: HttpFilter| match filter.config_type.unwrap() {
        HttpConfig::TypedConfig(any) => HttpRbac::decode(any.value.as_slice()).unwrap(),
        other => panic!("{other:?}"),
    };
    http_filters(auth, mesh).into_iter().map(decode).collect()
}

fn network(auth: &WorkloadAuthorization, mesh: &MeshConfig) -> Vec<NetworkRbac> {
    let decode = |filter: Filter| match filter.config_type.unwrap() {
        NetworkConfig::TypedConfig(any) => NetworkRbac::decode(any.value.as_slice()).unwrap(),
        other => panic!("{other:?}"),
    };
    network_filters(auth, mesh, "tcp.").into_iter().map(decode).collect()
}

fn allow(yaml: &str) -> WorkloadAuthorization {
    WorkloadAuthorization { allow: vec![resource("p", yaml)], ..WorkloadAuthorization::default() }
}

fn deny(yaml: &str) -> WorkloadAuthorization {
    WorkloadAuthorization { deny: vec![resource("p", yaml)], ..WorkloadAuthorization::default() }
}

#[test]
fn every_field_becomes_its_matcher() {
    let table = [
        ("{rules: [{}]}", "any by any"),
        (
            r#"{rules: [{from: [{source: {principals: ["cluster.local/ns/default/sa/order-service"]}}], to: [{operation: {methods: ["POST"], paths: ["/payments/*"]}}]}]}"#,
            "(:method=POST & path^/payments/) by id=spiffe://cluster.local/ns/default/sa/order-service",
        ),
        (
            r#"{rules: [{from: [{source: {principals: ["*"], notPrincipals: ["*/sa/bad", "td2/ns/x/*"]}}]}]}"#,
            "any by (id? & !(id$/sa/bad | id^spiffe://td2/ns/x/))",
        ),
        (
            r#"{rules: [{from: [{source: {namespaces: ["prod", "dev-*"]}}, {source: {notNamespaces: ["a"]}}]}]}"#,
            r"any by (id~spiffe://[^/]+/ns/prod/sa/.+ | id~spiffe://[^/]+/ns/dev\-.*/sa/.+) or !id~spiffe://[^/]+/ns/a/sa/.+",
        ),
        (
            r#"{rules: [{from: [{source: {serviceAccounts: ["web", "other/api"]}}]}]}"#,
            "any by (id~spiffe://[^/]+/ns/default/sa/web | id~spiffe://[^/]+/ns/other/sa/api)",
        ),
        (
            r#"{rules: [{from: [{source: {ipBlocks: ["10.0.0.0/8"], notIpBlocks: ["10.1.2.3"], remoteIpBlocks: ["fd00::/8"]}}]}]}"#,
            "any by (from=10.0.0.0/8 & !from=10.1.2.3/32 & client=fd00::/8)",
        ),
        (
            r#"{rules: [{to: [{operation: {hosts: ["a.b"], ports: ["80", "443"], notMethods: ["GET"]}}, {operation: {notPaths: ["*.html"]}}]}]}"#,
            r"((:authority=a.b i | :authority~(?i)a\.b:[0-9]+) & !:method=GET & (port=80 | port=443)) or !path$.html by any",
        ),
        (
            r#"{rules: [{to: [{operation: {hosts: ["*.x:8080", "y*", "*"]}}]}]}"#,
            "(:authority$.x:8080 i | :authority^y i | :authority?) by any",
        ),
        (
            r#"{rules: [{to: [{operation: {paths: ["/a/{*}/b", "/c/{**}", "*"]}}]}]}"#,
            "(path~/a/[^/]+/b | path~/c/.* | path~.+) by any",
        ),
        (
            r#"{rules: [{when: [{key: "request.headers[X-Team]", values: ["red*"], notValues: ["reddish"]}, {key: destination.port, notValues: ["22"]}, {key: connection.sni, values: ["*.example.com"]}]}]}"#,
            "(!port=22 & sni$.example.com) by (x-team^red & !x-team=reddish)",
        ),
        (
            r#"{rules: [{when: [{key: source.namespace, values: [a]}, {key: destination.ip, values: [10.0.0.1]}]}]}"#,
            "to=10.0.0.1/32 by id~spiffe://[^/]+/ns/a/sa/.+",
        ),
        (
            r#"{rules: [{when: [{key: "request.auth.claims[iss]", values: [a]}]}, {from: [{source: {notRequestPrincipals: ["*"]}}]}]}"#,
            "any by !any",
        ),
    ];
    for (yaml, expected) in table {
        let filters = http(&allow(yaml), &MeshConfig::default());
        let rules = rules(filters[0].rules.as_ref().unwrap());
        assert_eq!(rules[0], format!("ns[default]-policy[p]-rule[0]: {expected}"), "{yaml}");
    }
}

#[test]
fn a_principal_counts_in_every_trust_domain_of_the_mesh() {
    let mesh = MeshConfig {
        trust_domain: "new.td".into(),
        trust_domain_aliases: vec!["old.td".into()],
        ..MeshConfig::default()
    };
    for named in ["cluster.local", "new.td", "old.td"] {
        let yaml = format!(
            r#"{{rules: [{{from: [{{source: {{principals: ["{named}/ns/a/sa/b"]}}}}]}}]}}"#
        );
        assert_eq!(
            rules(http(&allow(&yaml), &mesh)[0].rules.as_ref().unwrap()),
            ["ns[default]-policy[p]-rule[0]: any by \
              (id=spiffe://new.td/ns/a/sa/b | id=spiffe://old.td/ns/a/sa/b)"]
        );
    }
}

#[test]
fn without_policies_there_is_no_filter_and_without_rules_nothing_is_allowed() {
    let mesh = MeshConfig::default();
    assert_eq!(http(&WorkloadAuthorization::default(), &mesh), []);
    let filters = http(&allow("{}"), &mesh);
    assert_eq!(filters.len(), 1);
    let rules = filters[0].rules.as_ref().unwrap();
    assert_eq!((rules.action(), rules.policies.len()), (Action::Allow, 0));
}

#[test]
fn denials_come_before_permissions_and_unanswerable_questions_are_denials() {
    let auth = WorkloadAuthorization {
        custom: vec![resource("c", "{action: CUSTOM, provider: {name: x}, rules: [{}]}")],
        audit: vec![resource("l", "{action: AUDIT, rules: [{}]}")],
        deny: vec![resource("d", "{action: DENY, rules: [{}]}")],
        allow: vec![resource("a", "{rules: [{}]}")],
    };
    let actions: Vec<_> = http(&auth, &MeshConfig::default())
        .iter()
        .map(|filter| {
            let rules = filter.rules.as_ref().unwrap();
            (rules.action(), rules.policies.keys().next().unwrap().clone())
        })
        .collect();
    assert_eq!(
        actions,
        [
            (Action::Deny, "ns[default]-policy[c]-rule[0]".into()),
            (Action::Deny, "ns[default]-policy[d]-rule[0]".into()),
            (Action::Allow, "ns[default]-policy[a]-rule[0]".into()),
        ]
    );
}

#[test]
fn on_raw_connections_what_cannot_be_seen_never_allows_more() {
    let mesh = MeshConfig::default();
    let table = [
        (
            r#"{rules: [{to: [{operation: {ports: ["80"]}}]}]}"#,
            vec!["port=80 by any"],
            "port=80 by any",
        ),
        (
            r#"{rules: [{to: [{operation: {ports: ["80"], methods: ["GET"]}}]}]}"#,
            vec![],
            "port=80 by any",
        ),
        (r#"{rules: [{to: [{operation: {paths: ["/x"]}}]}]}"#, vec![], "any by any"),
        (r#"{rules: [{from: [{source: {requestPrincipals: ["*"]}}]}]}"#, vec![], "any by any"),
        (
            r#"{rules: [{when: [{key: "request.headers[a]", values: ["b"]}]}]}"#,
            vec![],
            "any by any",
        ),
        (
            r#"{rules: [{from: [{source: {ipBlocks: ["10.0.0.1"]}}]}]}"#,
            vec!["any by from=10.0.0.1/32"],
            "any by from=10.0.0.1/32",
        ),
    ];
    for (yaml, allowed, denied) in table {
        let name = |rule: &str| format!("ns[default]-policy[p]-rule[0]: {rule}");
        let allow = network(&allow(yaml), &mesh);
        let expected: Vec<_> = allowed.into_iter().map(name).collect();
        assert_eq!(rules(allow[0].rules.as_ref().unwrap()), expected, "allow {yaml}");
        let deny = network(&deny(yaml), &mesh);
        assert_eq!(rules(deny[0].rules.as_ref().unwrap()), [name(denied)], "deny {yaml}");
        assert_eq!(deny[0].stat_prefix, "tcp.");
    }
}

#[test]
fn a_dry_run_is_only_tried() {
    let mut dry = resource("p", "{rules: [{}]}");
    Arc::make_mut(&mut dry).annotations.insert(DRY_RUN.into(), "true".into());
    let auth = WorkloadAuthorization { allow: vec![dry], ..WorkloadAuthorization::default() };
    let filters = http(&auth, &MeshConfig::default());
    assert_eq!(filters[0].rules, None);
    assert_eq!(
        rules(filters[0].shadow_rules.as_ref().unwrap()),
        ["ns[default]-policy[p]-rule[0]: any by any"]
    );
    assert_eq!(filters[0].shadow_rules_stat_prefix, "istio_dry_run_allow_");
}

#[test]
fn equal_policies_have_equal_bytes() {
    let auth = allow("{rules: [{}, {to: [{operation: {ports: ['1']}}]}, {}, {}, {}]}");
    let mesh = MeshConfig::default();
    let first = http_filters(&auth, &mesh);
    for _ in 0..20 {
        assert_eq!(http_filters(&auth, &mesh), first);
    }
}
