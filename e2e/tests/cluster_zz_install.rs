//! The installation as its owner changes it: upgrade, rollback and removal, under load. The last of the tests, since it
//! takes away what the others stand on.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use anyhow::{bail, ensure};
use http::StatusCode;
use k8s_openapi::api::{
    admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
    coordination::v1::Lease,
    core::v1::{ConfigMap, Secret},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{Api, api::ListParams};
use weft_e2e::kube::{Cluster, Injection, Namespace, SYSTEM, helm, until};

const USERS: &str = "http://user-service/";

async fn helm(arguments: &[&str]) -> anyhow::Result<String> {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        helm::helm(&arguments)
    })
    .await?
}

/// Nothing that the release or its operator made is left, but what belongs to users: definitions with resources.
async fn nothing_left(cluster: &Cluster, namespace: &Namespace) -> anyhow::Result<()> {
    let mut left = Vec::new();
    let note = |left: &mut Vec<String>, there: bool, what: &str| {
        if there {
            left.push(what.to_owned());
        }
    };
    let injector: Api<MutatingWebhookConfiguration> = cluster.cluster_api();
    note(&mut left, injector.get_opt("weft-sidecar-injector").await?.is_some(), "injector");
    let validator: Api<ValidatingWebhookConfiguration> = cluster.cluster_api();
    note(&mut left, validator.get_opt("weft-validator").await?.is_some(), "validator");
    let lease: Api<Lease> = cluster.api(SYSTEM);
    note(&mut left, lease.get_opt("weft-leader").await?.is_some(), "Lease");
    let secret: Api<Secret> = cluster.api(SYSTEM);
    note(&mut left, secret.get_opt("weft-ca-secret").await?.is_some(), "Secret");
    let root: Api<ConfigMap> = cluster.api(namespace.name());
    note(&mut left, root.get_opt("istio-ca-root-cert").await?.is_some(), "root ConfigMap");
    let ours = ListParams::default().labels("app.kubernetes.io/instance=weft");
    let roles: Api<ClusterRole> = cluster.cluster_api();
    note(&mut left, !roles.list(&ours).await?.items.is_empty(), "ClusterRoles");
    let bindings: Api<ClusterRoleBinding> = cluster.cluster_api();
    note(&mut left, !bindings.list(&ours).await?.items.is_empty(), "ClusterRoleBindings");
    if !left.is_empty() {
        bail!("left: {}", left.join(", "));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrade_rollback_and_removal_lose_no_request_and_leave_nothing() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("install", Injection::Istio).await.unwrap();
    namespace.deploy(&["user-service", "load"]).await.unwrap();
    let load = namespace.pod("app=load").await.unwrap();
    let client = load.client().await.unwrap();
    let answers = async || {
        let reply = client.get(USERS).await?;
        ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
        Ok(())
    };
    until("the service should answer", answers).await.unwrap();
    load.start_load(USERS, 50).await.unwrap();

    let more = ["--set", "operator.replicas=2", "--set", "operator.logLevel=debug"];
    tokio::task::spawn_blocking(move || helm::install(&more)).await.unwrap().unwrap();
    helm::takes_pods(&cluster).await.unwrap();
    namespace.restart("user-service").await.unwrap();
    for pod in namespace.pods("app=user-service").await.unwrap() {
        assert!(pod.is_meshed());
    }

    let rollback = ["rollback", helm::RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "5m"];
    helm(&rollback).await.unwrap();
    helm::takes_pods(&cluster).await.unwrap();
    namespace.restart("user-service").await.unwrap();

    // Pods that run go on with what they hold; new ones start without a proxy.
    helm(&["uninstall", helm::RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "5m"])
        .await
        .unwrap();
    until("nothing should be left", async || nothing_left(&cluster, &namespace).await)
        .await
        .unwrap();
    answers().await.unwrap();
    load.end_load().await.unwrap().assert_no_failure();
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  containers:
  - {name: app, image: docker.io/weft/samples:dev, imagePullPolicy: IfNotPresent, args: [load]}
";
    namespace.apply(pod).await.unwrap();
    assert!(!cluster.pod(namespace.name(), "late").await.unwrap().is_meshed());
}
