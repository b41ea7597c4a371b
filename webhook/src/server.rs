//! The webhooks over HTTP. TLS is the caller's.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State as Extract},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    config::InjectConfig,
    decision::Skip,
    inject::{self, Outcome},
    json as objects,
    metrics::Metrics,
    patch,
    review::{Answer, Request, Review},
    validate::{self, Judgement},
};

/// The API server's requests hold an object and what it was before, each of at most 3 MiB.
const MAX_BODY: usize = 8 << 20;

/// What the webhooks need to answer.
#[derive(Clone)]
pub struct State {
    config: watch::Receiver<Arc<InjectConfig>>,
    metrics: Metrics,
}

impl State {
    /// Follows a configuration, and counts in a registry.
    pub fn new(config: watch::Receiver<Arc<InjectConfig>>, registry: &mut Registry) -> Self {
        Self { config, metrics: Metrics::register(registry) }
    }

    fn config(&self) -> Arc<InjectConfig> {
        self.config.borrow().clone()
    }
}

/// Serves `/inject`, `/validate` and `/healthz/selftest`.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/inject", post(inject_pod))
        // Istio's webhook names cluster and network in the path; both are known.
        .route("/inject/{*rest}", post(inject_pod))
        .route("/validate", post(validate_resource))
        .route("/healthz/selftest", get(selftest))
        .route("/ready", get(async || StatusCode::OK))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(state)
}

async fn inject_pod(Extract(state): Extract<State>, headers: HeaderMap, body: Bytes) -> Response {
    let metrics = &state.metrics;
    metrics.requests.inc();
    let review = match read(&headers, &body) {
        Ok(review) => review,
        Err(response) => {
            metrics.failures.inc();
            return *response;
        }
    };
    let answer = match injection(&review.request, &state.config()) {
        Ok(Injection::Injected(answer)) => {
            metrics.successes.inc();
            answer
        }
        Ok(Injection::Skipped(skip)) => {
            metrics.skips.inc();
            tracing::debug!(pod = label(&review.request), reason = %skip, "pod gets no proxy");
            Answer::default()
        }
        Err(reason) => {
            metrics.failures.inc();
            tracing::warn!(pod = label(&review.request), reason, "pod refused");
            Answer { denied: Some(reason), ..Answer::default() }
        }
    };
    axum::Json(review.answer(answer)).into_response()
}

enum Injection {
    Injected(Answer),
    Skipped(Skip),
}

/// The answer to a request for injection, or why the pod is refused.
fn injection(request: &Request, config: &InjectConfig) -> Result<Injection, String> {
    let sub_resource = request.sub_resource.as_deref().unwrap_or_default();
    let is_pod = request.resource.group.is_empty()
        && (request.resource.resource == "pods" || request.kind.kind == "Pod")
        && sub_resource.is_empty();
    if !is_pod || !matches!(request.operation.as_str(), "CREATE" | "") {
        return Ok(Injection::Injected(Answer {
            warnings: vec!["only pods that are created can get a proxy".to_owned()],
            ..Answer::default()
        }));
    }
    let namespace = request
        .namespace
        .as_deref()
        .filter(|namespace| !namespace.is_empty())
        .or_else(|| request.object.get("metadata").and_then(|m| objects::text(m, "namespace")))
        .unwrap_or(weft_crds::DEFAULT_NAMESPACE);
    match inject::inject(request.object.clone(), namespace, None, config) {
        Ok(Outcome::Injected(injected)) => Ok(Injection::Injected(Answer {
            denied: None,
            patch: patch::diff(&request.object, &injected.pod),
            warnings: injected.warnings,
        })),
        Ok(Outcome::Skipped(skip)) => Ok(Injection::Skipped(skip)),
        Err(error) => Err(format!("pod {}: {error}", label(request))),
    }
}

/// Namespace and name, for people.
fn label(request: &Request) -> String {
    let metadata = request.object.get("metadata").unwrap_or(&Value::Null);
    let name = objects::text(metadata, "name").or(objects::text(metadata, "generateName"));
    let namespace = request.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{}", name.unwrap_or("(no name)"))
}

async fn validate_resource(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let review = match read(&headers, &body) {
        Ok(review) => review,
        Err(response) => {
            state.metrics.http_errors.inc();
            return *response;
        }
    };
    let judgement = validate::judge(&review.request);
    match &judgement {
        Judgement::Waved(_) => {}
        Judgement::Accepted { .. } => state.metrics.passed(&review.request.resource),
        Judgement::Refused { message, reason } => {
            state.metrics.failed(&review.request.resource, reason);
            tracing::info!(message, "resource refused");
        }
    }
    axum::Json(review.answer(judgement.into_answer())).into_response()
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Review, Box<Response>> {
    let refuse = |status, reason: String| {
        tracing::warn!(reason, "request refused");
        Box::new((status, format!("{reason}\n")).into_response())
    };
    let content = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let media = content.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        let reason = format!("content type {media:?} is not application/json");
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    }
    Review::read(body).map_err(|error| refuse(StatusCode::BAD_REQUEST, error.to_string()))
}

/// Takes a pod through everything that a real one goes through.
async fn selftest(Extract(state): Extract<State>) -> Response {
    match check(&state.config()) {
        Ok(()) => (StatusCode::OK, "a pod was injected\n").into_response(),
        Err(reason) => {
            tracing::error!(reason, "self-test failed");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")).into_response()
        }
    }
}

fn check(config: &InjectConfig) -> Result<(), String> {
    let question = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "selftest",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "selftest",
            "operation": "CREATE",
            "object": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "generateName": "selftest-",
                    // Whatever the policy is.
                    "labels": {"sidecar.istio.io/inject": "true"},
                },
                "spec": {"containers": [{"name": "app", "image": "app"}]},
            },
        },
    });
    let review =
        Review::read(question.to_string().as_bytes()).map_err(|error| error.to_string())?;
    let answer = match injection(&review.request, config)? {
        Injection::Injected(answer) => answer,
        Injection::Skipped(skip) => return Err(format!("the pod got no proxy: {skip}")),
    };
    let proxy = |container: &Value| objects::name(container) == inject::PROXY;
    let has_proxy = answer.patch.iter().any(|operation| {
        operation.get("value").and_then(Value::as_array).is_some_and(|list| list.iter().any(proxy))
    });
    let response = review.answer(answer);
    if !has_proxy || response["response"]["patch"].as_str().is_none_or(str::is_empty) {
        return Err("the pod was let through without a proxy".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
