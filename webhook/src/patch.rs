//! The JSON Patch (RFC 6902) from one object to another.
//!
//! Objects are compared field by field; lists that differ are replaced as a whole, which is short to read for the lists of
//! a pod and cannot go wrong by an index.

use serde_json::{Value, json};

/// The operations that make `after` of `before`.
pub(crate) fn diff(before: &Value, after: &Value) -> Vec<Value> {
    let mut operations = Vec::new();
    walk("", before, after, &mut operations);
    operations
}

fn walk(path: &str, before: &Value, after: &Value, operations: &mut Vec<Value>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                operations.push(json!({"op": "remove", "path": member(path, key)}));
            }
            for (key, value) in new {
                match old.get(key) {
                    Some(before) => walk(&member(path, key), before, value, operations),
                    None => {
                        let path = member(path, key);
                        operations.push(json!({"op": "add", "path": path, "value": value}));
                    }
                }
            }
        }
        (before, after) if before == after => {}
        (_, after) => {
            operations.push(json!({"op": "replace", "path": path, "value": after}));
        }
    }
}

/// The pointer (RFC 6901) to a member.
fn member(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_leads_from_one_object_to_the_other() {
        for (before, after) in [
            (json!({}), json!({"a": 1})),
            (json!({"a": 1}), json!({})),
            (json!({"a": {"b": 1, "c": [1]}}), json!({"a": {"c": [2, 1], "d": null}})),
            (json!({"a": null}), json!({"a": {"b": {}}})),
            (
                json!({"metadata": {"labels": {"a/b": "x", "c~d": "y"}}}),
                json!({"metadata": {"labels": {"a/b": "z", "e~/f": "y"}}}),
            ),
            (json!({"a": [1, 2]}), json!({"a": [1, 2]})),
            (json!([1]), json!({"a": 1})),
        ] {
            let patch = diff(&before, &after);
            let patch: json_patch::Patch = serde_json::from_value(Value::Array(patch)).unwrap();
            let mut patched = before.clone();
            json_patch::patch(&mut patched, &patch).unwrap();
            assert_eq!(patched, after);
            assert_eq!(patch.is_empty(), before == after);
        }
    }
}
