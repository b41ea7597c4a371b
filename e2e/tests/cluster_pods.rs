//! What injected pods must still do: be probed, end when their work is done, have names of their own, and go on
//! talking when their namespace leaves the mesh.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, ensure};
use http::StatusCode;
use k8s_openapi::api::{batch::v1::Job, core::v1::Event};
use kube::api::ListParams;
use tokio::io::AsyncBufReadExt;
use weft_e2e::{
    kube::{Cluster, Injection, Namespace, until},
    programs::sample,
};

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
";

/// The payment service with other probes.
fn probed(name: &str, probes: &str) -> String {
    let yaml = sample("kubernetes/payment-service.yaml").unwrap().replace("payment-service", name);
    let yaml = yaml.replace(&format!("args: [{name}]"), "args: [payment-service]");
    let (before, after) = yaml.split_once("        readinessProbe:\n").unwrap();
    let (_, after) = after.split_once("        # Others hear").unwrap();
    format!("{before}{probes}        # Others hear{after}")
}

/// STRICT refuses plaintext on every port, and the kubelet has no certificate: only rewritten probes pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_of_all_kinds_pass_under_strict_and_those_that_fail_are_seen() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("probes", Injection::Istio).await.unwrap();
    namespace.apply(STRICT).await.unwrap();
    let good = "        startupProbe: {grpc: {port: 9090}, periodSeconds: 1, failureThreshold: 60}
        livenessProbe: {tcpSocket: {port: tcp-echo}, periodSeconds: 2}
        readinessProbe: {httpGet: {path: /_sample/ready, port: http}, periodSeconds: 2}
";
    namespace.apply(&probed("healthy", good)).await.unwrap();
    namespace.rolled_out().await.unwrap();
    let healthy = namespace.pod("app=healthy").await.unwrap();
    assert!(healthy.is_meshed());
    let spec = healthy.object().spec.as_ref().unwrap();
    let app = spec.containers.iter().find(|container| container.name == "app").unwrap();
    for (probe, path) in [
        (&app.startup_probe, "/app-health/app/startupz"),
        (&app.liveness_probe, "/app-health/app/livez"),
        (&app.readiness_probe, "/app-health/app/readyz"),
    ] {
        let get = probe.as_ref().unwrap().http_get.as_ref().unwrap();
        assert_eq!(get.path.as_deref(), Some(path));
    }

    let bad =
        "        readinessProbe: {httpGet: {path: /?fail=418, port: http}, periodSeconds: 1}\n";
    namespace.apply(&probed("sick", bad)).await.unwrap();
    let events = cluster.api::<Event>(namespace.name());
    until("the failing probe should be reported", async || {
        let events = events.list(&ListParams::default()).await?;
        let said = |event: &Event| {
            let message = event.message.as_deref().unwrap_or_default();
            message.contains("Readiness probe failed") && message.contains("app-health")
                || message.contains("Readiness probe failed") && message.contains("statuscode")
        };
        let sick = |event: &Event| {
            event.involved_object.name.as_deref().is_some_and(|name| name.starts_with("sick-"))
        };
        events.items.iter().find(|event| sick(event) && said(event)).context("no event").map(drop)
    })
    .await
    .unwrap();
    let sick = namespace.pod("app=sick").await.unwrap();
    let status = sick.object().status.clone().unwrap();
    let ready = status.conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "False");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_with_a_proxy_ends_when_its_work_is_done() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("job", Injection::Istio).await.unwrap();
    namespace.apply(STRICT).await.unwrap();
    namespace.deploy(&["payment-service"]).await.unwrap();
    let job = "
