//! The definitions in `manifests/`: up to date, and in the form that Kubernetes demands.

// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Value, json};
use weft_crds::{Kind, chart_template, definition, manifest};

/// Compares a folder with what would be written to it.
fn check_folder(folder: &Path, text_of: impl Fn(Kind) -> (String, String)) {
    let mut files = BTreeSet::new();
    for kind in Kind::ALL {
        let (file, text) = text_of(kind);
        let found = fs::read_to_string(folder.join(&file)).unwrap_or_default();
        assert!(found == text, "{file} is stale: run cargo run -p weft-crds --example manifests");
        files.insert(file);
    }
    let found: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, files);
}

#[test]
fn manifests_are_up_to_date() {
    check_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests"), manifest);
}

#[test]
fn the_chart_has_the_same_definitions_and_keeps_them_on_uninstall() {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/weft/templates/crds");
    check_folder(&chart, chart_template);
    for kind in Kind::ALL {
        let (_, text) = chart_template(kind);
        let text = text.replace("{{- if .Values.crds.install }}", "").replace("{{- end }}", "");
        let mut found: Value = serde_saphyr::from_str(&text).unwrap();
        let annotations = found["metadata"].as_object_mut().unwrap().remove("annotations");
        assert_eq!(annotations, Some(json!({ "helm.sh/resource-policy": "keep" })));
        let expected: Value = serde_saphyr::from_str(&manifest(kind).1).unwrap();
        assert!(found == expected, "{kind}");
    }
}

#[test]
fn versions_names_and_columns_are_those_that_users_know() {
    let expected = [
        ("VirtualService", "vs", "v1 v1beta1 v1alpha3", "Gateways Hosts Age"),
        ("DestinationRule", "dr", "v1 v1beta1 v1alpha3", "Host Age"),
        ("Gateway", "gw", "v1 v1beta1 v1alpha3", "Age"),
        ("ServiceEntry", "se", "v1 v1beta1 v1alpha3", "Hosts Location Resolution Age"),
        ("EnvoyFilter", "", "v1alpha3", "Age"),
        ("PeerAuthentication", "pa", "v1 v1beta1", "Mode Age"),
        ("AuthorizationPolicy", "ap", "v1 v1beta1", "Action Age"),
    ];
    let join = |values: &Value, key: &str| -> String {
        let texts = values.as_array().into_iter().flatten();
        let texts = texts.map(|v| if key.is_empty() { v } else { &v[key] }.as_str().unwrap());
        texts.collect::<Vec<_>>().join(" ")
    };
    for (kind, (name, short, versions, columns)) in Kind::ALL.into_iter().zip(expected) {
        // What became of the resource stands before its age.
        let columns = columns.replace("Age", "Accepted InEffect Reason Age");
        let spec = &definition(kind)["spec"];
        assert_eq!(kind.as_str(), name);
        assert_eq!(join(&spec["names"]["shortNames"], ""), short, "{kind}");
        assert_eq!(join(&spec["versions"], "name"), versions, "{kind}");
        assert_eq!(spec["scope"], "Namespaced");
        let group = kind.group().split('.').next().unwrap();
        assert_eq!(join(&spec["names"]["categories"], ""), format!("istio-io {group}-istio-io"));
        for (index, version) in spec["versions"].as_array().unwrap().iter().enumerate() {
            assert_eq!(version["storage"], index == 0, "{kind}");
            assert_eq!(version["served"], true);
            assert_eq!(version["subresources"], json!({ "status": {} }));
            assert_eq!(join(&version["additionalPrinterColumns"], "name"), columns, "{kind}");
            assert_eq!(version["schema"], spec["versions"][0]["schema"], "one schema for all");
        }
    }
}

#[test]
fn definitions_have_no_key_that_kubernetes_does_not_know() {
    for kind in Kind::ALL {
        let definition = definition(kind);
        let typed: CustomResourceDefinition = serde_json::from_value(definition.clone()).unwrap();
        let again = serde_json::to_value(typed).unwrap();
        assert!(keys(&again) == keys(&definition), "{kind}");
    }
}

/// Pointers to all values with their text; Kubernetes' type knows floats only where a schema has whole numbers.
fn keys(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, here: &str, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                found.insert(format!("{here}: {} fields", fields.len()));
                fields.iter().for_each(|(key, value)| walk(value, &format!("{here}/{key}"), found));
            }
            Value::Array(items) => {
                let each = items.iter().enumerate();
                each.for_each(|(index, value)| walk(value, &format!("{here}/{index}"), found));
            }
            Value::Number(number) => {
                found.insert(format!("{here}: {:?}", number.as_f64()));
            }
            leaf => {
                found.insert(format!("{here}: {leaf}"));
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(value, "", &mut found);
    found
}

#[test]
fn schemas_are_structural_and_described() {
    for kind in Kind::ALL {
        let schema = &definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        check(schema, &mut vec![kind.to_string()]);
    }
}

/// Checks a node and those below it.
fn check(schema: &Value, path: &mut Vec<String>) {
    let place = path.join(".");
    let has = |key: &str| schema.get(key).is_some();
    let kind = schema["type"].as_str().unwrap_or_else(|| panic!("{place} has no type"));
    for key in schema.as_object().expect("a schema is an object").keys() {
        assert!(!key.starts_with("x-weft") && key != "default" && key != "$ref", "{place}: {key}");
    }
    assert!(!(has("properties") && has("additionalProperties")), "{place}");
    let free = has("x-kubernetes-preserve-unknown-fields");
    assert_eq!(
        kind == "object",
        has("properties") || has("additionalProperties") || free,
        "{place}"
    );
    assert_eq!(kind == "array", has("items"), "{place}");
    if let Some(format) = schema["format"].as_str() {
        assert!(["int32", "int64", "double", "byte"].contains(&format), "{place}: {format}");
    }
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            path.push(name.clone());
            assert!(property["description"].is_string(), "{} has no description", path.join("."));
            check(property, path);
            path.pop();
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            assert!(
                properties.contains_key(name.as_str().expect("a name")),
                "{place} requires {name}"
            );
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get(key) {
            path.push(key.to_owned());
            check(child, path);
            path.pop();
        }
    }
}

#[test]
fn both_spellings_of_mirror_percent_survive_pruning() {
    let definition = definition(Kind::VirtualService);
    let spec =
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let route = &spec["properties"]["http"]["items"]["properties"];
    assert_eq!(route["mirror_percent"], route["mirrorPercent"]);
    assert!(route["mirror_percent"].is_object());
}
