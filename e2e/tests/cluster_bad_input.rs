//! Bad input on a real Kubernetes: what is refused says why, and what got in by another way changes nothing.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, ensure};
use http::StatusCode;
use k8s_openapi::{
    api::admissionregistration::v1::ValidatingWebhookConfiguration,
    apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement,
};
use kube::{Api, api::PostParams};
use weft_e2e::kube::{Cluster, Injection, until};

/// What the API server says of YAML that it must not take.
async fn refusal(cluster: &Cluster, namespace: &str, yaml: &str) -> String {
    match cluster.apply(namespace, yaml).await {
        Ok(()) => panic!("was taken:\n{yaml}"),
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_resources_and_annotations_are_refused_with_reasons() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("refused", Injection::Istio).await.unwrap();
    let cases = [
        (
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: broken}
spec:
  hosts: [payment-service]
  http:
  - route:
    - {destination: {host: payment-service}, weight: -5}
    - {destination: {host: payment-service}, weight: 50}
",
            vec!["weight"],
        ),
        (
            "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: broken}
spec:
  host: ''
",
            vec!["DestinationRule", "host"],
        ),
        (
            "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: broken}
spec:
  rules:
  - to: [{operation: {ports: ['http']}}]
",
            vec!["AuthorizationPolicy", "ports"],
        ),
    ];
    for (yaml, expected) in cases {
        let said = refusal(&cluster, namespace.name(), yaml).await;
        for part in expected {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
    }

    let pod = |annotation: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: broken, annotations: {{{annotation}}}}}
spec:
  containers:
  - {{name: app, image: docker.io/weft/samples:dev, args: [load]}}
"
        )
    };
    for (key, value) in [
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/99"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "http"),
        ("sidecar.istio.io/proxyCPU", "lots"),
    ] {
        let said = refusal(&cluster, namespace.name(), &pod(&format!("{key}: '{value}'"))).await;
        assert!(said.contains(key) && said.contains(value), "{key} or {value} is not in: {said}");
    }
}

/// Takes namespaces with a label of the test's own out of the validation, as if its webhook were down for them. It
/// says nothing about any other namespace, so it may stay.
async fn without_validation(cluster: &Cluster, label: &str) {
    let api: Api<ValidatingWebhookConfiguration> = cluster.cluster_api();
    until("the validator should overlook a label", async || {
        let mut configuration = api.get("weft-validator").await?;
        for webhook in configuration.webhooks.iter_mut().flatten() {
            let selector = webhook.namespace_selector.get_or_insert_default();
            let expressions = selector.match_expressions.get_or_insert_default();
            if expressions.iter().all(|expression| expression.key != label) {
                expressions.push(LabelSelectorRequirement {
                    key: label.to_owned(),
                    operator: "DoesNotExist".to_owned(),
                    values: None,
                });
            }
        }
        // What somebody else wrote meanwhile is a conflict, and asked again.
        api.replace("weft-validator", &PostParams::default(), &configuration).await?;
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_in_without_the_webhook_gets_a_status_and_changes_nothing() {
    const LABEL: &str = "weft-e2e/unvalidated";
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("status", Injection::Istio).await.unwrap();
    namespace.label(LABEL, Some("true")).await.unwrap();
    without_validation(&cluster, LABEL).await;
    namespace.deploy(&["payment-service", "load"]).await.unwrap();
    let load = namespace.pod("app=load").await.unwrap();
    let client = load.client().await.unwrap();
    let works = async || {
        let reply = client.get("http://payment-service/").await?;
        ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
        Ok(())
    };
    until("the service should answer", works).await.unwrap();

    let virtual_service = |name: &str, regex: &str, fault: u32| {
        format!(
            "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  hosts: [payment-service]
  http:
  - match: [{{uri: {{regex: '{regex}'}}}}]
    fault: {{abort: {{httpStatus: {fault}, percentage: {{value: 100}}}}}}
    route: [{{destination: {{host: payment-service}}}}]
  - fault: {{abort: {{httpStatus: {fault}, percentage: {{value: 100}}}}}}
    route: [{{destination: {{host: payment-service}}}}]
"
        )
    };
    let accepted = async |name: &str, expected: &str| {
        until(&format!("Accepted of {name} should be {expected}"), async || {
            let kind = ("networking.istio.io/v1", "VirtualService");
            let conditions = namespace.conditions(kind.0, kind.1, name).await?;
            let condition = conditions.into_iter().find(|c| c["type"] == "Accepted");
            let condition = condition.context("no condition Accepted")?;
            ensure!(condition["status"] == expected, "{condition}");
            Ok(condition)
        })
        .await
    };
    // The API server learns of the changed webhook when it does.
    until("the bad one should get in", async || {
        namespace.apply(&virtual_service("bad", "[", 500)).await
    })
    .await
    .unwrap();
    let refused = accepted("bad", "False").await.unwrap();
    let message = refused["message"].as_str().unwrap_or_default();
    assert!(message.contains("spec.http[0].match[0].uri"), "{refused}");
    works().await.unwrap();

    // The same, but valid: that is what it would have done.
    namespace.apply(&virtual_service("bad", "/.*", 418)).await.unwrap();
    accepted("bad", "True").await.unwrap();
    until("the good one should be in effect", async || {
        let reply = client.get("http://payment-service/").await?;
        ensure!(reply.status == StatusCode::IM_A_TEAPOT, "{}", reply.status);
        Ok(())
    })
    .await
    .unwrap();
}
