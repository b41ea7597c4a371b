//! What holds for every pod, on pods made by chance.
#![allow(clippy::unwrap_used)]

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};
use weft_webhook::{InjectConfig, NativeSidecars, Outcome, inject, strip};

fn port() -> impl Strategy<Value = Value> {
    prop_oneof![
        (1u16..).prop_map(|port| json!(port)),
        select(vec!["http", "grpc", "absent", "8080"]).prop_map(|name| json!(name)),
    ]
}

fn handler() -> impl Strategy<Value = Value> {
    prop_oneof![
        (port(), select(vec!["HTTP", "HTTPS"])).prop_map(
            |(port, scheme)| json!({"httpGet": {"path": "/x", "port": port, "scheme": scheme}})
        ),
        port().prop_map(|port| json!({"tcpSocket": {"port": port}})),
        (1u16..).prop_map(|port| json!({"grpc": {"port": port}})),
        Just(json!({"exec": {"command": ["true"]}})),
    ]
}

fn probe() -> impl Strategy<Value = Value> {
    (handler(), option::of(1u8..)).prop_map(|(mut probe, timeout)| {
        if let Some(timeout) = timeout {
            probe["timeoutSeconds"] = json!(timeout);
        }
        probe
    })
}

/// A container without its name.
fn container() -> impl Strategy<Value = Value> {
    let probes = (option::of(probe()), option::of(probe()), option::of(probe()));
    let hooks = (option::of(handler()), option::of(handler()));
    (probes, hooks, any::<bool>()).prop_map(|(probes, hooks, ports)| {
        let mut container = json!({"image": "app"});
        let fields =
            [("livenessProbe", probes.0), ("readinessProbe", probes.1), ("startupProbe", probes.2)];
        for (key, value) in fields {
            if let Some(value) = value {
                container[key] = value;
            }
        }
        for (key, value) in [("preStop", hooks.0), ("postStart", hooks.1)] {
            if let Some(value) = value.filter(|hook| hook.get("grpc").is_none()) {
                container["lifecycle"][key] = value;
            }
        }
        if ports {
            container["ports"] = json!([
                {"name": "http", "containerPort": 80}, {"name": "grpc", "containerPort": 90},
            ]);
        }
        container
    })
}

fn annotations() -> impl Strategy<Value = Map<String, Value>> {
    let annotation = select(vec![
        ("sidecar.istio.io/nativeSidecar", "false"),
        ("sidecar.istio.io/interceptionMode", "NONE"),
        ("sidecar.istio.io/rewriteAppHTTPProbers", "false"),
        ("sidecar.istio.io/proxyCPU", "1"),
        ("sidecar.istio.io/userVolume", "{\"extra\":{\"emptyDir\":{}}}"),
        ("sidecar.istio.io/userVolumeMount", "[{\"name\":\"extra\",\"mountPath\":\"/x\"}]"),
        ("status.sidecar.istio.io/port", "0"),
        ("status.sidecar.istio.io/port", "15999"),
        ("proxy.istio.io/config", "holdApplicationUntilProxyStarts: true"),
        ("inject.istio.io/templates", "gateway"),
        ("prometheus.istio.io/merge-metrics", "false"),
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/port", "9090"),
        ("prometheus.io/path", "/m"),
        ("kubectl.kubernetes.io/default-container", "c0"),
    ]);
    vec(annotation, 0..6)
        .prop_map(|list| list.into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect())
}

fn pod() -> impl Strategy<Value = Value> {
    let overlay = option::of(select(vec![
        json!({"name": "istio-proxy", "image": "auto"}),
        json!({"name": "istio-proxy", "image": "mine:1", "env": [{"name": "POD_NAME", "value": "x"}]}),
        json!({"name": "istio-proxy", "image": "auto", "readinessProbe": {"exec": {"command": ["a"]}}}),
    ]));
    let lists = (vec(container(), 1..3), vec(container(), 0..3));
    (lists, overlay, any::<bool>(), annotations(), any::<bool>()).prop_map(
        |((mut containers, mut init), overlay, first, annotations, own_volume)| {
            for (index, container) in containers.iter_mut().enumerate() {
                container["name"] = json!(format!("c{index}"));
            }
            for (index, container) in init.iter_mut().enumerate() {
                container["name"] = json!(format!("i{index}"));
                if index == 0 {
                    container["restartPolicy"] = json!("Always");
                }
            }
            if let Some(overlay) = overlay {
                let list = if first { &mut init } else { &mut containers };
                list.insert(0, overlay);
            }
            let mut spec = json!({"containers": containers});
            if !init.is_empty() {
                spec["initContainers"] = json!(init);
            }
            if own_volume {
                spec["volumes"] = json!([{"name": "extra", "emptyDir": {}}]);
            }
            let mut metadata = json!({"name": "web"});
            if !annotations.is_empty() {
                metadata["annotations"] = json!(annotations);
            }
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        },
    )
}

