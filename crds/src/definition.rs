//! The definitions that Kubernetes needs to know our kinds.

use kube::core::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::{
    Kind,
    networking::{DestinationRule, EnvoyFilter, Gateway, ServiceEntry, VirtualService},
    schema,
    security::{AuthorizationPolicy, PeerAuthentication},
};

/// The definition of a kind: every served version, with one schema. `None` strategy for conversion is the default.
pub fn definition(kind: Kind) -> Value {
    let schema = object_schema(kind);
    let columns = printer_columns(kind);
    let versions = kind.versions().iter().enumerate().map(|(index, version)| {
        json!({
            "name": version,
            "served": true,
            "storage": index == 0,
            "additionalPrinterColumns": columns,
            "subresources": { "status": {} },
            "schema": { "openAPIV3Schema": schema },
        })
    });
    let name = kind.as_str();
    let group = kind.group();
    let mut names = json!({
        "kind": name,
        "listKind": format!("{name}List"),
        "plural": kind.plural(),
        "singular": name.to_ascii_lowercase(),
        "categories": ["istio-io", format!("{}-istio-io", group.split('.').next().unwrap_or(group))],
    });
    if let short @ [_, ..] = short_names(kind) {
        names["shortNames"] = json!(short);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{group}", kind.plural()),
            "labels": { "app.kubernetes.io/part-of": "weft" },
        },
        "spec": {
            "group": group,
            "names": names,
            "scope": "Namespaced",
            "versions": versions.collect::<Vec<_>>(),
        },
    })
}

const NOTE: &str =
    "# Made by `cargo run -p weft-crds --example manifests` from the Rust types. Do not edit.";

/// A kind's manifest: the name of its file in `manifests/` and the text.
pub fn manifest(kind: Kind) -> (String, String) {
    (file_name(kind), format!("{NOTE}\n{}", yaml(&definition(kind))))
}

/// A kind's manifest as a template of the Helm chart: the name of its file in `charts/weft/templates/crds/` and the text.
///
/// Helm leaves the definition alone when the chart is uninstalled, as every resource of the kind would go with it.
pub fn chart_template(kind: Kind) -> (String, String) {
    let mut definition = definition(kind);
    definition["metadata"]["annotations"] = json!({ "helm.sh/resource-policy": "keep" });
    // What Helm would take for its own.
    let text = yaml(&definition).replace("{{", "{{ \"{{\" }}");
    let text = format!("{{{{- if .Values.crds.install }}}}\n{NOTE}\n{text}{{{{- end }}}}\n");
    (file_name(kind), text)
}

fn file_name(kind: Kind) -> String {
    format!("{}.{}.yaml", kind.group(), kind.plural())
}

fn yaml(definition: &Value) -> String {
    serde_saphyr::to_string(definition).unwrap_or_default()
}

fn object_schema(kind: Kind) -> Value {
    let mut spec = schema::structural(kind.spec_schema());
    if kind == Kind::VirtualService {
        add_other_spelling(&mut spec);
    }
    let description = spec.get("description").cloned().unwrap_or_default();
    let needs_spec = spec.get("required").is_some();
    let mut schema = json!({
        "type": "object",
        "description": description,
        "properties": {
            "spec": spec,
            "status": schema::structural(schema::plain::<crate::ResourceStatus>()),
        },
    });
    if needs_spec {
        schema["required"] = json!(["spec"]);
    }
    schema
}

/// Kubernetes drops fields that the schema does not name, and `mirror_percent` is in use.
fn add_other_spelling(spec: &mut Value) {
    let route = spec.pointer_mut("/properties/http/items/properties");
    if let Some(fields) = route.and_then(Value::as_object_mut)
        && let Some(field) = fields.get("mirrorPercent").cloned()
    {
        fields.insert("mirror_percent".into(), field);
    }
}

fn short_names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::VirtualService => VirtualService::shortnames(),
        Kind::DestinationRule => DestinationRule::shortnames(),
        Kind::Gateway => Gateway::shortnames(),
        Kind::ServiceEntry => ServiceEntry::shortnames(),
        Kind::EnvoyFilter => EnvoyFilter::shortnames(),
        Kind::PeerAuthentication => PeerAuthentication::shortnames(),
        Kind::AuthorizationPolicy => AuthorizationPolicy::shortnames(),
    }
}

/// The columns of `kubectl get`.
fn printer_columns(kind: Kind) -> Vec<Value> {
    let columns: &[(&str, &str, &str)] = match kind {
        Kind::VirtualService => &[
            ("Gateways", ".spec.gateways", "Where the routes apply"),
            ("Hosts", ".spec.hosts", "The hosts that the routes are for"),
        ],
        Kind::DestinationRule => &[("Host", ".spec.host", "The host that the rule is for")],
        Kind::ServiceEntry => &[
            ("Hosts", ".spec.hosts", "The hosts of the service"),
            ("Location", ".spec.location", "Whether the service is part of the mesh"),
            ("Resolution", ".spec.resolution", "How addresses of endpoints are found"),
        ],
        Kind::PeerAuthentication => {
            &[("Mode", ".spec.mtls.mode", "Whether mutual TLS is demanded")]
        }
        Kind::AuthorizationPolicy => &[("Action", ".spec.action", "What happens to the requests")],
        Kind::Gateway | Kind::EnvoyFilter => &[],
    };
    let column = |name: &str, path: &str, about: &str, kind: &str| {
        let fields = [("name", name), ("type", kind), ("jsonPath", path), ("description", about)];
        Value::Object(
            fields.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect::<Map<_, _>>(),
        )
    };
    let age = column("Age", ".metadata.creationTimestamp", "The time since it was created", "date");
    let own = columns.iter().chain(&STATUS_COLUMNS);
    let own = own.map(|(name, path, about)| column(name, path, about, "string"));
    own.chain([age]).collect()
}

/// What became of a resource, for every kind.
const STATUS_COLUMNS: [(&str, &str, &str); 3] = [
    (
        "Accepted",
        ".status.conditions[?(@.type==\"Accepted\")].status",
        "Whether the latest version is valid",
    ),
    (
        "InEffect",
        ".status.conditions[?(@.type==\"InEffect\")].status",
        "Whether clients or workloads go by it",
    ),
    ("Reason", ".status.conditions[?(@.type==\"InEffect\")].reason", "Why it is in effect or not"),
];
