//! What a resource's YAML must look like, and the reading of a value against it.
//!
//! A shape is made from a type's schema. Reading takes protobuf's habits in its stride (snake-case names, numbers as
//! strings, enums by number, `null` for unset) and reports everything that does not fit, each with its path. What
//! was read without a problem deserialises.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::{
    Bytes, Duration, FieldError,
    path::Path,
    schema::{self, DURATION, ONE_OF, PORT_KEYS},
};

/// What a value must look like.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Named fields.
    Object { fields: BTreeMap<String, Shape>, required: Vec<String>, one_of: Vec<Vec<String>> },
    /// Keys of the user's, values of one shape.
    Map { values: Box<Shape>, least: usize, ports: bool },
    /// A list.
    List { items: Box<Shape>, least: usize, most: usize },
    /// A string, its length in characters.
    Text { least: usize, most: usize },
    /// A string that is a duration.
    Duration,
    /// A string that is base64.
    Bytes,
    /// One of these names, in the order of their numbers.
    Choice(Vec<String>),
    /// A whole number.
    Integer { least: i128, most: i128 },
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// Any object.
    Free,
}

impl Shape {
    /// The shape of a type's YAML.
    pub(crate) fn of<T: JsonSchema>() -> Self {
        Self::from_schema(&schema::plain::<T>())
    }

