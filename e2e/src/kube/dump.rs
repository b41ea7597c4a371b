//! What somebody who looks at a failed test wants to see of its namespace: pods and why they are not ready, the ends
//! of their logs, events, and the operator's log.
#![allow(clippy::print_stderr)]

use ::kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};
use k8s_openapi::api::core::v1;

use super::{Cluster, SYSTEM};

const LINES: i64 = 25;

/// Writes it to standard error, where the test's own output is.
pub(super) async fn namespace(cluster: &Cluster, name: &str) {
    eprintln!("=== namespace {name}");
    pods(cluster, name).await;
    events(cluster, name).await;
    eprintln!("=== namespace {SYSTEM}");
    pods(cluster, SYSTEM).await;
}

async fn pods(cluster: &Cluster, namespace: &str) {
    let api: Api<v1::Pod> = cluster.api(namespace);
    let Ok(pods) = api.list(&ListParams::default()).await else {
        eprintln!("the API server does not answer");
        return;
    };
    for pod in pods {
        let status = pod.status.clone().unwrap_or_default();
        eprintln!("--- pod {}: {}", pod.name_any(), status.phase.unwrap_or_default());
        for condition in status.conditions.into_iter().flatten().filter(|c| c.status != "True") {
            eprintln!("    not {}: {}", condition.type_, condition.message.unwrap_or_default());
        }
        let containers =
            status.init_container_statuses.into_iter().chain(status.container_statuses);
        for container in containers.flatten() {
            let state = container.state.unwrap_or_default();
            let state = serde_json::to_string(&state).unwrap_or_default();
            let (name, restarts) = (&container.name, container.restart_count);
            eprintln!(
                "    container {name}: ready {}, {restarts} restarts, {state}",
                container.ready
            );
            let params = LogParams {
                container: Some(name.clone()),
                tail_lines: Some(LINES),
                ..LogParams::default()
            };
            if let Ok(log) = api.logs(&pod.name_any(), &params).await {
                for line in log.lines() {
                    eprintln!("      | {line}");
                }
            }
        }
    }
}

async fn events(cluster: &Cluster, namespace: &str) {
    let api: Api<v1::Event> = cluster.api(namespace);
    let Ok(events) = api.list(&ListParams::default()).await else { return };
    for event in events.items.into_iter().filter(|event| event.type_.as_deref() == Some("Warning"))
    {
        let object = event.involved_object;
        eprintln!(
            "--- event of {} {}: {} {}",
            object.kind.unwrap_or_default(),
            object.name.unwrap_or_default(),
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default()
        );
    }
}