apiVersion: batch/v1
kind: Job
metadata: {name: errand}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {app: errand}}
    spec:
      restartPolicy: Never
      containers:
      - name: app
        image: docker.io/weft/test-shell:dev
        imagePullPolicy: IfNotPresent
        command: [/bin/sh, -c]
        args: [\"for i in 1 2 3 4 5 6 7 8 9 10; do wget -q -O - http://payment-service/errand && exit 0; sleep 2; done; exit 1\"]
";
    namespace.apply(job).await.unwrap();
    let jobs = cluster.api::<Job>(namespace.name());
    until("the job should be complete", async || {
        let status = jobs.get("errand").await?.status.unwrap_or_default();
        let kinds: Vec<_> = status.conditions.iter().flatten().map(|c| c.type_.clone()).collect();
        ensure!(kinds.iter().any(|kind| kind == "Complete"), "{kinds:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(namespace.pod("app=errand").await.unwrap().is_meshed());
    let server = namespace.pod("app=payment-service").await.unwrap();
    assert_eq!(server.counters().await.unwrap().by_path["/errand"], 1);
}

/// The payment service as a StatefulSet behind a headless Service.
fn headless() -> String {
    let yaml =
        sample("kubernetes/payment-service.yaml").unwrap().replace("payment-service", "ledger");
    let yaml = yaml.replace("args: [ledger]", "args: [payment-service]");
    let yaml = yaml.replace("kind: Deployment", "kind: StatefulSet");
    let yaml = yaml.replace("  replicas: 1\n", "  replicas: 2\n  serviceName: ledger\n");
    let yaml = yaml.replace("  ipFamilyPolicy: PreferDualStack\n", "  clusterIP: None\n");
    yaml.replace("    port: 80\n", "    port: 8080\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_a_headless_stateful_set_are_called_by_their_own_names() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("headless", Injection::Istio).await.unwrap();
    namespace.apply(&headless()).await.unwrap();
    namespace.deploy(&["load"]).await.unwrap();
    let load = namespace.pod("app=load").await.unwrap();
    let client = load.client().await.unwrap();
    let identity = format!("URI=spiffe://cluster.local/ns/{}/sa/load", namespace.name());
    for pod in ["ledger-0", "ledger-1"] {
        until(&format!("{pod} should answer"), async || {
            let reply = client.get(&format!("http://{pod}.ledger:8080/")).await?;
            ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
            let answer = reply.answer()?;
            ensure!(answer.pod == pod, "{} answers for {pod}", answer.pod);
            let peer = answer.headers.get("x-forwarded-client-cert").cloned().unwrap_or_default();
            ensure!(peer.contains(&identity), "identity {peer:?}");
            Ok(())
        })
        .await
        .unwrap();
        let mut line = String::new();
        let mut stream = load.connect(&format!("{pod}.ledger:9001")).await.unwrap();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, "220 payment-service v1 ready\r\n");
    }
    let reply = client.get("http://ledger:8080/").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
}

async fn calls(namespace: &Namespace, from: &str, to: &str) {
    let pod = namespace.pod(&format!("app={from}")).await.unwrap();
    let client = pod.client().await.unwrap();
    until(&format!("{from} should reach {to}"), async || {
        let reply = client.get(&format!("http://{to}/")).await?;
        ensure!(reply.status == StatusCode::OK, "{} {}", reply.status, reply.text());
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_leaves_the_mesh_pod_by_pod() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let namespace = cluster.namespace("leave", Injection::Istio).await.unwrap();
    namespace.deploy(&["payment-service", "user-service", "load"]).await.unwrap();
    calls(&namespace, "load", "payment-service").await;
    namespace.label("istio-injection", None).await.unwrap();

    // A pod that leaves is still called by those that stay, and calls them.
    namespace.restart("payment-service").await.unwrap();
    let left = namespace.pod("app=payment-service").await.unwrap();
    assert!(!left.is_meshed());
    calls(&namespace, "load", "payment-service").await;
    calls(&namespace, "payment-service", "user-service").await;

    // And back again.
    namespace.label("weft-injection", Some("enabled")).await.unwrap();
    namespace.restart("payment-service").await.unwrap();
    assert!(namespace.pod("app=payment-service").await.unwrap().is_meshed());
    calls(&namespace, "load", "payment-service").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_say_for_themselves_whether_they_want_a_proxy() {
    let cluster = Cluster::with_mesh().await.unwrap();
    let pod = |name: &str, wish: &str, network: bool| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{{wish}}}}}
spec:
  hostNetwork: {network}
  containers:
  - {{name: app, image: docker.io/weft/samples:dev, imagePullPolicy: IfNotPresent, args: [load]}}
"
        )
    };
    let no = "sidecar.istio.io/inject: 'false'";
    let yes = "sidecar.istio.io/inject: 'true'";
    let inside = cluster.namespace("inside", Injection::Istio).await.unwrap();
    let outside = cluster.namespace("nobody", Injection::Off).await.unwrap();
    let cases = [
        (&inside, "unsaid", "", false, true),
        (&inside, "unwilling", no, false, false),
        (&inside, "host-network", "", true, false),
        (&outside, "unsaid", "", false, false),
        (&outside, "willing", yes, false, true),
    ];
    for (namespace, name, wish, network, expected) in cases {
        // Host ports are taken by one pod; what is asked here is known before it starts.
        namespace.apply(&pod(name, wish, network)).await.unwrap();
        let pod = cluster.pod(namespace.name(), name).await.unwrap();
        assert_eq!(pod.is_meshed(), expected, "{} {name}", namespace.name());
    }
}
