//! Requests go on while pods, proxies and the control plane come and go. The load is made inside the cluster, so it
//! does not stop when the API server does.
//!
//! One test: what it ends is everybody's.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::StatusCode;
use k8s_openapi::api::apps::v1::Deployment;
use weft_e2e::kube::{
    Cluster, Injection, Namespace, Node, Pod, SYSTEM, helm, node::container_status, until,
    until_for,
};
use weft_e2e::load::Report;

const PROXY: &str = "istio-proxy";
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
    let Some(node) = Node::of_ours() else {
        #[allow(clippy::print_stderr)] // The one way to say so.
        {
            eprintln!("SKIPPED: what needs the node: the cluster is not one of ours");
        }
        return;
    };
    proxies_of_running_pods(&node, &namespace, &load).await;
    api_server_down(&node, &namespace, &load).await;
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
    assert_few_failures(&load.end_load().await.unwrap());
}

/// A request at a time is with each pod, give or take what one pod holds when the machine is busy.
fn assert_few_failures(report: &Report) {
    assert!(report.failed() * 20 <= report.sent, "{:?} of {}", report.failures, report.sent);
}

/// The proxy alone ends, and the kubelet starts it again: told to, it loses no request; killed, it takes those along
/// that are with it.
async fn proxies_of_running_pods(node: &Node, namespace: &Namespace, load: &Pod) {
    let names: Vec<String> =
        namespace.pods("app=user-service").await.unwrap().iter().map(Pod::name).collect();
    assert!(names.len() >= 2, "{names:?}: others must be there to be asked");
    for (name, signal) in names.iter().zip(["TERM", "KILL"]) {
        load.start_load(USERS, 50).await.unwrap();
        let restarts = async || -> anyhow::Result<i32> {
            let pod = namespace.cluster().pod(namespace.name(), name).await?;
            let status = container_status(pod.object(), PROXY).context("no proxy")?;
            ensure!(status.ready, "the proxy is not ready");
            Ok(status.restart_count)
        };
        let before = until("the proxy should be ready", restarts).await.unwrap();
        let pod = namespace.cluster().pod(namespace.name(), name).await.unwrap();
        node.signal(&pod, PROXY, signal).unwrap();
        until(&format!("the proxy of {name} should be started again"), async || {
            let now = restarts().await?;
            ensure!(now > before, "{now} restarts");
            Ok(())
        })
        .await
        .unwrap();
        namespace.rolled_out().await.unwrap();
        let report = load.end_load().await.unwrap();
        match signal {
            "TERM" => report.assert_no_failure(),
            _ => assert_few_failures(&report),
        }
        // The new proxy is used: it is asked for as the old one was.
        until("the new proxy should be asked", async || {
            let client = load.client().await?;
            let reply = client.get(USERS).await?;
            ensure!(reply.answer()?.pod == *name, "another pod answers");
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// The API server does not answer for a minute: requests go on, and afterwards changes come through.
async fn api_server_down(node: &Node, namespace: &Namespace, load: &Pod) {
    let api_server = |order: &str| node.order(&[order, "kube-apiserver"]).unwrap();
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
