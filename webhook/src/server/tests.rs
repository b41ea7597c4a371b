#![allow(clippy::needless_pass_by_value)] // values are written where they are passed

use axum::{body::Body, http};
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::BodyExt;
use prometheus_client::encoding::text::encode;
use tower::ServiceExt;

use super::*;

/// The webhooks as the API server meets them.
struct Test {
    router: Router,
    registry: Registry,
    config: watch::Sender<Arc<InjectConfig>>,
}

impl Default for Test {
    fn default() -> Self {
        let (config, receiver) = watch::channel(Arc::new(InjectConfig::default()));
        let mut registry = Registry::default();
        let state = State::new(receiver, &mut registry);
        Self { router: router(state), registry, config }
    }
}

impl Test {
    async fn send(&self, request: http::Request<Body>) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn post(&self, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
        let request = http::Request::post(path).header(CONTENT_TYPE, "application/json");
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn review(&self, path: &str, request: Value) -> Value {
        let body = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request,
        });
        let (status, body) = self.post(path, body.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], request["uid"]);
        answer["response"].clone()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }
}

fn creation(object: Value) -> Value {
    json!({
        "uid": "u-1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "shop",
        "operation": "CREATE",
        "dryRun": true,
        "object": object,
        "oldObject": null,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    })
}

fn pod(metadata: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "containers": [{"name": "app", "image": "app"}],
            "aFieldOfTheFuture": {"kept": true},
        },
    })
}

fn patched(object: &Value, response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut object = object.clone();
    json_patch::patch(&mut object, &patch).unwrap();
    object
}

#[tokio::test]
async fn a_pod_gets_its_proxy_as_a_patch() {
    let test = Test::default();
    let object = pod(json!({"generateName": "web-"}));
    for path in ["/inject", "/inject/cluster/c/net/n"] {
        let response = test.review(path, creation(object.clone())).await;
        assert_eq!(response["allowed"], true);
        let patched = patched(&object, &response);
        let names = |key: &str| -> Vec<&str> {
            let list = patched["spec"][key].as_array().unwrap();
            list.iter().map(|container| container["name"].as_str().unwrap()).collect()
        };
        assert_eq!(names("initContainers"), ["istio-init", "istio-proxy"]);
        assert_eq!(names("containers"), ["app"]);
        assert_eq!(patched["spec"]["aFieldOfTheFuture"], json!({"kept": true}));
        let Outcome::Injected(expected) =
            inject::inject(object.clone(), "shop", None, &InjectConfig::default()).unwrap()
        else {
            panic!("it is injected");
        };
        assert_eq!(patched, expected.pod);
    }
    assert!(test.metrics().contains("sidecar_injection_requests_total 2"), "{}", test.metrics());
    assert!(test.metrics().contains("sidecar_injection_success_total 2"));
}

