//! Each judgement, on facts of a fit cluster and of a healthy mesh with one thing changed.
// Fixtures take JSON as it is written.
#![allow(clippy::needless_pass_by_value)]

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        apps::v1::Deployment,
        core::v1::{Namespace, Pod},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use weft_crds::{Kind, definition};

use super::{
    facts::Facts,
    judge,
    pieces::Piece,
    rights::{Right, expand},
};
use crate::chart;

const ROOT: &str = "-----BEGIN CERTIFICATE-----\nroot\n-----END CERTIFICATE-----\n";

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn piece(kind: &'static str) -> Piece {
    Piece { kind, name: "weft-operator", purpose: "nothing works" }
}

fn webhook(namespace: Value, pod: Value) -> Value {
    json!({
        "name": "a.b.c",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {},
        "namespaceSelector": {"matchExpressions": namespace},
        "objectSelector": {"matchExpressions": pod},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
    })
}

fn injector(name: &str, webhooks: &[Value]) -> MutatingWebhookConfiguration {
    object(json!({"metadata": {"name": name}, "webhooks": webhooks}))
}

/// What Istio's and our own do with a labelled namespace.
fn labelled(label: &str) -> Value {
    webhook(
        json!([{"key": label, "operator": "In", "values": ["enabled"]}]),
        json!([{"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}]),
    )
}

fn pod(namespace: &str, name: &str, labels: Value, containers: &[&str]) -> Pod {
    let container = |name: &&str| match *name {
        "istio-proxy" => json!({"name": name, "args": ["sidecar"]}),
        "istio's" => json!({"name": "istio-proxy", "args": ["proxy", "sidecar"]}),
        name => json!({"name": name}),
    };
    let containers: Vec<Value> = containers.iter().map(container).collect();
    object(json!({
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"containers": containers},
        "status": {"phase": "Running"},
    }))
}

fn fit() -> Facts {
    let version = json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.4", "buildDate": "", "compiler": "", "gitCommit": "",
        "gitTreeState": "", "goVersion": "", "platform": "",
    });
    Facts {
        server: "https://api".into(),
        namespace: "weft-system".into(),
        version: object(version),
        definitions: Kind::ALL
            .iter()
            .map(|kind| (format!("{}.{}", kind.plural(), kind.group()), Ok(None)))
            .collect(),
        pieces: vec![(piece("Deployment"), Ok(false)), (piece("Service"), Ok(false))],
        mutating: Ok(Vec::new()),
        validating: Ok(Vec::new()),
        deployment: Ok(None),
        namespaces: Ok(Vec::new()),
        pods: Ok(Vec::new()),
        roots: Ok(BTreeMap::new()),
        proxies: BTreeMap::new(),
        statuses: BTreeMap::new(),
        rights: Vec::new(),
    }
}

fn healthy() -> Facts {
    let mut facts = fit();
    for kind in Kind::ALL {
        let name = format!("{}.{}", kind.plural(), kind.group());
        let definition: CustomResourceDefinition = object(definition(kind));
        facts.definitions.insert(name, Ok(Some(definition)));
    }
    facts.pieces.iter_mut().for_each(|(_, there)| *there = Ok(true));
    let mut ours = injector("weft-sidecar-injector", &[labelled("istio-injection")]);
    let trusted = Some(ByteString(ROOT.as_bytes().to_vec()));
    ours.webhooks.iter_mut().flatten().for_each(|w| w.client_config.ca_bundle = trusted.clone());
    facts.mutating = Ok(vec![ours]);
    let mut validator: ValidatingWebhookConfiguration = object(json!({
        "metadata": {"name": "weft-validator"},
        "webhooks": [{"name": "a.b.c", "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": {}}],
    }));
    validator
        .webhooks
        .iter_mut()
        .flatten()
        .for_each(|w| w.client_config.ca_bundle = trusted.clone());
    facts.validating = Ok(vec![validator]);
    let deployment: Deployment = object(json!({
        "metadata": {"name": "weft-operator"},
        "spec": {"replicas": 1, "selector": {}, "template": {}},
        "status": {"readyReplicas": 1},
    }));
    facts.deployment = Ok(Some(deployment));
    let namespace: Namespace =
        object(json!({"metadata": {"name": "shop", "labels": {"weft-injection": "enabled"}}}));
    facts.namespaces = Ok(vec![namespace]);
    facts.pods = Ok(vec![
        pod("weft-system", "op", json!({"app": "weft-operator"}), &["operator"]),
        pod("shop", "cart", json!({}), &["app", "istio-proxy"]),
    ]);
    facts.roots = Ok([("weft-system".into(), ROOT.into()), ("shop".into(), ROOT.into())].into());
    let proxies = json!([{"proxy": "cart.shop", "types": {"cds": {"state": "SYNCED"}}}]);
    facts.proxies.insert("op".into(), Ok(proxies));
    facts.statuses.insert("op".into(), Ok(json!({"resources": []})));
    facts
}

