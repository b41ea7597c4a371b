//! Filters: authorization and rate limits.

use super::*;

fn permission_of(rule: permission::Rule) -> Permission {
    Permission { rule: Some(rule) }
}

pub fn rbac_listener(
    permission: permission::Rule,
    identifier: principal::Identifier,
) -> PbListener {
    let policy = Policy {
        permissions: vec![permission_of(permission)],
        principals: vec![Principal { identifier: Some(identifier) }],
        ..Policy::default()
    };
    let rules = PbRules {
        action: 1,
        policies: [("ns[a]-policy[b]-rule[0]".to_owned(), policy)].into(),
        ..PbRules::default()
    };
    let rbac = PbRbac { rules: Some(rules), ..PbRbac::default() };
    manager_listener(|manager| {
        manager.http_filters.insert(0, filter_of("envoy.filters.http.rbac", &rbac));
    })
}

#[test]
fn rbac_rules_become_trees_and_lose_nothing() {
    let header = |name: &str| HeaderMatcher {
        name: name.into(),
        header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::PresentMatch(true)),
        ..HeaderMatcher::default()
    };
    let not = permission::Rule::NotRule(Box::new(permission_of(permission::Rule::Header(header(
        "X-Secret",
    )))));
    let name = PbString {
        match_pattern: Some(string_matcher::MatchPattern::Exact("spiffe://td/ns/a/sa/b".into())),
        ..PbString::default()
    };
    let by_state = principal::Identifier::FilterState(
        weft_api::xds::envoy::r#type::matcher::v3::FilterStateMatcher {
            key: "io.istio.peer_principal".into(),
            matcher: Some(
                weft_api::xds::envoy::r#type::matcher::v3::filter_state_matcher::Matcher::StringMatch(name),
            ),
        },
    );
    let decoded = listener(&rbac_listener(not, by_state)).unwrap();
    let Filter::Rbac(rbac) = &manager(&decoded).filters[0] else { panic!("RBAC") };
    let rules = rbac.rules.as_ref().unwrap();
    assert_eq!(rules.action, RbacAction::Deny);
    let (name, policy) = &rules.policies[0];
    assert_eq!(&**name, "ns[a]-policy[b]-rule[0]");
    assert_eq!(
        format!("{policy:?}"),
        "Policy { permissions: [Not(Header(HeaderMatcher { name: \"x-secret\", value: Present(true), \
         invert: false, treat_missing_as_empty: false }))], principals: [Authenticated(Some(Exact { \
         value: \"spiffe://td/ns/a/sa/b\", ignore_case: false }))] }"
    );
    let any_permission = permission::Rule::Any(true);
    let path = "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.rules.\
                policies[\"ns[a]-policy[b]-rule[0]\"]";
    for (listener_, expected) in [
        (
            rbac_listener(permission::Rule::Any(false), principal::Identifier::Any(true)),
            ".permissions[0].any: false: not supported",
        ),
        (
            rbac_listener(
                any_permission.clone(),
                principal::Identifier::OrIds(principal::Set::default()),
            ),
            ".principals[0].or_ids.ids that are empty: not supported",
        ),
        (
            rbac_listener(
                permission::Rule::DestinationPort(70_000),
                principal::Identifier::Any(true),
            ),
            ".permissions[0].destination_port: \"70000\" is not a port",
        ),
    ] {
        assert_eq!(listener(&listener_).unwrap_err(), format!("{path}{expected}"));
    }
}

fn struct_value(fields: &[(&str, Value)]) -> Value {
    let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Value { kind: Some(PbKind::StructValue(Struct { fields })) }
}

fn number_value(number: f64) -> Value {
    Value { kind: Some(PbKind::NumberValue(number)) }
}

/// A local rate limit as an EnvoyFilter writes it.
pub fn typed_struct(more: &[(&str, Value)]) -> HttpFilter {
    let share = struct_value(&[(
        "default_value",
        struct_value(&[("numerator", number_value(100.0)), ("denominator", text_value("HUNDRED"))]),
    )]);
    let mut fields = vec![
        ("stat_prefix", text_value("http_local_rate_limiter")),
        (
            "token_bucket",
            struct_value(&[
                ("max_tokens", number_value(10.0)),
                ("tokens_per_fill", number_value(10.0)),
                ("fill_interval", text_value("60s")),
            ]),
        ),
        ("filter_enabled", share.clone()),
        ("filter_enforced", share),
    ];
    fields.extend_from_slice(more);
    let Some(PbKind::StructValue(value)) = struct_value(&fields).kind else { panic!("a struct") };
    let typed = rate_limit_struct::TypedStruct {
        type_url:
            "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
                .into(),
        value: Some(value),
    };
    let config = Any {
        type_url: "type.googleapis.com/udpa.type.v1.TypedStruct".into(),
        value: typed.encode_to_vec(),
    };
    HttpFilter {
        name: "envoy.filters.http.local_ratelimit".into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}

#[test]
fn a_local_rate_limit_may_come_as_a_typed_struct_and_keeps_its_bucket() {
    let pb = manager_listener(|manager| manager.http_filters.insert(0, typed_struct(&[])));
    let decoder = decoder();
    let bucket_of = |listener: &Listener| {
        let Filter::LocalRateLimit(limit) = &manager(listener).filters[0] else { panic!("limit") };
        assert_eq!(
            (limit.status, limit.enabled, limit.enforced),
            (429, Fraction::ALL, Fraction::ALL)
        );
        limit.bucket.clone()
    };
    let first = decoder.listener("l", &any(&pb)).unwrap();
    let bucket = bucket_of(&first);
    assert_eq!((bucket.max_tokens, bucket.tokens_per_fill), (10, 10));
    assert_eq!(bucket.fill_interval, Duration::from_secs(60));
    let second = decoder.listener("l", &any(&pb)).unwrap();
    assert!(Arc::ptr_eq(&bucket, &bucket_of(&second)), "an update leaves the bucket");
    let other = decoder.listener("other", &any(&pb)).unwrap();
    assert!(!Arc::ptr_eq(&bucket, &bucket_of(&other)), "another listener has its own");
    let unknown = typed_struct(&[("descriptors", number_value(1.0))]);
    let pb = manager_listener(|manager| manager.http_filters.insert(0, unknown));
    assert_eq!(
        listener(&pb).unwrap_err(),
        "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config.value.descriptors: \
         not supported"
    );
}
