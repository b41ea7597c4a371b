//! A local rate limit written as a `TypedStruct`, the way EnvoyFilters in YAML do.
//!
//! Field names in either spelling; durations as `60s`; enums by name or number; unknown fields are errors.

use prost::Message;
use weft_api::xds::{
    envoy::{
        config::core::v3::{
            HeaderValue, HeaderValueOption, RuntimeFractionalPercent,
            header_value_option::HeaderAppendAction,
        },
        extensions::filters::http::local_ratelimit::v3::LocalRateLimit,
        r#type::v3::{
            FractionalPercent, HttpStatus, TokenBucket, fractional_percent::DenominatorType,
        },
    },
    google::protobuf::{Any, BoolValue, Duration, Struct, UInt32Value, Value, value::Kind},
};

use super::{
    invalid::{At, Invalid, each},
    value::{message, type_name},
};

/// `udpa.type.v1.TypedStruct` and `xds.type.v3.TypedStruct`: a message by name, its content as a `Struct`.
#[derive(Clone, PartialEq, Message)]
pub struct TypedStruct {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Struct>,
}

impl prost::Name for TypedStruct {
    const NAME: &'static str = "TypedStruct";
    const PACKAGE: &'static str = "xds.type.v3";
}

/// Whether an `Any` holds a `TypedStruct` of either package.
pub fn is_typed_struct(any: &Any) -> bool {
    matches!(type_name(any), "xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct")
}

/// Reads the `TypedStruct`.
pub fn typed_struct(any: &Any) -> Result<TypedStruct, Invalid> {
    message(&any.value)
}

/// A local rate limit of its fields.
pub fn local_rate_limit(fields: &Struct) -> Result<LocalRateLimit, Invalid> {
    let mut limit = LocalRateLimit::default();
    for (key, value) in &fields.fields {
        field(&mut limit, key, value).at(key)?;
    }
    Ok(limit)
}

fn field(limit: &mut LocalRateLimit, key: &str, value: &Value) -> Result<(), Invalid> {
    match key {
        "@type" => {}
        "stat_prefix" | "statPrefix" => limit.stat_prefix = text(value)?.to_owned(),
        "token_bucket" | "tokenBucket" => limit.token_bucket = Some(token_bucket(value)?),
        "filter_enabled" | "filterEnabled" => limit.filter_enabled = Some(fraction(value)?),
        "filter_enforced" | "filterEnforced" => limit.filter_enforced = Some(fraction(value)?),
        "response_headers_to_add" | "responseHeadersToAdd" => {
            limit.response_headers_to_add = list(value)?;
        }
        "request_headers_to_add_when_not_enforced" | "requestHeadersToAddWhenNotEnforced" => {
            limit.request_headers_to_add_when_not_enforced = list(value)?;
        }
        "status" => {
            let fields = fields(value)?;
            let code = fields.get("code").ok_or_else(|| Invalid::missing("code"))?;
            limit.status = Some(HttpStatus {
                code: i32::try_from(number(code).at("code")?)
                    .map_err(|_| Invalid::value("...", "a status"))
                    .at("code")?,
            });
        }
        "stage" => limit.stage = number(value)?,
        "local_rate_limit_per_downstream_connection" | "localRateLimitPerDownstreamConnection" => {
            limit.local_rate_limit_per_downstream_connection = boolean(value)?;
        }
        "rate_limited_as_resource_exhausted" | "rateLimitedAsResourceExhausted" => {
            limit.rate_limited_as_resource_exhausted = boolean(value)?;
        }
        "enable_x_ratelimit_headers" | "enableXRatelimitHeaders" => {
            if !matches!(&value.kind, Some(Kind::StringValue(text)) if text == "OFF") {
                return Err(Invalid::unsupported(""));
            }
        }
        _ => return Err(Invalid::unsupported("")),
    }
    Ok(())
}

fn token_bucket(value: &Value) -> Result<TokenBucket, Invalid> {
    let mut bucket = TokenBucket::default();
    for (key, value) in fields(value)? {
        match key.as_str() {
            "max_tokens" | "maxTokens" => bucket.max_tokens = number(value).at(key)?,
            "tokens_per_fill" | "tokensPerFill" => {
                bucket.tokens_per_fill = Some(UInt32Value { value: number(value).at(key)? });
            }
            "fill_interval" | "fillInterval" => {
                bucket.fill_interval = Some(duration(value).at(key)?);
            }
            _ => return Err(Invalid::unsupported(key)),
        }
    }
    Ok(bucket)
}

