//! The chart as Helm and the API server see it: every combination of its switches is accepted by the schemas of the
//! kinds that it makes, what is misspelt is refused, and `helm test` finds nothing wrong.
// Helpers of tests are tests too, which clippy cannot know.
#![allow(clippy::unwrap_used)]

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use weft_e2e::{
    kube::{Cluster, SYSTEM, helm, until_for},
    programs::repository,
};

/// Every switch as it is not by default.
const EVERYTHING: &str = "
image: {pullPolicy: Never, pullSecrets: [registry]}
operator:
  replicas: 3
  logFormat: json
  maxCertTtl: 48h
  extraArgs: [--cert-ttl=12h]
  extraEnv: [{name: EXTRA, value: '1'}]
  podLabels: {team: mesh}
  podAnnotations: {note: 'yes'}
  nodeSelector: {kubernetes.io/os: linux}
  tolerations: [{key: dedicated, operator: Exists}]
  affinity: {nodeAffinity: {}}
  priorityClassName: system-cluster-critical
  topologySpreadConstraints:
  - {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: weft-operator}}}
  serviceAccount: {annotations: {note: 'yes'}}
  networkPolicy: {enabled: true, adminFrom: [{namespaceSelector: {matchLabels: {name: monitoring}}}]}
meshConfig: {trustDomain: example.org, accessLogFile: /dev/stdout, defaultConfig: {drainDuration: 20s}}
injection: {nativeSidecars: false, settings: {network: east, clusterDomain: kube.example, clusterId: east, logAsJson: true}}
webhooks: {injectionFailurePolicy: Ignore, validationFailurePolicy: Ignore, istioLabels: false, enableNamespacesByDefault: true}
gateways:
  secretNamespaces: [default]
  common:
    replicas: 2
    env: [{name: EXTRA, value: '1'}]
    podLabels: {team: mesh}
    podAnnotations: {note: 'yes'}
    nodeSelector: {kubernetes.io/os: linux}
    tolerations: [{key: dedicated, operator: Exists}]
    affinity: {nodeAffinity: {}}
    priorityClassName: system-cluster-critical
    serviceAccount: {annotations: {note: 'yes'}}
    networkPolicy: {enabled: true, metricsFrom: [{podSelector: {}}]}
  ingress:
    enabled: true
    autoscaling: {enabled: true, minReplicas: 2, maxReplicas: 4}
    service:
      type: NodePort
      annotations: {note: 'yes'}
      labels: {note: 'yes'}
      spec: {externalTrafficPolicy: Local, ipFamilyPolicy: PreferDualStack}
      ports: [{name: tcp, port: 31400, targetPort: 31400, nodePort: 31400, appProtocol: tcp}]
  egress: {enabled: true, labels: {istio: egressgateway, zone: edge}}
";

/// Each turns one thing on or off.
const SWITCHES: [&str; 14] = [
    "",
    "crds.install=false",
    "cleanup.enabled=false",
    "operator.replicas=2",
    "operator.replicas=2,operator.podDisruptionBudget.enabled=false",
    "operator.autoscaling.enabled=true",
    "operator.networkPolicy.enabled=true",
    "webhooks.istioLabels=false",
    "webhooks.enableNamespacesByDefault=true",
    "gateways.ingress.enabled=true",
    "gateways.egress.enabled=true,gateways.egress.name=exit",
    "gateways.egress.enabled=true,gateways.egress.autoscaling.enabled=true",
    "gateways.secretNamespaces={default}",
    "gateways.secretNamespaces={*}",
];

fn chart() -> String {
    repository().join("charts/weft").display().to_string()
}

/// What Helm makes of the chart with these values. The hooks of removal and tests are among it.
fn rendered(more: &[&str]) -> anyhow::Result<String> {
    let chart = chart();
    let base = ["template", helm::RELEASE, &chart, "--namespace", SYSTEM];
    helm::helm(&[&base[..], more].concat())
}