#[tokio::test]
async fn the_older_version_of_the_question_is_answered_in_kind() {
    let test = Test::default();
    let body = json!({
        "apiVersion": "admission.k8s.io/v1beta1",
        "kind": "AdmissionReview",
        "request": creation(pod(json!({"name": "a"}))),
    });
    let (status, body) = test.post("/inject", body.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1beta1");
    assert_eq!(answer["response"]["allowed"], true);
}

#[tokio::test]
async fn a_pod_without_a_proxy_passes_untouched() {
    let test = Test::default();
    let object = pod(json!({"name": "a", "labels": {"sidecar.istio.io/inject": "false"}}));
    let response = test.review("/inject", creation(object)).await;
    assert_eq!(response, json!({"uid": "u-1", "allowed": true}));
    assert!(test.metrics().contains("sidecar_injection_skip_total 1"));
}

#[tokio::test]
async fn annotations_that_cannot_be_used_refuse_the_pod() {
    let test = Test::default();
    let object = pod(json!({"name": "a", "annotations": {
        "traffic.sidecar.istio.io/excludeOutboundPorts": "http",
        "sidecar.istio.io/proxyCPU": "fast",
    }}));
    let response = test.review("/inject", creation(object)).await;
    assert_eq!(response["allowed"], false);
    let message = response["status"]["message"].as_str().unwrap();
    assert_eq!(
        message,
        "pod shop/a: annotation sidecar.istio.io/proxyCPU: \"fast\" is not a quantity such as 100m, \
         1.5 or 128Mi; annotation traffic.sidecar.istio.io/excludeOutboundPorts: \"http\" is not a \
         port from 1 to 65535"
    );
    assert!(response.get("patch").is_none());
    assert!(test.metrics().contains("sidecar_injection_failure_total 1"));
    for broken in [
        json!({"metadata": {"name": "a"}, "spec": {"containers": "none"}}),
        json!({"metadata": {"name": "a"}}),
        json!("text"),
        Value::Null,
        pod(json!({"name": "a", "annotations": {"sidecar.istio.io/status": "injected"}})),
    ] {
        let response = test.review("/inject", creation(broken.clone())).await;
        assert_eq!(response["allowed"], false, "{broken}");
        assert!(response["status"]["message"].is_string());
    }
}

#[tokio::test]
async fn warnings_reach_the_author_and_long_ones_are_cut() {
    let test = Test::default();
    let object = pod(json!({"name": "a", "annotations": {
        "sidecar.istio.io/statsCompression": "true",
        "proxy.istio.io/config": format!("{{\"{}\": 1}}", "ä".repeat(300)),
    }}));
    let response = test.review("/inject", creation(object)).await;
    let warnings = response["warnings"].as_array().unwrap();
    assert_eq!(warnings[0], "sidecar.istio.io/statsCompression: has no effect in Weft");
    let long = warnings[1].as_str().unwrap();
    assert!(long.len() <= 256 && long.ends_with("..."), "{long}");
}

#[tokio::test]
async fn the_configuration_in_effect_is_the_latest() {
    let test = Test::default();
    let config =
        InjectConfig { image: "registry.example/proxy:9".into(), ..InjectConfig::default() };
    test.config.send(Arc::new(config)).unwrap();
    let object = pod(json!({"name": "a"}));
    let response = test.review("/inject", creation(object.clone())).await;
    let patched = patched(&object, &response);
    assert_eq!(patched["spec"]["initContainers"][1]["image"], "registry.example/proxy:9");
}

#[tokio::test]
async fn resources_are_judged_and_counted() {
    let test = Test::default();
    let resource = |spec: Value| {
        json!({
            "uid": "u-2",
            "resource": {
                "group": "security.istio.io", "version": "v1", "resource": "authorizationpolicies",
            },
            "namespace": "shop",
            "operation": "CREATE",
            "object": {
                "apiVersion": "security.istio.io/v1",
                "kind": "AuthorizationPolicy",
                "metadata": {"name": "deny"},
                "spec": spec,
            },
        })
    };
    let response =
        test.review("/validate", resource(json!({"action": "DENY", "rules": [{}]}))).await;
    assert_eq!(response["allowed"], true, "{response}");
    let response = test.review("/validate", resource(json!({"action": "REFUSE"}))).await;
    assert_eq!(response["allowed"], false);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("AuthorizationPolicy shop/deny: spec.action: "), "{message}");
    let mut unknown = resource(json!({"action": "DENY", "rules": [{}]}));
    unknown["resource"]["version"] = json!("v1-by-chance-1");
    assert_eq!(test.review("/validate", unknown).await["allowed"], true);
    let metrics = test.metrics();
    assert!(!metrics.contains("by-chance"), "callers do not make labels: {metrics}");
    let labels = "group=\"security.istio.io\",version=\"v1\",resource=\"authorizationpolicies\"";
    assert!(metrics.contains(&format!("galley_validation_passed{{{labels}}} 1")), "{metrics}");
    assert!(
        metrics
            .contains(&format!("galley_validation_failed{{{labels},reason=\"invalid_shape\"}} 1"))
    );
}

#[tokio::test]
async fn what_is_no_question_is_a_client_error() {
    let test = Test::default();
    for path in ["/inject", "/validate"] {
        for (body, expected) in [
            ("", "not an AdmissionReview: EOF"),
            ("{", "not an AdmissionReview: EOF"),
            ("[]", "not an AdmissionReview: "),
            ("{}", "not an AdmissionReview: it is \"\" \"\""),
            (
                "{\"apiVersion\":\"admission.k8s.io/v2\",\"kind\":\"AdmissionReview\"}",
                "not an AdmissionReview: it is \"admission.k8s.io/v2\"",
            ),
            (
                "{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\"}",
                "the AdmissionReview has no request",
            ),
        ] {
            let (status, text) = test.post(path, body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {body:?}");
            assert!(text.starts_with(expected), "{text}");
        }
        let (status, _) = test.post(path, vec![b' '; MAX_BODY + 1]).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        let (status, _) = test.send(http::Request::post(path).body("{}".into()).unwrap()).await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let (status, _) = test.send(http::Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    }
    assert!(test.metrics().contains("galley_validation_http_error 7"), "{}", test.metrics());
}

#[tokio::test]
async fn the_self_test_says_whether_pods_get_proxies() {
    let test = Test::default();
    let get = || http::Request::get("/healthz/selftest").body(Body::empty()).unwrap();
    assert_eq!(test.send(get()).await, (StatusCode::OK, "a pod was injected\n".into()));
    let broken =
        InjectConfig { ignored_namespaces: vec!["selftest".into()], ..InjectConfig::default() };
    test.config.send(Arc::new(broken)).unwrap();
    let (status, reason) = test.send(get()).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(reason, "the pod got no proxy: nothing is injected in this namespace\n");
    assert!(test.metrics().contains("sidecar_injection_requests_total 0"));
}
