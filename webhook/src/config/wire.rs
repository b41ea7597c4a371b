//! Spellings that people use in YAML, where the configuration comes from.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::NativeSidecars;

/// A text, or a number that stands for one: `25` in a list of ports, `1` as an amount of processors.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Number(serde_json::Number),
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        match text {
            Text::Text(text) => text,
            Text::Number(number) => number.to_string(),
        }
    }
}

pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Text::deserialize(deserializer).map(Into::into)
}

pub(super) fn texts<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let texts = BTreeMap::<String, Text>::deserialize(deserializer)?;
    Ok(texts.into_iter().map(|(name, text)| (name, text.into())).collect())
}

/// The words for native sidecars, and YAML's booleans.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Native {
    Flag(bool),
    Word(Word),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Word {
    Auto,
    True,
    False,
}

impl From<Native> for NativeSidecars {
    fn from(wire: Native) -> Self {
        match wire {
            Native::Flag(true) | Native::Word(Word::True) => Self::Always,
            Native::Flag(false) | Native::Word(Word::False) => Self::Never,
            Native::Word(Word::Auto) => Self::Auto,
        }
    }
}

impl From<NativeSidecars> for Native {
    fn from(native: NativeSidecars) -> Self {
        match native {
            NativeSidecars::Auto => Self::Word(Word::Auto),
            NativeSidecars::Always => Self::Flag(true),
            NativeSidecars::Never => Self::Flag(false),
        }
    }
}