fn fraction(value: &Value) -> Result<RuntimeFractionalPercent, Invalid> {
    let mut fraction = RuntimeFractionalPercent::default();
    for (key, value) in fields(value)? {
        match key.as_str() {
            "runtime_key" | "runtimeKey" => fraction.runtime_key = text(value).at(key)?.to_owned(),
            "default_value" | "defaultValue" => {
                let mut percent = FractionalPercent::default();
                for (key, value) in fields(value).at(key)? {
                    match key.as_str() {
                        "numerator" => percent.numerator = number(value).at(key)?,
                        "denominator" => {
                            let name = text(value).at(key)?;
                            percent.denominator = DenominatorType::from_str_name(name)
                                .ok_or_else(|| Invalid::value(name, "a denominator"))
                                .at(key)? as i32;
                        }
                        _ => return Err(Invalid::unsupported(key)),
                    }
                }
                fraction.default_value = Some(percent);
            }
            _ => return Err(Invalid::unsupported(key)),
        }
    }
    Ok(fraction)
}

fn list(value: &Value) -> Result<Vec<HeaderValueOption>, Invalid> {
    match &value.kind {
        Some(Kind::ListValue(list)) => each(&list.values, "", header_option),
        _ => Err(Invalid::value("...", "a list")),
    }
}

fn header_option(value: &Value) -> Result<HeaderValueOption, Invalid> {
    let mut option = HeaderValueOption::default();
    for (key, value) in fields(value)? {
        match key.as_str() {
            "append" => option.append = Some(BoolValue { value: boolean(value).at(key)? }),
            "append_action" | "appendAction" => {
                let name = text(value).at(key)?;
                option.append_action = HeaderAppendAction::from_str_name(name)
                    .ok_or_else(|| Invalid::value(name, "an append action"))
                    .at(key)? as i32;
            }
            "keep_empty_value" | "keepEmptyValue" => {
                option.keep_empty_value = boolean(value).at(key)?;
            }
            "header" => {
                let mut header = HeaderValue::default();
                for (key, value) in fields(value).at(key)? {
                    match key.as_str() {
                        "key" => header.key = text(value).at(key)?.to_owned(),
                        "value" => header.value = text(value).at(key)?.to_owned(),
                        _ => return Err(Invalid::unsupported(key)),
                    }
                }
                option.header = Some(header);
            }
            _ => return Err(Invalid::unsupported(key)),
        }
    }
    Ok(option)
}

fn fields(value: &Value) -> Result<&std::collections::HashMap<String, Value>, Invalid> {
    match &value.kind {
        Some(Kind::StructValue(fields)) => Ok(&fields.fields),
        _ => Err(Invalid::value("...", "an object")),
    }
}

fn text(value: &Value) -> Result<&str, Invalid> {
    match &value.kind {
        Some(Kind::StringValue(text)) => Ok(text),
        _ => Err(Invalid::value("...", "a string")),
    }
}

fn boolean(value: &Value) -> Result<bool, Invalid> {
    match &value.kind {
        Some(Kind::BoolValue(value)) => Ok(*value),
        _ => Err(Invalid::value("...", "true or false")),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn number(value: &Value) -> Result<u32, Invalid> {
    match &value.kind {
        Some(Kind::NumberValue(number))
            if *number >= 0.0 && *number <= f64::from(u32::MAX) && number.fract() == 0.0 =>
        {
            Ok(*number as u32)
        }
        Some(Kind::StringValue(text)) => {
            text.parse().map_err(|_| Invalid::value(text, "a whole number"))
        }
        Some(Kind::NumberValue(number)) => {
            Err(Invalid::value(number.to_string(), "a whole number"))
        }
        _ => Err(Invalid::value("...", "a whole number")),
    }
}

/// `1.5s`, as protobuf's JSON has it.
fn duration(value: &Value) -> Result<Duration, Invalid> {
    let text = text(value)?;
    let parse = || -> Option<Duration> {
        let number = text.strip_suffix('s')?;
        let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let nanos = format!("{fraction:0<9}").parse().ok()?;
        Some(Duration { seconds: seconds.parse().ok().filter(|s| *s >= 0)?, nanos })
    };
    parse().ok_or_else(|| Invalid::value(text, "a duration such as 60s"))
}
