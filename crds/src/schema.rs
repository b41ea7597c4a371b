//! From Rust types to schemas, and from those to what Kubernetes accepts as a structural schema.
//!
//! The types' schemas are first brought into one plain form with a few keys of our own (`x-weft-*`): the parser's shapes
//! and the definitions' schemas are both made from it, so that they cannot differ.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// Groups of fields of which one can be set: a list of lists of names.
pub(crate) const ONE_OF: &str = "x-weft-one-of";
/// A string that is a duration.
pub(crate) const DURATION: &str = "x-weft-duration";
/// The least duration, `0s` if not given.
const LEAST: &str = "x-weft-least";
/// What each value of an enum means.
const VALUES: &str = "x-weft-values";
/// A map whose keys are ports.
pub(crate) const PORT_KEYS: &str = "x-weft-port-keys";
/// An object that is kept as it is.
const FREE: &str = "x-kubernetes-preserve-unknown-fields";
/// Rules in CEL.
const RULES: &str = "x-kubernetes-validations";

/// The schema of a type in the plain form: no references, no `null`, no defaults.
pub(crate) fn plain<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    make_plain(&mut schema);
    schema
}

fn make_plain(schema: &mut Value) {
    // `true` stands for anything.
    if schema.is_boolean() {
        *schema = json!({ FREE: true });
    }
    let Some(node) = schema.as_object_mut() else { return };
    node.remove("title");
    node.remove("default");
    // Line breaks within a sentence are an accident of the source.
    if let Some(Value::String(text)) = node.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    drop_null(node);
    fix_number(node);
    if node.get(FREE).is_some() || is_bare_object(node) {
        node.remove("additionalProperties");
        node.insert("type".into(), "object".into());
        node.insert(FREE.into(), true.into());
        return;
    }
    for child in children(node) {
        make_plain(child);
    }
}

fn is_bare_object(node: &Map<String, Value>) -> bool {
    let any = matches!(node.get("additionalProperties"), None | Some(Value::Bool(true)));
    node.get("type").is_some_and(|t| t == "object") && !node.contains_key("properties") && any
}

/// An optional scalar may be `null` in YAML; for Kubernetes too. Other optional things cannot.
fn drop_null(node: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = node.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            if matches!(only.as_str(), Some("integer" | "number" | "boolean")) {
                node.insert("nullable".into(), true.into());
            }
            node.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = node.get_mut("enum") {
        values.retain(|v| !v.is_null());
    }
}

/// Kubernetes knows signed formats only; the others become ranges.
fn fix_number(node: &mut Map<String, Value>) {
    let (least, most) = match node.get("format").and_then(Value::as_str) {
        Some("uint8") => (0, u64::from(u8::MAX)),
        Some("uint16") => (0, u64::from(u16::MAX)),
        Some("uint32") => (0, u64::from(u32::MAX)),
        // JSON's numbers are exact up to 64 signed bits here.
        Some("uint64") => (0, i64::MAX as u64),
        _ => return,
    };
    node.remove("format");
    node.entry("minimum").or_insert_with(|| least.into());
    node.entry("maximum").or_insert_with(|| most.into());
}

/// The schemas directly within a schema.
fn children(node: &mut Map<String, Value>) -> Vec<&mut Value> {
    let mut found = Vec::new();
    for (key, value) in node {
        match key.as_str() {
            "properties" => {
                found.extend(value.as_object_mut().into_iter().flat_map(Map::values_mut));
            }
            "items" | "additionalProperties" => found.push(value),
            _ => {}
        }
    }
    found
}

/// A structural schema from one in the plain form.
pub(crate) fn structural(mut schema: Value) -> Value {
    make_structural(&mut schema, true);
    schema
}

/// `bounded` says that no list or map without a limit is around: Kubernetes multiplies the cost of a rule with the
/// number of times that it could run, and refuses a definition whose rules could cost too much.
fn make_structural(schema: &mut Value, bounded: bool) {
    let Some(node) = schema.as_object_mut() else { return };
    if let Some(Value::Array(meanings)) = node.remove(VALUES) {
        let about = node.get("description").and_then(Value::as_str).unwrap_or_default();
        let lines = std::iter::once(about).chain(meanings.iter().filter_map(Value::as_str));
        let text = lines.collect::<Vec<_>>().join("\n");
        node.insert("description".into(), text.into());
    }
    let least = node.remove(LEAST);
    if node.remove(DURATION).is_some() {
        node.insert("maxLength".into(), 64.into());
        if bounded {
            let least = least.as_ref().and_then(Value::as_str).unwrap_or("0s");
            let rule = json!({
                "rule": format!("duration(self) >= duration('{least}')"),
                "message": format!("must be a duration of at least {least}, such as 1.5s, 100ms or 1m30s"),
            });
            node.insert(RULES.into(), json!([rule]));
        }
    }
    node.remove(PORT_KEYS);
    if let Some(Value::Array(groups)) = node.remove(ONE_OF) {
        insert_one_of(node, &groups);
    }
    let limited = match node.get("type").and_then(Value::as_str) {
        Some("array") => node.contains_key("maxItems"),
        Some("object") if node.contains_key("additionalProperties") => {
            node.contains_key("maxProperties")
        }
        _ => true,
    };
    for child in children(node) {
        make_structural(child, bounded && limited);
    }
}

/// "At most one of these fields", in the form that costs Kubernetes nothing.
fn insert_one_of(node: &mut Map<String, Value>, groups: &[Value]) {
    let alternatives = |group: &Value| {
        let fields: Vec<Value> = group.as_array().into_iter().flatten().cloned().collect();
        let each = fields.iter().map(|field| json!({ "required": [field] })).collect::<Vec<_>>();
        let none = json!({ "not": { "anyOf": each.clone() } });
        Value::Array(std::iter::once(none).chain(each).collect())
    };
    if let [group] = groups {
        node.insert("oneOf".into(), alternatives(group));
    } else {
        let all = groups.iter().map(|group| json!({ "oneOf": alternatives(group) }));
        node.insert("allOf".into(), all.collect());
    }
}
