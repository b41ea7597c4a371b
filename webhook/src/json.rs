//! Reading and changing objects as JSON.

use serde_json::{Map, Value};

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// The object under a key, made if it is not there.
pub(crate) fn object_mut<'a>(parent: &'a mut Value, key: &str) -> &'a mut Object {
    let slot = slot_mut(parent, key);
    if !slot.is_object() {
        *slot = Value::Object(Object::new());
    }
    as_object_mut(slot)
}

/// The list under a key, made if it is not there.
pub(crate) fn list_mut<'a>(parent: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    let slot = slot_mut(parent, key);
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(list) => list,
        _ => unreachable!("it was made a list"),
    }
}

/// The list under a key; empty if it is not there.
pub(crate) fn list<'a>(parent: &'a Value, key: &str) -> &'a [Value] {
    parent.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text under a key.
pub(crate) fn text<'a>(parent: &'a Value, key: &str) -> Option<&'a str> {
    parent.get(key)?.as_str()
}

/// The text under `name`; empty if there is none.
pub(crate) fn name(value: &Value) -> &str {
    text(value, "name").unwrap_or_default()
}

/// Removes a list or an object that has nothing left in it.
pub(crate) fn remove_empty(parent: &mut Value, key: &str) {
    let empty = match parent.get(key) {
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(object)) => object.is_empty(),
        Some(Value::Null) => true,
        _ => false,
    };
    if empty && let Some(parent) = parent.as_object_mut() {
        parent.remove(key);
    }
}

/// Puts one value over another: objects field by field, everything else as a whole.
pub(crate) fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over,
    }
}

fn slot_mut<'a>(parent: &'a mut Value, key: &str) -> &'a mut Value {
    if !parent.is_object() {
        *parent = Value::Object(Object::new());
    }
    as_object_mut(parent).entry(key).or_insert(Value::Null)
}

fn as_object_mut(value: &mut Value) -> &mut Object {
    match value {
        Value::Object(object) => object,
        _ => unreachable!("it was made an object"),
    }
}
