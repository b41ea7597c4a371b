//! Delegation: a route of one VirtualService that leaves its details to another (`istio-behaviours` 2.2, item 23).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_crds::{
    StringMatch,
    networking::{Delegate, HttpMatchRequest, HttpRoute, VirtualServiceSpec},
};

use crate::resource::{Resource, ResourceRef};

/// The delegates that a qualified spec names.
pub fn delegates(spec: &VirtualServiceSpec) -> impl Iterator<Item = &Delegate> {
    spec.http.iter().filter_map(|route| route.delegate.as_ref())
}

/// The root with the routes of its delegates in place, and the delegates that are missing, whose routes are left out.
/// `find` answers a delegate by namespace and name when it exists and the root's namespace may use it.
pub fn expand(
    root: &Arc<Resource<VirtualServiceSpec>>,
    find: impl Fn(&str, &str) -> Option<Arc<Resource<VirtualServiceSpec>>>,
) -> (Arc<Resource<VirtualServiceSpec>>, BTreeSet<ResourceRef>) {
    let mut missing = BTreeSet::new();
    if delegates(&root.spec).next().is_none() {
        return (root.clone(), missing);
    }
    let mut routes = Vec::new();
    for route in &root.spec.http {
        let Some(delegate) = &route.delegate else {
            routes.push(route.clone());
            continue;
        };
        // Only one level: what is itself a root is no delegate.
        let found = find(&delegate.namespace, &delegate.name)
            .filter(|found| found.spec.hosts.is_empty() && delegates(&found.spec).next().is_none());
        match found {
            Some(found) => {
                routes.extend(found.spec.http.iter().filter_map(|sub| merge_route(route, sub)));
            }
            None => {
                missing.insert(ResourceRef {
                    kind: root.reference.kind,
                    namespace: delegate.namespace.as_str().into(),
                    name: delegate.name.as_str().into(),
                });
            }
        }
    }
    let mut expanded = Resource::clone(root);
    expanded.spec.http = routes;
    (Arc::new(expanded), missing)
}

/// A delegate's route under the root's conditions; `None` when no request can meet both.
fn merge_route(root: &HttpRoute, delegate: &HttpRoute) -> Option<HttpRoute> {
    let mut merged = delegate.clone();
    merged.matches = merge_matches(&root.matches, &delegate.matches)?;
    merged.name = join_names(&root.name, &delegate.name);
    merged.rewrite = merged.rewrite.or_else(|| root.rewrite.clone());
    merged.direct_response = merged.direct_response.or_else(|| root.direct_response.clone());
    merged.timeout = merged.timeout.or(root.timeout);
    merged.retries = merged.retries.or_else(|| root.retries.clone());
    merged.fault = merged.fault.or_else(|| root.fault.clone());
    merged.mirror = merged.mirror.or_else(|| root.mirror.clone());
    merged.mirror_percent = merged.mirror_percent.or(root.mirror_percent);
    merged.mirror_percentage = merged.mirror_percentage.or(root.mirror_percentage);
    merged.cors_policy = merged.cors_policy.or_else(|| root.cors_policy.clone());
    merged.headers = merged.headers.or_else(|| root.headers.clone());
    if merged.mirrors.is_empty() {
        merged.mirrors.clone_from(&root.mirrors);
    }
    Some(merged)
}

