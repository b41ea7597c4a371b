//! A document as a message's bytes, by the rules of protobuf's JSON form, as far as Envoy reads YAML by them.
//!
//! What is refused is refused with its path: fields that nobody knows, fields of types that Weft does not know, values of
//! another type, two members of a `oneof`.

use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use serde_json::{Map, Value};

use super::{
    schema::{Field, Kind, Schema},
    unsupported::is_unsupported,
    well_known,
};
use crate::control::decode::{
    Invalid,
    invalid::{At, Reason},
};

/// The bytes of a message of this name.
///
/// # Errors
/// The first thing that is wrong, with its path.
pub fn message(schema: &Schema, name: &str, value: &Value) -> Result<Vec<u8>, Invalid> {
    let Value::Object(members) = value else {
        return Err(Invalid::value(shown(value), "a mapping"));
    };
    fields(schema, name, members.iter())
}

/// A value as an error shows it.
pub fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let mut text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

fn fields<'a>(
    schema: &Schema,
    name: &str,
    members: impl Iterator<Item = (&'a String, &'a Value)>,
) -> Result<Vec<u8>, Invalid> {
    let message = schema.message(name).ok_or_else(|| Invalid::unsupported_value(name))?;
    let mut out = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    let mut chosen: Vec<(&str, &str)> = Vec::new();
    for (key, value) in members {
        let field = message
            .field(key)
            .ok_or_else(|| Invalid { path: key.clone(), reason: Reason::Unknown })?;
        if seen.contains(&field.name) {
            return Err(Invalid { path: String::new(), reason: Reason::Duplicate(key.clone()) });
        }
        seen.push(field.name);
        if value.is_null() && field.kind != Kind::WellKnown("Value") {
            continue;
        }
        // A setting that is off asks for nothing.
        if *value != Value::Bool(false) && is_unsupported(name, field.name) {
            return Err(Invalid::unsupported(field.name));
        }
        if let Some(one_of) = field.one_of {
            if let Some((_, first)) = chosen.iter().find(|(known, _)| *known == one_of) {
                let reason = Reason::OneOf { first: (*first).into(), second: field.name.into() };
                return Err(Invalid { path: String::new(), reason });
            }
            chosen.push((one_of, field.name));
        }
        field_value(schema, field, value, &mut out)?;
    }
    Ok(out)
}

fn field_value(
    schema: &Schema,
    field: &Field,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), Invalid> {
    if let Kind::Map(of) = field.kind {
        let Value::Object(entries) = value else {
            return Err(Invalid::value(shown(value), "a mapping")).at(field.name);
        };
        for (key, value) in entries {
            let mut entry = Vec::new();
            bytes(1, key.as_bytes(), &mut entry);
            single(schema, Kind::of_map(of), 2, value, &mut entry).at_key(field.name, key)?;
            bytes(field.number, &entry, out);
        }
        return Ok(());
    }
    if !field.repeated {
        return single(schema, field.kind, field.number, value, out).at(field.name);
    }
    let Value::Array(items) = value else {
        return Err(Invalid::value(shown(value), "a list")).at(field.name);
    };
    for (index, item) in items.iter().enumerate() {
        single(schema, field.kind, field.number, item, out).at_index(field.name, index)?;
    }
    Ok(())
}

/// A length-delimited field.
fn bytes(number: u32, content: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn varint(number: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

fn single(
    schema: &Schema,
    kind: Kind,
    number: u32,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), Invalid> {
    match kind {
        Kind::Bool => varint(number, well_known::boolean(value)?.into(), out),
        Kind::Int32 => {
            let value = well_known::integer(value, i32::MIN.into(), i32::MAX.into())?;
            varint(number, signed(value), out);
        }
        Kind::Int64 => {
            let value = well_known::integer(value, i64::MIN.into(), i64::MAX.into())?;
            varint(number, signed(value), out);
        }
        Kind::Uint32 => {
            let value = well_known::integer(value, 0, u32::MAX.into())?;
            varint(number, signed(value), out);
        }
        Kind::Uint64 => {
            let value = well_known::integer(value, 0, u64::MAX.into())?;
            varint(number, signed(value), out);
        }
        Kind::Double => {
            encode_key(number, WireType::SixtyFourBit, out);
            out.extend_from_slice(&well_known::float(value)?.to_le_bytes());
        }
        Kind::Float => {
            encode_key(number, WireType::ThirtyTwoBit, out);
            #[allow(clippy::cast_possible_truncation)]
            let value = well_known::float(value)? as f32;
            out.extend_from_slice(&value.to_le_bytes());
        }
        Kind::String => bytes(number, well_known::text(value)?.as_bytes(), out),
        Kind::Bytes => bytes(number, &well_known::base64(value)?, out),
        Kind::Enum(name) => {
            varint(number, signed(enumeration(schema, name, value)?.into()), out);
        }
        Kind::Message(name) => bytes(number, &message(schema, name, value)?, out),
        Kind::WellKnown("Any") => bytes(number, &any(schema, value)?.encode_to_vec(), out),
        Kind::WellKnown(name) => bytes(number, &well_known::encode(name, value)?, out),
        // Maps are not in lists or in maps.
        Kind::Map(_) | Kind::Unsupported => return Err(Invalid::unsupported("")),
    }
    Ok(())
}

/// Negative numbers take ten bytes, as protobuf has it.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn signed(value: i128) -> u64 {
    value as u64
}

fn enumeration(schema: &Schema, name: &'static str, value: &Value) -> Result<i32, Invalid> {
    match value {
        Value::String(text) => schema
            .number(name, text)
            .ok_or_else(|| Invalid::value(text, "one of the values that Envoy knows")),
        other => {
            let number = well_known::integer(other, i32::MIN.into(), i32::MAX.into())?;
            i32::try_from(number).map_err(|_| Invalid::value(shown(other), "a number"))
        }
    }
}

/// `{"@type": "type.googleapis.com/NAME", ...}`
fn any(schema: &Schema, value: &Value) -> Result<prost_types::Any, Invalid> {
    const TYPE: &str = "@type";
    let Value::Object(members) = value else {
        return Err(Invalid::value(shown(value), "a mapping"));
    };
    let type_url = match members.get(TYPE) {
        Some(Value::String(url)) => url.clone(),
        Some(other) => return Err(Invalid::value(shown(other), "a type")).at(TYPE),
        None => return Err(Invalid::missing(TYPE)),
    };
    let name = type_url.rsplit('/').next().unwrap_or_default();
    let value = match name.strip_prefix("google.protobuf.") {
        Some(name @ ("Struct" | "StringValue" | "BoolValue" | "UInt32Value")) => {
            let inner = members.get("value").unwrap_or(&Value::Null);
            well_known::encode(name, inner).at("value")?
        }
        _ => fields(schema, name, without(members, TYPE))?,
    };
    Ok(prost_types::Any { type_url, value })
}

fn without<'a>(
    members: &'a Map<String, Value>,
    name: &'static str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    members.iter().filter(move |(key, _)| *key != name)
}

#[cfg(test)]
mod tests;