fn pods(facts: &mut Facts) -> &mut Vec<Pod> {
    facts.pods.as_mut().unwrap()
}

/// The errors of a report, and what must be in its text.
fn expect(facts: &Facts, errors: usize, texts: &[&str]) {
    let report = judge(facts, false);
    let text = report.to_string();
    assert_eq!(report.errors(), errors, "{text}");
    for expected in texts {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn a_cluster_without_the_mesh_may_be_fit_for_it() {
    let facts = fit();
    expect(&facts, 0, &["is not installed", "0 errors, 0 warnings"]);
    assert_eq!(judge(&facts, true).errors(), 1);
    let mut old = fit();
    old.version.minor = "28+".into();
    expect(&old, 1, &["older than 1.29"]);
}

#[test]
fn a_healthy_mesh_has_neither_errors_nor_warnings() {
    expect(
        &healthy(),
        0,
        &["7 of 7 are Weft's", "1 of 1 replicas are ready", "1 proxies of", "0 errors, 0 warnings"],
    );
}

#[test]
fn definitions_of_others_are_told_with_their_owner() {
    let name = "virtualservices.networking.istio.io";
    let foreign = |annotations: Value| {
        let mut definition: CustomResourceDefinition = object(definition(Kind::VirtualService));
        definition.metadata.labels = None;
        definition.metadata.annotations = Some(object(annotations));
        Ok(Some(definition))
    };
    let helm = json!({"meta.helm.sh/release-name": "istio-base", "meta.helm.sh/release-namespace": "istio-system"});
    let mut facts = fit();
    facts.definitions.insert(name.into(), foreign(helm.clone()));
    expect(&facts, 1, &["the Helm release istio-system/istio-base", "crds.install=false"]);
    let mut facts = healthy();
    facts.definitions.insert(name.into(), foreign(helm));
    expect(&facts, 0, &["WARNING virtualservices", "1 warning"]);
    let mut facts = healthy();
    facts.definitions.insert(name.into(), Ok(None));
    expect(&facts, 1, &["is missing: the chart is half installed"]);
    let Ok(Some(mut old)) = foreign(json!({})) else { panic!() };
    old.spec.versions.retain(|version| version.name != "v1");
    facts.definitions.insert(name.into(), Ok(Some(old)));
    expect(&facts, 1, &["does not serve the version v1"]);
}

#[test]
fn a_missing_piece_is_named_and_what_may_not_be_read_is_no_error() {
    let mut facts = healthy();
    facts.pieces[1].1 = Ok(false);
    expect(&facts, 1, &["Service weft-operator is missing: the chart is half installed"]);
    facts.pieces[1].1 = Err("forbidden: no".into());
    expect(&facts, 0, &["Service weft-operator is not checked: forbidden: no"]);
    let mut facts = healthy();
    facts.validating = Ok(Vec::new());
    expect(&facts, 1, &["ValidatingWebhookConfiguration weft-validator is missing"]);
}

#[test]
fn only_an_injector_that_takes_the_same_pods_is_in_the_way() {
    let with = |other: MutatingWebhookConfiguration| {
        let mut facts = healthy();
        facts.mutating.as_mut().unwrap().push(other);
        facts
    };
    let istio = injector("istio-sidecar-injector", &[labelled("istio-injection")]);
    expect(
        &with(istio.clone()),
        1,
        &["istio-sidecar-injector", "istio-injection=enabled", "istioLabels=false"],
    );
    let every_pod = injector("policies", &[webhook(json!([]), json!([]))]);
    expect(&with(every_pod), 0, &["no other injector"]);
    let elsewhere = injector("linkerd", &[labelled("linkerd.io/inject")]);
    expect(&with(elsewhere), 0, &["no other injector"]);
    let mut before = fit();
    before.mutating = Ok(vec![istio]);
    expect(&before, 0, &["WARNING another injector"]);
}

#[test]
fn the_root_is_the_same_everywhere() {
    let mut facts = healthy();
    facts.roots.as_mut().unwrap().insert("shop".into(), "another".into());
    expect(&facts, 1, &["shop/istio-ca-root-cert is not the mesh's root"]);
    facts.roots.as_mut().unwrap().remove("shop");
    expect(&facts, 1, &["the namespace shop has meshed pods and no ConfigMap"]);
    facts.pods.as_mut().unwrap().clear();
    expect(&facts, 0, &["the API server trusts it at weft-sidecar-injector"]);
    for (bundle, expected) in [(None, "has no CA bundle"), (Some("x"), "has another CA bundle")] {
        let mut facts = healthy();
        for webhook in facts.validating.as_mut().unwrap()[0].webhooks.iter_mut().flatten() {
            webhook.client_config.ca_bundle = bundle.map(|text| ByteString(text.into()));
        }
        expect(&facts, 1, &[&format!("weft-validator {expected}")]);
    }
}

#[test]
fn proxies_of_istio_are_istios_affair() {
    let mut facts = healthy();
    pods(&mut facts).push(pod("bank", "teller", json!({}), &["app", "istio's"]));
    facts.roots.as_mut().unwrap().insert("bank".into(), "istio's".into());
    let bank = json!({"metadata": {"name": "bank", "labels": {"istio-injection": "enabled"}}});
    facts.namespaces.as_mut().unwrap().push(object(bank));
    expect(&facts, 0, &["1 proxies of", "0 errors, 0 warnings"]);
}

#[test]
fn an_operator_that_does_not_get_ready_is_explained() {
    let mut facts = healthy();
    let status = json!({
        "phase": "Running",
        "containerStatuses": [{
            "name": "operator", "ready": false, "restartCount": 3, "image": "", "imageID": "",
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            "lastState": {"terminated": {"exitCode": 2}},
        }],
    });
    pods(&mut facts)[0].status = Some(object(status));
    let Ok(Some(deployment)) = &mut facts.deployment else { panic!() };
    deployment.status = None;
    expect(
        &facts,
        2,
        &["op: CrashLoopBackOff: back-off (it last ended with 2)", "0 of 1 replicas are ready"],
    );
}

#[test]
fn proxies_are_connected_and_have_what_they_were_sent() {
    let mut facts = healthy();
    pods(&mut facts).push(pod("shop", "lost", json!({}), &["istio-proxy"]));
    pods(&mut facts).push(pod("shop", "bare", json!({}), &["app"]));
    pods(&mut facts).push(pod(
        "shop",
        "not",
        json!({"sidecar.istio.io/inject": "false"}),
        &["app"],
    ));
    expect(
        &facts,
        1,
        &["lost.shop run without a connection", "bare in the namespace shop run without a proxy"],
    );
    let mut facts = healthy();
    let refused = json!({"state": "REJECTED", "lastNack": {"reason": "no such filter"}});
    let proxies =
        json!([{"proxy": "cart.shop", "types": {"cds": {"state": "STALE"}, "lds": refused}}]);
    facts.proxies.insert("op".into(), Ok(proxies));
    expect(&facts, 1, &["cart.shop refuses the lds that it was sent: no such filter", "1 warning"]);
    let mut facts = healthy();
    facts.proxies.insert("op".into(), Err("no answer".into()));
    expect(&facts, 0, &["the operator op cannot be asked: no answer"]);
    let mut facts = healthy();
    let invalid = json!({"kind": "VirtualService", "namespace": "shop", "name": "a",
        "conditions": [{"type": "Accepted", "status": "False"}]});
    facts.statuses.insert("op".into(), Ok(json!({"resources": [invalid]})));
    expect(&facts, 0, &["VirtualService shop/a are not in effect", "1 warning"]);
    let mut facts = healthy();
    let status = json!({"resources": [], "injector": ["logLevel: \"loud\" is none of them"]});
    facts.statuses.insert("op".into(), Ok(status));
    expect(&facts, 1, &["the injector's settings are not in effect", "logLevel: \"loud\" is none"]);
}

#[test]
fn a_missing_right_is_told_with_the_rule_that_grants_it() {
    let right = Right {
        verb: "list".into(),
        group: "networking.istio.io".into(),
        resource: "virtualservices".into(),
        name: None,
        namespace: None,
    };
    let mut facts = healthy();
    facts.rights = vec![(right.clone(), Ok(true))];
    expect(&facts, 0, &["the operator has all 1"]);
    facts.rights = vec![(right.clone(), Ok(false))];
    expect(
        &facts,
        1,
        &[
            "the operator may not list virtualservices.networking.istio.io",
            "add to the ClusterRole weft-operator: {apiGroups: [\"networking.istio.io\"], \
             resources: [virtualservices], verbs: [list]}",
        ],
    );
    let mut before = fit();
    before.rights = vec![(right, Ok(false))];
    expect(&before, 1, &["you may not list"]);
}

#[test]
fn the_rights_are_those_that_the_chart_grants() {
    let own = expand(&chart::own_rules().unwrap(), Some("mesh"));
    let lease = Right {
        verb: "update".into(),
        group: "coordination.k8s.io".into(),
        resource: "leases".into(),
        name: Some("weft-leader".into()),
        namespace: Some("mesh".into()),
    };
    assert!(own.contains(&lease));
    let all = expand(&chart::cluster_rules().unwrap(), None);
    assert!(all.iter().any(|right| right.resource == "virtualservices/status"));
}
