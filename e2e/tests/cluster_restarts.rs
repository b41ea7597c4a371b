//! Requests go on while pods, proxies and the control plane come and go. The load is made inside the cluster, so it
//! does not stop when the API server does.
//!
//! One test: what it ends is everybody's.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::ensure;
use http::StatusCode;
use k8s_openapi::api::apps::v1::Deployment;
use weft_e2e::kube::{Cluster, Injection, Namespace, Pod, SYSTEM, helm, until, until_for};

const USERS: &str = "http://user-service/";

/// A VirtualService that marks every answer of the user service.
fn mark(value: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: mark}}
spec:
  hosts: [user-service]
  http:
  - headers: {{response: {{set: {{x-mark: '{value}'}}}}}}
    route: [{{destination: {{host: user-service}}}}]
"
    )
}

async fn marked(load: &Pod, value: &str) {
    let client = load.client().await.unwrap();
    until(&format!("answers should be marked {value}"), async || {
        let reply = client.get(USERS).await?;
        ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
        ensure!(reply.header("x-mark") == value, "{:?}", reply.header("x-mark"));
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_lose_no_request() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("restarts", Injection::Istio).await.unwrap();
    namespace.deploy(&["user-service", "load"]).await.unwrap();
    let load = namespace.pod("app=load").await.unwrap();
    namespace.apply(&mark("one")).await.unwrap();
    marked(&load, "one").await;

    rolling_restart_of_workloads(&namespace, &load).await;
    restart_of_the_operator(&cluster, &namespace, &load).await;
    pods_killed_hard(&namespace, &load).await;
    api_server_down(&namespace, &load).await;
}

async fn rolling_restart_of_workloads(namespace: &Namespace, load: &Pod) {
    load.start_load(USERS, 50).await.unwrap();
    namespace.restart("user-service").await.unwrap();
    let report = load.end_load().await.unwrap();
    report.assert_no_failure();
}

/// Every pod of the operator is replaced; meanwhile proxies go on, and afterwards they hear of changes again.
async fn restart_of_the_operator(cluster: &Cluster, namespace: &Namespace, load: &Pod) {
    load.start_load(USERS, 50).await.unwrap();
    let deployments = cluster.api::<Deployment>(SYSTEM);
    deployments.restart("weft-operator").await.unwrap();
    until_for(Duration::from_secs(240), "the operator should be replaced", async || {
        let deployment = deployments.get("weft-operator").await?;
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = deployment.status.clone().unwrap_or_default();
        ensure!(status.observed_generation == deployment.metadata.generation, "not seen");
        let there = [status.updated_replicas, status.available_replicas, status.replicas];
        ensure!(there == [Some(wanted); 3], "{there:?} of {wanted}");
        Ok(())
    })
    .await
    .unwrap();
    helm::takes_pods(cluster).await.unwrap();
    until("the new operator should take the change", async || namespace.apply(&mark("two")).await)
        .await
        .unwrap();
    marked(load, "two").await;
    load.end_load().await.unwrap().assert_no_failure();
}

/// Connections break without a word: what was being answered then may fail, what comes later may not.
async fn pods_killed_hard(namespace: &Namespace, load: &Pod) {
    load.start_load(USERS, 50).await.unwrap();
    let victims = namespace.pods("app=user-service").await.unwrap();
    victims[0].kill().await.unwrap();
    namespace.rolled_out().await.unwrap();
    let report = load.end_load().await.unwrap();
    // A request at a time is with each pod, give or take what one pod holds when the machine is busy.
    assert!(report.failed() * 20 <= report.sent, "{:?} of {}", report.failures, report.sent);
}

/// The API server does not answer for a minute: requests go on, and afterwards changes come through.
async fn api_server_down(namespace: &Namespace, load: &Pod) {
    let Ok(name) = std::env::var("WEFT_CLUSTER") else {
        #[allow(clippy::print_stderr)] // The one way to say so.
        {
            eprintln!(
                "SKIPPED: an API server that does not answer: the cluster is not one of ours"
            );
        }
        return;
    };
    let api_server = |order: &str| {
        let output = Command::new("weft-cluster")
            .args([order, "kube-apiserver", "--name", &name])
            .output()
            .expect("weft-cluster runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{order}: {said}");
    };
    load.start_load(USERS, 50).await.unwrap();
    api_server("pause");
    let start = Instant::now();
    // What happens in a minute is what is tested; nothing else is waited for.
    tokio::time::sleep(Duration::from_secs(60)).await;
    api_server("resume");
    assert!(start.elapsed() >= Duration::from_secs(60));
    until_for(Duration::from_secs(240), "changes should come through again", async || {
        namespace.apply(&mark("three")).await
    })
    .await
    .unwrap();
    let again = until("the pod should be reached again", async || {
        load.client().await?.get(USERS).await?;
        Ok(())
    });
    again.await.unwrap();
    marked(load, "three").await;
    load.end_load().await.unwrap().assert_no_failure();
}