    fn from_schema(schema: &Value) -> Self {
        let size = |key: &str| schema.get(key).and_then(Value::as_u64).map(to_size);
        let strings = |value: &Value| -> Vec<String> {
            let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
            texts.map(Into::into).collect()
        };
        match schema.get("type").and_then(Value::as_str) {
            Some("array") => Self::List {
                items: Box::new(schema.get("items").map_or(Self::Free, Self::from_schema)),
                least: size("minItems").unwrap_or(0),
                most: size("maxItems").unwrap_or(usize::MAX),
            },
            Some("string") => {
                if let Some(names) = schema.get("enum") {
                    Self::Choice(strings(names))
                } else if schema.get(DURATION).is_some() {
                    Self::Duration
                } else if schema.get("format").is_some_and(|f| f == "byte") {
                    Self::Bytes
                } else {
                    let (least, most) = (size("minLength"), size("maxLength"));
                    Self::Text { least: least.unwrap_or(0), most: most.unwrap_or(usize::MAX) }
                }
            }
            Some("integer") => {
                let narrow = schema.get("format").is_some_and(|f| f == "int32");
                let (low, high) = if narrow {
                    (i128::from(i32::MIN), i128::from(i32::MAX))
                } else {
                    (i128::from(i64::MIN), i128::from(i64::MAX))
                };
                let bound = |key: &str| schema.get(key).and_then(whole);
                Self::Integer {
                    least: bound("minimum").unwrap_or(low),
                    most: bound("maximum").unwrap_or(high),
                }
            }
            Some("number") => Self::Number,
            Some("boolean") => Self::Boolean,
            _ => {
                if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
                    let groups = schema.get(ONE_OF).and_then(Value::as_array);
                    Self::Object {
                        fields: fields
                            .iter()
                            .map(|(name, field)| (name.clone(), Self::from_schema(field)))
                            .collect(),
                        required: schema.get("required").map(strings).unwrap_or_default(),
                        one_of: groups.into_iter().flatten().map(strings).collect(),
                    }
                } else if let Some(values) = schema.get("additionalProperties") {
                    Self::Map {
                        values: Box::new(Self::from_schema(values)),
                        least: size("minProperties").unwrap_or(0),
                        ports: schema.get(PORT_KEYS).is_some(),
                    }
                } else {
                    Self::Free
                }
            }
        }
    }

    /// Reads a value: answers it in the form that deserialises, and notes what does not fit.
    pub(crate) fn read(
        &self,
        value: Value,
        path: &Path<'_>,
        problems: &mut Vec<FieldError>,
    ) -> Value {
        let read = match self {
            Self::Object { fields, required, one_of } => match value {
                Value::Object(given) => {
                    let read = read_fields(fields, given, path, problems);
                    check_fields(&read, required, one_of, path, problems);
                    Ok(Value::Object(read))
                }
                other => Err(unexpected("an object", &other)),
            },
            Self::Map { values, least, ports } => match value {
                Value::Object(given) => {
                    note(problems, path, below(given.len(), *least));
                    Ok(read_map(values, given, *ports, path, problems))
                }
                other => Err(unexpected("an object", &other)),
            },
            Self::List { items, least, most } => match value {
                Value::Array(given) => {
                    note(problems, path, below(given.len(), *least));
                    note(problems, path, above(given.len(), *most, "entries"));
                    let each = given.into_iter().enumerate();
                    Ok(each.map(|(i, v)| items.read(v, &path.index(i), problems)).collect())
                }
                other => Err(unexpected("a list", &other)),
            },
            Self::Free => match value {
                Value::Object(given) => Ok(Value::Object(given)),
                other => Err(unexpected("an object", &other)),
            },
            scalar => scalar.read_scalar(value),
        };
        read.unwrap_or_else(|reason| {
            problems.push(FieldError::new(path, reason));
            Value::Null
        })
    }

    fn read_scalar(&self, value: Value) -> Result<Value, String> {
        match self {
            Self::Text { least, most } => {
                let text = text(value)?;
                let length = text.chars().count();
                if length < *least {
                    return Err("must not be empty".into());
                }
                above(length, *most, "characters").map_or(Ok(Value::String(text)), Err)
            }
            Self::Duration => {
                if let Value::Number(number) = &value {
                    return Err(format!("a duration needs a unit, such as {number}s"));
                }
                let text = text(value)?;
                text.parse::<Duration>().map_err(|e| format!("{text:?}: {e}"))?;
                Ok(Value::String(text))
            }
            Self::Bytes => {
                let text = Value::String(text(value)?);
                let bytes: Result<Bytes, _> = serde_json::from_value(text.clone());
                bytes.map(|_| text).map_err(|e| e.to_string())
            }
            Self::Choice(names) => choice(names, &value),
            Self::Integer { least, most } => {
                let number = whole(&value).ok_or_else(|| unexpected("a whole number", &value))?;
                if number < *least || number > *most {
                    return Err(format!("must be from {least} to {most}, not {number}"));
                }
                let signed = i64::try_from(number).map(Value::from);
                signed
                    .or_else(|_| u64::try_from(number).map(Value::from))
                    .map_err(|e| e.to_string())
            }
            Self::Number => match &value {
                Value::Number(_) => Ok(value),
                Value::String(digits) => digits
                    .parse::<f64>()
                    .ok()
                    .and_then(serde_json::Number::from_f64)
                    .map(Value::Number)
                    .ok_or_else(|| unexpected("a number", &value)),
                other => Err(unexpected("a number", other)),
            },
            _ => {
                boolean(&value).map(Value::Bool).ok_or_else(|| unexpected("true or false", &value))
            }
        }
    }
}

/// Reads named fields. `null` is the same as no field.
fn read_fields(
    fields: &BTreeMap<String, Shape>,
    given: Map<String, Value>,
    path: &Path<'_>,
    problems: &mut Vec<FieldError>,
) -> Map<String, Value> {
    let mut read = Map::new();
    for (key, value) in given {
        let Some((name, shape)) = find_field(fields, &key) else {
            problems.push(FieldError::new(&path.field(&key), unknown_field(fields, &key)));
            continue;
        };
        if value.is_null() {
            continue;
        }
        if read.contains_key(name) {
            let reason = format!("the same field as {name}, which is there too");
            problems.push(FieldError::new(&path.field(&key), reason));
            continue;
        }
        let value = shape.read(value, &path.field(&key), problems);
        read.insert(name.to_owned(), value);
    }
    read
}

/// The field of that name, or of its protobuf spelling (`mirror_percent`).
fn find_field<'a>(fields: &'a BTreeMap<String, Shape>, key: &str) -> Option<(&'a str, &'a Shape)> {
    let found = fields.get_key_value(key).or_else(|| {
        let camel = key.contains('_').then(|| camel_case(key))?;
        fields.get_key_value(&camel)
    });
    found.map(|(name, shape)| (name.as_str(), shape))
}

