#![allow(clippy::needless_pass_by_value)] // values are written where they are passed

use super::*;

fn route(weight: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "orders"},
        "spec": {
            "hosts": ["orders"],
            "http": [{"route": [{"destination": {"host": "orders"}, "weight": weight}]}],
        },
    })
}

fn request(operation: &str, object: Value, old_object: Value) -> Request {
    let request = json!({
        "uid": "1",
        "operation": operation,
        "namespace": "shop",
        "object": object,
        "oldObject": old_object,
    });
    serde_json::from_value(request).unwrap()
}

fn refusal(judgement: Judgement) -> String {
    match judgement {
        Judgement::Refused { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_valid_is_accepted_with_its_warnings() {
    let accepted = judge(&request("CREATE", route(json!(100)), Value::Null));
    assert_eq!(accepted, Judgement::Accepted { warnings: Vec::new() });
    let mut odd = route(json!(100));
    odd["spec"]["tls"] = json!([{
        "match": [{"sniHosts": ["a.example"], "port": 443}],
        "route": [{"destination": {"host": "a.example"}}],
    }]);
    odd["spec"]["hosts"] = json!(["a.example"]);
    let Judgement::Accepted { warnings } = judge(&request("CREATE", odd, Value::Null)) else {
        panic!("it is valid");
    };
    assert!(warnings.iter().all(|warning| warning.starts_with("spec.")), "{warnings:?}");
}

#[test]
fn every_error_is_told_with_kind_name_field_and_reason() {
    let mut wrong = route(json!(100));
    wrong["spec"]["http"] = json!([{}, {}]);
    let message = refusal(judge(&request("CREATE", wrong, Value::Null)));
    assert!(message.starts_with("VirtualService shop/orders: "), "{message}");
    for field in ["spec.http[0]: ", "spec.http[1]: "] {
        assert!(message.contains(field), "{message}");
    }
    let mut unknown = route(json!(100));
    unknown["spec"]["htpp"] = json!([]);
    unknown["spec"]["gatway"] = json!([]);
    let message = refusal(judge(&request("CREATE", unknown, Value::Null)));
    assert!(message.contains("spec.htpp") && message.contains("spec.gatway"), "{message}");
}

/// What a change of an object that is not valid is worth.
#[test]
fn an_invalid_object_is_only_in_the_way_of_changes_to_what_it_says() {
    let (valid, invalid) = (route(json!(100)), route(json!(-1)));
    let with = |object: &Value, path: &str, value: Value| {
        let mut object = object.clone();
        *object.pointer_mut(path).unwrap() = value;
        object
    };
    let labelled = with(&invalid, "/metadata", json!({"name": "orders", "labels": {"a": "b"}}));
    let mut status = invalid.clone();
    status["status"] = json!({"conditions": []});
    let deletion = json!({"name": "orders", "deletionTimestamp": "2026-01-01T00:00:00Z"});
    let going = with(&route(json!(-2)), "/metadata", deletion);
    for (case, operation, object, old, refused) in [
        ("created", "CREATE", invalid.clone(), Value::Null, true),
        ("made invalid", "UPDATE", invalid.clone(), valid.clone(), true),
        ("otherwise invalid", "UPDATE", route(json!(-2)), invalid.clone(), true),
        ("labelled", "UPDATE", labelled, invalid.clone(), false),
        ("status", "UPDATE", status, invalid.clone(), false),
        ("being deleted", "UPDATE", going, invalid.clone(), false),
        ("deleted", "DELETE", Value::Null, invalid.clone(), false),
        ("mended", "UPDATE", valid, invalid, false),
    ] {
        let judgement = judge(&request(operation, object, old));
        assert_eq!(
            matches!(judgement, Judgement::Refused { .. }),
            refused,
            "{case}: {judgement:?}"
        );
    }
    let mut status = request("UPDATE", route(json!(-1)), route(json!(1)));
    status.sub_resource = Some("status".into());
    assert_eq!(judge(&status), Judgement::Waved(None));
}

#[test]
fn what_the_api_server_adds_to_metadata_is_not_judged() {
    let mut object = route(json!(100));
    object["metadata"] = json!({
        "name": "orders",
        "namespace": "shop",
        "uid": "0d1f",
        "resourceVersion": "12",
        "generation": 2,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        "managedFields": [{
            "manager": "kubectl", "operation": "Apply", "apiVersion": "networking.istio.io/v1",
            "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}},
        }],
    });
    let judgement = judge(&request("CREATE", object, Value::Null));
    assert!(matches!(judgement, Judgement::Accepted { .. }), "{judgement:?}");
    let mut generated = route(json!(100));
    generated["metadata"] = json!({"generateName": "orders-"});
    let judgement = judge(&request("CREATE", generated, Value::Null));
    assert!(matches!(judgement, Judgement::Accepted { .. }), "{judgement:?}");
}

#[test]
fn other_kinds_pass_and_those_of_istio_with_a_word() {
    for (api_version, kind, warned) in [
        ("v1", "Pod", false),
        ("apps/v1", "Deployment", false),
        ("telemetry.istio.io/v1", "Telemetry", true),
        ("networking.istio.io/v1", "Sidecar", true),
    ] {
        let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
        let Judgement::Waved(warning) = judge(&request("CREATE", object, Value::Null)) else {
            panic!("{kind} is not ours");
        };
        assert_eq!(warning.is_some(), warned, "{kind}: {warning:?}");
    }
    let judgement = judge(&request("CREATE", json!([]), Value::Null));
    assert!(refusal(judgement).contains("expected an object"));
}
