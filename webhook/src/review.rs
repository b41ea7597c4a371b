//! Kubernetes' AdmissionReview, versions v1 and v1beta1: a question in, an answer out.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Kubernetes cuts warnings off beyond this many bytes.
const LONGEST_WARNING: usize = 256;

/// Why a text is no question that could be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReviewError {
    #[error("not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not an AdmissionReview: it is {api_version:?} {kind:?}")]
    Kind { api_version: String, kind: String },
    #[error("the AdmissionReview has no request")]
    NoRequest,
}

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) kind: GroupVersionKind,
    #[serde(default)]
    pub(crate) resource: GroupVersionResource,
    #[serde(default)]
    pub(crate) sub_resource: Option<String>,
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    #[serde(default)]
    pub(crate) operation: String,
    #[serde(default)]
    pub(crate) object: Value,
    #[serde(default)]
    pub(crate) old_object: Value,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct GroupVersionKind {
    #[serde(default)]
    pub(crate) kind: String,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct GroupVersionResource {
    #[serde(default)]
    pub(crate) group: String,
    #[serde(default)]
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) resource: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

/// A question with the version that its answer must have.
#[derive(Debug)]
pub(crate) struct Review {
    pub(crate) api_version: String,
    pub(crate) request: Request,
}

/// What is answered.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Answer {
    /// Why it is denied; `None` allows.
    pub(crate) denied: Option<String>,
    /// Changes to the object.
    pub(crate) patch: Vec<Value>,
    /// What `kubectl` shows the author.
    pub(crate) warnings: Vec<String>,
}

impl Review {
    pub(crate) fn read(body: &[u8]) -> Result<Self, ReviewError> {
        let Envelope { api_version, kind, request } = serde_json::from_slice(body)?;
        let known =
            matches!(api_version.as_str(), "admission.k8s.io/v1" | "admission.k8s.io/v1beta1");
        if !known || kind != "AdmissionReview" {
            return Err(ReviewError::Kind { api_version, kind });
        }
        let request = request.ok_or(ReviewError::NoRequest)?;
        Ok(Self { api_version, request })
    }

    /// The answer as Kubernetes reads it.
    pub(crate) fn answer(&self, answer: Answer) -> Value {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Response<'a> {
            uid: &'a str,
            allowed: bool,
            #[serde(skip_serializing_if = "Option::is_none")]
            status: Option<Value>,
            #[serde(skip_serializing_if = "Option::is_none")]
            patch_type: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            patch: Option<String>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            warnings: Vec<String>,
        }
        let Answer { denied, patch, warnings } = answer;
        let patch = (denied.is_none() && !patch.is_empty())
            .then(|| BASE64_STANDARD.encode(Value::Array(patch).to_string()));
        let response = Response {
            uid: &self.request.uid,
            allowed: denied.is_none(),
            status: denied.map(|message| {
                json!({"status": "Failure", "reason": "Invalid", "code": 422, "message": message})
            }),
            patch_type: patch.as_ref().map(|_| "JSONPatch"),
            patch,
            warnings: warnings.into_iter().map(cut).collect(),
        };
        json!({
            "apiVersion": self.api_version,
            "kind": "AdmissionReview",
            "response": response,
        })
    }
}

fn cut(mut warning: String) -> String {
    if warning.len() > LONGEST_WARNING {
        let mut end = LONGEST_WARNING - "...".len();
        while !warning.is_char_boundary(end) {
            end -= 1;
        }
        warning.truncate(end);
        warning.push_str("...");
    }
    warning
}
