//! The text of a bootstrap: YAML or JSON, told apart by what is there.

use serde_json::Value;
use serde_saphyr::{alias_limits, budget, options};

/// Why a text is not a document.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It begins as JSON does, and is none.
    #[error("not JSON: {0}")]
    Json(String),
    /// It is not YAML, or is larger than anybody would write.
    #[error("not YAML: {0}")]
    Yaml(String),
}

/// Reads a text.
///
/// # Errors
/// See [`DocumentError`].
pub fn read(text: &str) -> Result<Value, DocumentError> {
    if text.trim_start().starts_with('{') {
        let json = serde_json::from_str(text);
        // A mapping of YAML may begin so, too: what is left out of quotes is no JSON.
        return match json {
            Ok(value) => Ok(value),
            Err(error) => yaml(text).map_err(|_| DocumentError::Json(error.to_string())),
        };
    }
    yaml(text)
}

/// Aliases are expanded, so a short text can stand for a very long one: what they add is limited.
fn yaml(text: &str) -> Result<Value, DocumentError> {
    let options = options! {
        budget: budget! {
            max_documents: 1,
            max_nodes: 10_000_000,
            max_events: 20_000_000,
            max_depth: 128,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: alias_limits! {
            max_total_replayed_events: 1_000_000,
            max_replay_stack_depth: 32,
        },
        // The reader knows the words of YAML 1.1 where a boolean is wanted.
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Option<Value>>(text, options)
        .map(Option::unwrap_or_default)
        .map_err(|error| DocumentError::Yaml(error.to_string()))
}
