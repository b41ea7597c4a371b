use serde_json::json;

use super::*;

fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    })
}

fn workload(api_version: &str, kind: &str) -> Value {
    let spec = match kind {
        "CronJob" => {
            json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template()}}})
        }
        "Pod" => template()["spec"].clone(),
        _ => json!({"template": template()}),
    };
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "web"}, "spec": spec})
}

fn variable<'a>(pod: &'a Value, name: &str) -> &'a str {
    let proxy = pod["spec"]["initContainers"].as_array().unwrap();
    let proxy = proxy.iter().find(|container| container["name"] == "istio-proxy").unwrap();
    let variables = proxy["env"].as_array().unwrap();
    variables.iter().find(|v| v["name"] == name).unwrap()["value"].as_str().unwrap()
}

#[test]
fn every_kind_of_workload_is_injected_under_its_own_name() {
    for (api_version, kind, path) in [
        ("v1", "Pod", ""),
        ("apps/v1", "Deployment", "/spec/template"),
        ("apps/v1", "StatefulSet", "/spec/template"),
        ("apps/v1", "DaemonSet", "/spec/template"),
        ("apps/v1", "ReplicaSet", "/spec/template"),
        ("v1", "ReplicationController", "/spec/template"),
        ("batch/v1", "Job", "/spec/template"),
        ("batch/v1", "CronJob", "/spec/jobTemplate/spec/template"),
    ] {
        let before = workload(api_version, kind);
        let done = inject_document(before, Some("shop"), &InjectConfig::default()).unwrap();
        assert!(done.changed, "{kind}");
        let pod = done.value.pointer(path).unwrap();
        let plural = kind.to_lowercase() + "s";
        let owner = format!("kubernetes://apis/{api_version}/namespaces/shop/{plural}/web");
        assert_eq!(variable(pod, "ISTIO_META_OWNER"), owner);
        assert_eq!(variable(pod, "ISTIO_META_WORKLOAD_NAME"), "web");
        let again =
            inject_document(done.value.clone(), Some("shop"), &InjectConfig::default()).unwrap();
        assert_eq!(again.value, done.value, "{kind}");
    }
}

#[test]
fn lists_are_gone_through_and_the_rest_stays() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}});
    let mut own = workload("apps/v1", "Deployment");
    own["metadata"]["namespace"] = json!("own");
    let list = json!({
        "apiVersion": "v1", "kind": "List", "items": [service.clone(), own],
    });
    let done = inject_document(list, Some("shop"), &InjectConfig::default()).unwrap();
    assert!(done.changed);
    assert_eq!(done.value["items"][0], service);
    let pod = &done.value["items"][1]["spec"]["template"];
    assert!(variable(pod, "ISTIO_META_OWNER").contains("/namespaces/own/"));
    for other in
        [service, json!({"kind": "Deployment", "apiVersion": "x/v1"}), json!([1]), json!(1)]
    {
        let done = inject_document(other.clone(), None, &InjectConfig::default()).unwrap();
        assert_eq!(done, Document { value: other, changed: false, warnings: vec![] });
    }
}

#[test]
fn a_workload_that_is_not_injected_says_why() {
    let mut on_host = workload("apps/v1", "DaemonSet");
    on_host["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    let done = inject_document(on_host.clone(), None, &InjectConfig::default()).unwrap();
    let warning =
        "DaemonSet default/web: not injected: the pod shares the node's network (hostNetwork)";
    assert_eq!(done, Document { value: on_host, changed: false, warnings: vec![warning.into()] });
}

#[test]
fn mistakes_name_the_object_and_the_field() {
    let mut without = workload("apps/v1", "Deployment");
    without["spec"] = json!({});
    let mut odd = workload("batch/v1", "Job");
    odd["spec"]["template"]["spec"]["containers"] = json!({});
    let mut annotated = workload("v1", "Pod");
    annotated["metadata"]["annotations"] = json!({"sidecar.istio.io/proxyCPU": "x"});
    for (document, expected) in [
        (without, "Deployment default/web: spec.template is required"),
        (odd, "Job default/web: spec.template: not a pod: "),
        (
            annotated,
            "Pod default/web: annotation sidecar.istio.io/proxyCPU: \"x\" is not a quantity",
        ),
    ] {
        let error = inject_document(document, None, &InjectConfig::default()).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}
