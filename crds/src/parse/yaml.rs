//! YAML texts to JSON values, within bounds.

use serde_json::Value;
use serde_saphyr::{alias_limits, budget, options};

use super::ParseError;

/// The documents of a text; a document without anything is `null`.
///
/// Aliases are expanded, so a short text can stand for a very long one: what they add is limited, and so are depth and
/// size. The limits are far beyond what a folder of resources holds.
pub(super) fn documents(text: &str) -> Result<Vec<Value>, ParseError> {
    let options = options! {
        budget: budget! {
            max_documents: 200_000,
            max_nodes: 10_000_000,
            max_events: 20_000_000,
            max_depth: 64,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
        },
        // `no` is text where text is wanted; the boolean fields of our kinds know the words all the same.
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let location = error.location();
        let (line, column) = location.map_or((0, 0), |l| (l.line(), l.column()));
        ParseError::Yaml { reason: error.to_string(), line, column }
    })
}
