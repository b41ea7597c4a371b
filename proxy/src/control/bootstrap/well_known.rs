//! The JSON forms of scalars and of `google.protobuf`'s own types.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost::Message as _;
use prost_types::{ListValue, Struct, value::Kind};
use serde_json::Value;

use super::encode::shown;
use crate::control::decode::Invalid;

/// The bytes of a message of `google.protobuf`.
pub fn encode(name: &str, value: &Value) -> Result<Vec<u8>, Invalid> {
    match name {
        "BoolValue" => Ok(boolean(value)?.encode_to_vec()),
        "UInt32Value" => Ok(u32::try_from(integer(value, 0, u32::MAX.into())?)
            .map_err(|_| Invalid::value(shown(value), "a number"))?
            .encode_to_vec()),
        "UInt64Value" => Ok(u64::try_from(integer(value, 0, u64::MAX.into())?)
            .map_err(|_| Invalid::value(shown(value), "a number"))?
            .encode_to_vec()),
        "Int32Value" => Ok(i32::try_from(integer(value, i32::MIN.into(), i32::MAX.into())?)
            .map_err(|_| Invalid::value(shown(value), "a number"))?
            .encode_to_vec()),
        "Int64Value" => Ok(i64::try_from(integer(value, i64::MIN.into(), i64::MAX.into())?)
            .map_err(|_| Invalid::value(shown(value), "a number"))?
            .encode_to_vec()),
        "DoubleValue" => Ok(float(value)?.encode_to_vec()),
        #[allow(clippy::cast_possible_truncation)]
        "FloatValue" => Ok((float(value)? as f32).encode_to_vec()),
        "StringValue" => Ok(text(value)?.to_owned().encode_to_vec()),
        "BytesValue" => Ok(base64(value)?.encode_to_vec()),
        "Duration" => Ok(duration(value)?.encode_to_vec()),
        "Struct" => match value {
            Value::Object(_) => Ok(structure(value).encode_to_vec()),
            other => Err(Invalid::value(shown(other), "a mapping")),
        },
        "Value" => Ok(any_value(value).encode_to_vec()),
        "ListValue" => match value {
            Value::Array(items) => {
                Ok(ListValue { values: items.iter().map(any_value).collect() }.encode_to_vec())
            }
            other => Err(Invalid::value(shown(other), "a list")),
        },
        other => Err(Invalid::unsupported_value(format!("google.protobuf.{other}"))),
    }
}

/// A boolean; also in the words of YAML 1.1.
pub fn boolean(value: &Value) -> Result<bool, Invalid> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Ok(true),
            "false" | "no" | "off" | "n" => Ok(false),
            _ => Err(Invalid::value(text, "true or false")),
        },
        other => Err(Invalid::value(shown(other), "true or false")),
    }
}

/// A whole number, also as text or with an empty fraction.
pub fn integer(value: &Value, least: i128, most: i128) -> Result<i128, Invalid> {
    #[allow(clippy::cast_possible_truncation)]
    fn whole(value: f64) -> Option<i128> {
        (value.fract() == 0.0 && value.abs() < 1e18).then_some(value as i128)
    }
    let number = match value {
        Value::Number(number) => number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from))
            .or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => {
            text.parse().ok().or_else(|| text.parse::<f64>().ok().and_then(whole))
        }
        _ => None,
    };
    match number {
        Some(number) if (least..=most).contains(&number) => Ok(number),
        Some(_) => Err(Invalid::value(shown(value), "a number in range")),
        None => Err(Invalid::value(shown(value), "a whole number")),
    }
}

/// A number.
pub fn float(value: &Value) -> Result<f64, Invalid> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            "NaN" => Some(f64::NAN),
            text => text.parse().ok(),
        },
        _ => None,
    }
    .ok_or_else(|| Invalid::value(shown(value), "a number"))
}

/// A text. What YAML takes for something else has to be quoted: its own spelling is lost.
pub fn text(value: &Value) -> Result<&str, Invalid> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(Invalid::value(shown(other), "a text (put it in quotes)")),
    }
}

/// Bytes: base 64 in either alphabet, with padding or without.
pub fn base64(value: &Value) -> Result<Vec<u8>, Invalid> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text = text(value)?;
    [&alphabet::STANDARD, &alphabet::URL_SAFE]
        .into_iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, CONFIG).decode(text).ok())
        .ok_or_else(|| Invalid::value(shown(value), "base 64"))
}

/// `1.5s`
fn duration(value: &Value) -> Result<prost_types::Duration, Invalid> {
    parse_duration(text_or_empty(value))
        .ok_or_else(|| Invalid::value(shown(value), "a duration in seconds, as 1.5s"))
}

fn text_or_empty(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn parse_duration(text: &str) -> Option<prost_types::Duration> {
    let number = text.strip_suffix('s')?;
    let (negative, number) =
        number.strip_prefix('-').map_or((false, number), |number| (true, number));
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let mut seconds: i64 = seconds.parse().ok()?;
    let mut nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    if negative {
        (seconds, nanos) = (-seconds, -nanos);
    }
    Some(prost_types::Duration { seconds, nanos })
}

/// A mapping of anything.
pub fn structure(value: &Value) -> Struct {
    let Value::Object(members) = value else {
        return Struct::default();
    };
    let fields = members.iter().map(|(key, value)| (key.clone(), any_value(value)));
    Struct { fields: fields.collect() }
}

fn any_value(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => {
            Kind::ListValue(ListValue { values: items.iter().map(any_value).collect() })
        }
        Value::Object(_) => Kind::StructValue(structure(value)),
    };
    prost_types::Value { kind: Some(kind) }
}