/// The cross product of the conditions; each of the delegate's must be narrower than some of the root's.
fn merge_matches(
    root: &[HttpMatchRequest],
    delegate: &[HttpMatchRequest],
) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() || delegate.is_empty() {
        return Some(if root.is_empty() { delegate } else { root }.to_vec());
    }
    let mut merged = Vec::new();
    for narrow in delegate {
        let before = merged.len();
        merged.extend(
            root.iter()
                .filter(|wide| !conflict(wide, narrow))
                .map(|wide| merge_match(wide, narrow)),
        );
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn merge_match(root: &HttpMatchRequest, delegate: &HttpMatchRequest) -> HttpMatchRequest {
    let mut merged = delegate.clone();
    merged.name = join_names(&root.name, &delegate.name);
    merged.uri = merged.uri.or_else(|| root.uri.clone());
    merged.scheme = merged.scheme.or_else(|| root.scheme.clone());
    merged.method = merged.method.or_else(|| root.method.clone());
    merged.authority = merged.authority.or_else(|| root.authority.clone());
    merged.port = merged.port.or(root.port);
    union(&mut merged.headers, &root.headers);
    union(&mut merged.without_headers, &root.without_headers);
    union(&mut merged.query_params, &root.query_params);
    union(&mut merged.source_labels, &root.source_labels);
    for (own, root) in [
        (&mut merged.source_namespace, &root.source_namespace),
        (&mut merged.stat_prefix, &root.stat_prefix),
    ] {
        if own.is_empty() {
            own.clone_from(root);
        }
    }
    if merged.gateways.is_empty() {
        merged.gateways.clone_from(&root.gateways);
    }
    merged
}

fn union<V: Clone>(own: &mut BTreeMap<String, V>, root: &BTreeMap<String, V>) {
    for (key, value) in root {
        own.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn join_names(root: &str, delegate: &str) -> String {
    match (root.is_empty(), delegate.is_empty()) {
        (false, false) => format!("{root}-{delegate}"),
        (true, _) => delegate.to_owned(),
        (_, true) => root.to_owned(),
    }
}

/// Whether the delegate's condition is not narrower than the root's.
fn conflict(root: &HttpMatchRequest, delegate: &HttpMatchRequest) -> bool {
    let texts = [
        (&root.uri, &delegate.uri),
        (&root.scheme, &delegate.scheme),
        (&root.method, &delegate.method),
        (&root.authority, &delegate.authority),
    ];
    let maps = [
        (&root.headers, &delegate.headers),
        (&root.without_headers, &delegate.without_headers),
        (&root.query_params, &delegate.query_params),
    ];
    let differ = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && a != b;
    texts.iter().any(|(root, delegate)| text_conflict(root.as_ref(), delegate.as_ref()))
        || maps.iter().any(|(root, delegate)| {
            delegate.iter().any(|(key, value)| text_conflict(root.get(key), Some(value)))
        })
        || root.ignore_uri_case != delegate.ignore_uri_case
        || root.port.zip(delegate.port).is_some_and(|(root, delegate)| root != delegate)
        || differ(&root.source_namespace, &delegate.source_namespace)
        || root
            .source_labels
            .iter()
            .any(|(key, value)| delegate.source_labels.get(key).is_some_and(|own| own != value))
        || (!root.gateways.is_empty()
            && delegate.gateways.iter().any(|gateway| !root.gateways.contains(gateway)))
}

fn text_conflict(root: Option<&StringMatch>, delegate: Option<&StringMatch>) -> bool {
    use StringMatch::{Exact, Prefix, Regex, Unset};
    match (root.unwrap_or(&Unset), delegate.unwrap_or(&Unset)) {
        (Unset, _) | (_, Unset) => false,
        (Regex(_), _) | (_, Regex(_)) | (Exact(_), Prefix(_)) => true,
        (Exact(root), Exact(delegate)) => root != delegate,
        (Prefix(root), Exact(delegate) | Prefix(delegate)) => !delegate.starts_with(root),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(name: &str, spec: serde_json::Value) -> Arc<Resource<VirtualServiceSpec>> {
        Arc::new(Resource {
            reference: ResourceRef {
                kind: "VirtualService",
                namespace: "ns".into(),
                name: name.into(),
            },
            created: 0,
            generation: 1,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            spec: serde_json::from_value(spec).unwrap(),
        })
    }

    fn expanded(root: &serde_json::Value, delegate: &serde_json::Value) -> serde_json::Value {
        let root = resource(
            "root",
            json!({"hosts": ["a.com"], "http": [root, {"name": "last", "route": [{"destination": {"host": "b"}}]}]}),
        );
        let delegate = resource("d", json!({"http": delegate}));
        let (expanded, missing) =
            expand(&root, |ns, name| ((ns, name) == ("ns", "d")).then(|| delegate.clone()));
        assert_eq!(missing, BTreeSet::new());
        let mut routes = serde_json::to_value(&expanded.spec.http).unwrap();
        let last = routes.as_array_mut().unwrap().pop().unwrap();
        assert_eq!(last["name"], "last", "routes of the root's own stay where they are");
        routes
    }

    #[test]
    fn a_delegates_routes_take_the_roots_place() {
        let got = expanded(
            &json!({
                "name": "r", "match": [{"uri": {"prefix": "/a"}, "headers": {"x": {"exact": "1"}}}],
                "delegate": {"name": "d", "namespace": "ns"}, "timeout": "3s",
            }),
            &json!([
                {"name": "1", "match": [{"uri": {"prefix": "/a/b"}}], "timeout": "1s"},
                {"match": [{"uri": {"exact": "/other"}}]},
                {"name": "3"},
            ]),
        );
        assert_eq!(
            got,
            json!([
                {"name": "r-1", "match": [{"uri": {"prefix": "/a/b"}, "headers": {"x": {"exact": "1"}}}], "timeout": "1s"},
                {"name": "r-3", "match": [{"uri": {"prefix": "/a"}, "headers": {"x": {"exact": "1"}}}], "timeout": "3s"},
            ])
        );
    }

    #[test]
    fn conditions_conflict_unless_the_delegate_narrows_the_root() {
        let cases = [
            (json!({}), json!({"uri": {"exact": "/a"}}), false),
            (json!({"uri": {"prefix": "/a"}}), json!({"uri": {"prefix": "/ab"}}), false),
            (json!({"uri": {"prefix": "/ab"}}), json!({"uri": {"prefix": "/a"}}), true),
            (json!({"uri": {"exact": "/a"}}), json!({"uri": {"prefix": "/a"}}), true),
            (json!({"uri": {"exact": "/a"}}), json!({"uri": {"exact": "/a"}}), false),
            (json!({"uri": {"regex": "/a"}}), json!({"uri": {"exact": "/a"}}), true),
            (json!({"uri": {"prefix": "/a"}}), json!({"uri": {"regex": "/a"}}), true),
            (
                json!({"headers": {"a": {"exact": "1"}}}),
                json!({"headers": {"b": {"exact": "1"}}}),
                false,
            ),
            (
                json!({"headers": {"a": {"exact": "1"}}}),
                json!({"headers": {"a": {"exact": "2"}}}),
                true,
            ),
            (json!({"ignoreUriCase": true}), json!({}), true),
            (json!({"port": 80}), json!({"port": 81}), true),
            (json!({"sourceLabels": {"a": "1"}}), json!({"sourceLabels": {"a": "2"}}), true),
            (json!({"sourceNamespace": "a"}), json!({"sourceNamespace": "b"}), true),
            (json!({"gateways": ["mesh"]}), json!({"gateways": ["ns/gw"]}), true),
            (json!({"gateways": ["mesh", "ns/gw"]}), json!({"gateways": ["ns/gw"]}), false),
        ];
        for (root, delegate, expected) in cases {
            let parse = |value: &serde_json::Value| serde_json::from_value(value.clone()).unwrap();
            assert_eq!(conflict(&parse(&root), &parse(&delegate)), expected, "{root} {delegate}");
        }
    }

    #[test]
    fn a_missing_delegate_takes_only_its_route_away() {
        let root = resource(
            "root",
            json!({"hosts": ["a.com"], "http": [
                {"delegate": {"name": "gone", "namespace": "ns"}},
                {"name": "rest", "route": [{"destination": {"host": "b"}}]},
            ]}),
        );
        let (expanded, missing) = expand(&root, |_, _| None);
        assert_eq!(expanded.spec.http.len(), 1);
        assert_eq!(
            missing.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["VirtualService ns/gone"]
        );
    }
}