fn config() -> impl Strategy<Value = InjectConfig> {
    (any::<bool>(), any::<bool>()).prop_map(|(native, hold)| InjectConfig {
        native_sidecars: if native { NativeSidecars::Auto } else { NativeSidecars::Never },
        hold_application_until_proxy_starts: hold,
        image_pull_secrets: vec!["pull".into()],
        ..InjectConfig::default()
    })
}

fn injected(pod: &Value, config: &InjectConfig) -> Value {
    match inject(pod.clone(), "shop", None, config).unwrap() {
        Outcome::Injected(injected) => injected.pod,
        Outcome::Skipped(skip) => panic!("skipped: {skip}"),
    }
}

/// Names of a list, and that none is there twice.
fn names(pod: &Value, key: &str) -> Vec<String> {
    let list = pod["spec"][key].as_array().into_iter().flatten();
    let mut names: Vec<_> = list.map(|item| item["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "{key} of {pod}");
    names
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn injection_is_idempotent_and_can_be_taken_back(pod in pod(), config in config()) {
        let once = injected(&pod, &config);
        prop_assert_eq!(&injected(&once, &config), &once);
        let mut stripped = once.clone();
        strip(&mut stripped).unwrap();
        prop_assert_eq!(&injected(&stripped, &config), &once);
        for key in ["containers", "initContainers", "volumes", "imagePullSecrets"] {
            prop_assert_eq!(names(&stripped, key), names(&pod, key));
        }
        // Another configuration on what this one injected is as that one alone.
        let other = InjectConfig { native_sidecars: NativeSidecars::Never, ..config };
        prop_assert_eq!(injected(&once, &other), injected(&stripped, &other));
    }

    #[test]
    fn there_is_one_proxy_and_no_probe_with_two_handlers(pod in pod(), config in config()) {
        let once = injected(&pod, &config);
        let all: Vec<_> = ["containers", "initContainers"]
            .iter()
            .flat_map(|key| once["spec"][*key].as_array().into_iter().flatten())
            .collect();
        prop_assert_eq!(all.iter().filter(|c| c["name"] == "istio-proxy").count(), 1);
        names(&once, "containers");
        names(&once, "initContainers");
        names(&once, "volumes");
        for container in all {
            let hooks = container["lifecycle"].as_object().into_iter().flatten().map(|(_, hook)| hook);
            let probes = ["livenessProbe", "readinessProbe", "startupProbe"];
            let probes = probes.iter().filter_map(|key| container.get(*key));
            for probe in probes.chain(hooks) {
                let handlers = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
                let count = handlers.iter().filter(|handler| probe.get(**handler).is_some()).count();
                prop_assert_eq!(count, 1, "{}", probe);
            }
        }
    }

    /// Whatever stands in one place of a pod, there is an answer.
    #[test]
    fn a_pod_with_something_odd_in_it_is_answered(
        pod in pod(), config in config(), again in any::<bool>(), place in any::<prop::sample::Index>(),
        odd in select(vec![Value::Null, json!(1), json!(-1), json!("x"), json!("{}"), json!([]), json!({}), json!([[]]), json!({"name": {}})]),
    ) {
        let mut pod = if again { injected(&pod, &config) } else { pod };
        let mut places = Vec::new();
        pointers(String::new(), &pod, &mut places);
        *pod.pointer_mut(place.get(&places).as_str()).unwrap() = odd;
        let _ = inject(pod.clone(), "shop", None, &config);
        let _ = strip(&mut pod);
    }
}

fn pointers(path: String, value: &Value, all: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| {
            let key = key.replace('~', "~0").replace('/', "~1");
            pointers(format!("{path}/{key}"), value, all);
        }),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| {
            pointers(format!("{path}/{index}"), value, all);
        }),
        _ => {}
    }
    all.push(path);
}
