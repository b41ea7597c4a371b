//! What every role answers over HTTP: who it is, the request as it saw it, and what its upstreams said.

use std::collections::BTreeMap;

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The role that answered.
    pub role: String,
    /// Its version, such as `v1`.
    pub version: String,
    /// The pod that answered.
    pub pod: String,
    /// The request's method.
    pub method: String,
    /// The request's path and query.
    pub path: String,
    /// The request's headers as they arrived; several values of a name are joined with `, `.
    pub headers: BTreeMap<String, String>,
    /// Length of the request's body.
    pub body_bytes: usize,
    /// The address of the peer of the connection that carried the request.
    pub connection: String,
    /// Calls made to answer this request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Upstream>,
    /// Padding that the request asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub padding: String,
}

/// The outcome of a call to another service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// What was called, such as `GET http://user-service/users/1`.
    pub call: String,
    /// The HTTP status; absent when there was no answer.
    pub status: Option<u16>,
    /// Whether the call did what it should.
    pub ok: bool,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The body of the answer.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
}

/// Headers as a map that can be compared and printed.
pub fn readable(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut map = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        map.entry(name.to_string())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    map
}