/// What the API server says of manifests, without keeping them: it knows the schemas, and is strict about fields. Not
/// of the pod of `helm test`, whose service account must be there: that one is really run, below.
fn judged(manifests: &str) -> Result<(), String> {
    let objects = manifests.split("\n---\n");
    let kept = objects.filter(|object| !object.lines().any(|line| line == "kind: Pod"));
    let manifests = kept.collect::<Vec<_>>().join("\n---\n");
    let arguments = ["apply", "--server-side", "--force-conflicts", "--dry-run=server"];
    let mut kubectl = Command::new("kubectl")
        .args(arguments)
        .args(["--validate=strict", "--field-manager=weft-e2e-chart", "--filename", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    kubectl.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    let output = kubectl.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

fn values(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_server_accepts_what_every_switch_makes() {
    Cluster::with_mesh().await.unwrap();
    tokio::task::spawn_blocking(|| {
        let everything = values(EVERYTHING);
        let everything = everything.path().to_str().unwrap();
        helm::helm(&["lint", "--strict", &chart()]).unwrap();
        helm::helm(&["lint", "--strict", &chart(), "--values", everything]).unwrap();
        for switch in SWITCHES {
            let manifests = rendered(&["--set", switch]).unwrap();
            judged(&manifests).unwrap_or_else(|said| panic!("{switch:?}: {said}"));
        }
        let manifests = rendered(&["--values", everything]).unwrap();
        judged(&manifests).unwrap_or_else(|said| panic!("everything: {said}"));
        // A kind that no cluster of ours knows: it is made where it is asked for, and only there.
        let monitor = rendered(&["--set", "operator.podMonitor.enabled=true"]).unwrap();
        assert!(monitor.contains("kind: PodMonitor"));
        assert!(!manifests.contains("kind: PodMonitor"));
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switches_make_what_they_say_and_nothing_else() {
    Cluster::with_mesh().await.unwrap();
    tokio::task::spawn_blocking(|| {
        let count = |text: &str, line: &str| text.lines().filter(|l| l.trim() == line).count();
        // Objects, not what a binding refers to.
        let kinds = |text: &str, kind: &str| {
            text.lines().filter(|line| line.strip_prefix("kind: ") == Some(kind)).count()
        };
        let plain = rendered(&[]).unwrap();
        for absent in ["--secret-namespaces", "weft-operator-secrets", "istio-ingressgateway"] {
            assert!(!plain.contains(absent), "{absent}");
        }
        let gateways = rendered(&[
            "--set",
            "gateways.ingress.enabled=true,gateways.egress.enabled=true,gateways.secretNamespaces={shop}",
        ])
        .unwrap();
        assert_eq!(kinds(&gateways, "Deployment"), kinds(&plain, "Deployment") + 2);
        assert_eq!(kinds(&gateways, "Role"), kinds(&plain, "Role") + 2);
        assert_eq!(kinds(&gateways, "ClusterRole"), kinds(&plain, "ClusterRole"));
        assert_eq!(count(&gateways, &format!("- --secret-namespaces=shop,{SYSTEM}")), 1);
        assert_eq!(count(&gateways, "args: [router]"), 2);
        // Without a limit the kubelet would say how many processors the node has.
        assert_eq!(count(&gateways, "- name: ISTIO_CPU_LIMIT"), 0);
        let limited = "gateways.ingress.enabled=true,gateways.ingress.resources.limits.cpu=2";
        let limited = rendered(&["--set", limited]).unwrap();
        assert_eq!(count(&limited, "- name: ISTIO_CPU_LIMIT"), 1);
        let all = rendered(&["--set", "gateways.secretNamespaces={shop,*}"]).unwrap();
        assert_eq!(count(&all, "- --secret-namespaces=*"), 1);
        assert_eq!(kinds(&all, "ClusterRole"), kinds(&plain, "ClusterRole") + 1);
        let bare = rendered(&["--set", "crds.install=false"]).unwrap();
        assert_eq!(kinds(&bare, "CustomResourceDefinition"), 0);

        for (wrong, told) in [
            ("operator.replica=2", "replica"),
            ("operator.replicas=0", "replicas"),
            ("gateways.ingress.enable=true", "enable"),
            ("gateways.secretNamespaces={Shop}", "secretNamespaces"),
            ("gateways.ingress.service.type=ExternalName", "type"),
            ("webhooks.injectionFailurePolicy=Perhaps", "injectionFailurePolicy"),
        ] {
            let error = rendered(&["--set", wrong]).expect_err(wrong).to_string();
            assert!(error.contains(told), "{wrong}: {error}");
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_test_finds_nothing_wrong() {
    let cluster = Cluster::with_mesh().await.unwrap();
    // It looks at all pods of the cluster, and those of other tests may be about to go.
    let said = until_for(Duration::from_secs(240), "helm test should pass", async || {
        let test =
            || helm::helm(&["test", helm::RELEASE, "--namespace", SYSTEM, "--timeout", "1m"]);
        tokio::task::spawn_blocking(test).await?
    });
    let said = said.await.unwrap();
    assert!(said.contains("Succeeded"), "{said}");
    helm::takes_pods(&cluster).await.unwrap();
}