fn camel_case(snake: &str) -> String {
    let mut camel = String::with_capacity(snake.len());
    let mut upper = false;
    for c in snake.chars() {
        if c == '_' {
            upper = true;
        } else {
            camel.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    camel
}

fn unknown_field(fields: &BTreeMap<String, Shape>, key: &str) -> String {
    let lower = key.to_ascii_lowercase();
    let near = fields
        .keys()
        .map(|name| (distance(&lower, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance * 3 <= name.len())
        .min();
    match near {
        Some((_, name)) => format!("unknown field; did you mean {name}?"),
        None => "unknown field".into(),
    }
}

/// How many letters differ (Levenshtein). Long texts are not near to anything.
fn distance(a: &str, b: &str) -> usize {
    if a.len().max(b.len()) > 64 {
        return usize::MAX / 3;
    }
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

fn check_fields(
    read: &Map<String, Value>,
    required: &[String],
    one_of: &[Vec<String>],
    path: &Path<'_>,
    problems: &mut Vec<FieldError>,
) {
    for name in required.iter().filter(|name| !read.contains_key(*name)) {
        problems.push(FieldError::new(&path.field(name), "is required"));
    }
    for group in one_of {
        if group.iter().filter(|name| read.contains_key(*name)).count() > 1 {
            let reason = format!("only one of {} can be set", group.join(", "));
            problems.push(FieldError::new(path, reason));
        }
    }
}

fn read_map(
    values: &Shape,
    given: Map<String, Value>,
    ports: bool,
    path: &Path<'_>,
    problems: &mut Vec<FieldError>,
) -> Value {
    let mut read = Map::new();
    for (key, value) in given {
        if ports && !matches!(key.parse::<u16>(), Ok(1..)) {
            problems.push(FieldError::new(&path.key(&key), "a port must be from 1 to 65535"));
        }
        let value = values.read(value, &path.key(&key), problems);
        read.insert(key, value);
    }
    Value::Object(read)
}

fn note(problems: &mut Vec<FieldError>, path: &Path<'_>, problem: Option<String>) {
    problems.extend(problem.map(|reason| FieldError::new(path, reason)));
}

fn below(count: usize, least: usize) -> Option<String> {
    (count < least).then(|| "must not be empty: leave it out, or say at least one".into())
}

fn above(count: usize, most: usize, what: &str) -> Option<String> {
    (count > most).then(|| format!("has {count} {what}, more than {most}"))
}

fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(_) | Value::Bool(_) => {
            Err(format!("{}; put it in quotes", unexpected("a string", &value)))
        }
        other => Err(unexpected("a string", &other)),
    }
}

fn choice(names: &[String], value: &Value) -> Result<Value, String> {
    let name = match value {
        Value::String(name) => names.iter().find(|known| *known == name),
        Value::Number(number) => {
            number.as_u64().and_then(|n| usize::try_from(n).ok()).and_then(|n| names.get(n))
        }
        other => return Err(unexpected("a name", other)),
    };
    if let Some(name) = name {
        return Ok(Value::String(name.clone()));
    }
    Err(format!("unknown value {value}; expected one of {}", names.join(", ")))
}

/// True or false; also the words of YAML 1.1, which Kubernetes knows.
fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(word) => match word.as_str() {
            "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
            "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A whole number, as a number or as a string; `2.0` is one too.
fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from))
            .or_else(|| number.as_f64().and_then(whole_float)),
        Value::String(digits) => digits.parse::<i64>().ok().map(i128::from),
        _ => None,
    }
}

fn whole_float(number: f64) -> Option<i128> {
    /// Up to here every whole number has a float of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation)]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i128)
}

fn to_size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn unexpected(expected: &str, value: &Value) -> String {
    let found = match value {
        Value::Null => "nothing".into(),
        Value::Bool(flag) => format!("{flag}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => {
            let short: String = text.chars().take(40).collect();
            format!("the string {short:?}")
        }
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    };
    format!("expected {expected}, found {found}")
}

#[cfg(test)]
mod tests;
