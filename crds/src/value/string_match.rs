//! How a text is compared.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};

/// How a text is compared; case counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StringMatch {
    /// Nothing was said (an empty object): for headers and query parameters that the name is there, whatever its value.
    #[default]
    Unset,
    /// The whole text.
    Exact(String),
    /// The beginning of the text.
    Prefix(String),
    /// A regular expression (RE2) for the whole text.
    Regex(String),
}

impl StringMatch {
    /// Whether it is the regular expression or the absence of one that matches any present value.
    pub fn is_presence(&self) -> bool {
        match self {
            Self::Unset => true,
            Self::Regex(regex) => regex == "*",
            Self::Exact(_) | Self::Prefix(_) => false,
        }
    }
}

impl Serialize for StringMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (key, value) = match self {
            Self::Unset => return serializer.serialize_map(Some(0))?.end(),
            Self::Exact(value) => ("exact", value),
            Self::Prefix(value) => ("prefix", value),
            Self::Regex(value) => ("regex", value),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(key, value)?;
        map.end()
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Fields {
    exact: Option<String>,
    prefix: Option<String>,
    regex: Option<String>,
}

impl<'de> Deserialize<'de> for StringMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Option::<Fields>::deserialize(deserializer)?.unwrap_or_default();
        match (fields.exact, fields.prefix, fields.regex) {
            (None, None, None) => Ok(Self::Unset),
            (Some(exact), None, None) => Ok(Self::Exact(exact)),
            (None, Some(prefix), None) => Ok(Self::Prefix(prefix)),
            (None, None, Some(regex)) => Ok(Self::Regex(regex)),
            _ => Err(de::Error::custom("only one of exact, prefix and regex can be set")),
        }
    }
}

impl JsonSchema for StringMatch {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "StringMatch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "How a text is compared; at most one of the fields. Case counts.",
            "properties": {
                "exact": { "type": "string", "description": "The whole text." },
                "prefix": { "type": "string", "description": "The beginning of the text." },
                "regex": {
                    "type": "string",
                    "description": "A regular expression (RE2) for the whole text.",
                },
            },
            "x-weft-one-of": [["exact", "prefix", "regex"]],
        })
    }
}
