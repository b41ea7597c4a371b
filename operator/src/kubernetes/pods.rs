//! Whether the pod that a proxy says to be is there, with the service account of the proxy's certificate.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use weft_api::node::NodeInfo;
use weft_core::snapshot::Snapshot;
use weft_xds::server::NodeRegistry;

use crate::mesh::LatestView;

/// A proxy may be there before the watch has told of its pod.
const PATIENCE: Duration = Duration::from_secs(5);

/// The cluster's pods.
#[derive(Clone, Debug)]
pub struct Pods {
    view: LatestView,
}

impl Pods {
    /// The pods of the latest view.
    pub fn new(view: LatestView) -> Self {
        Self { view }
    }
}

#[tonic::async_trait]
impl NodeRegistry for Pods {
    async fn check(&self, node: &NodeInfo) -> Result<(), String> {
        let mut view = self.view.clone();
        let known = view.wait_for(|view| {
            view.as_ref().is_some_and(|view| account(&view.snapshot, node).is_some())
        });
        let account = match timeout(PATIENCE, known).await {
            Ok(Ok(view)) => view.as_ref().and_then(|view| account(&view.snapshot, node)),
            Ok(Err(_)) | Err(_) => None,
        };
        judge(account.as_deref(), node)
    }
}

/// The service account of the pod that a node says to be; `None` when there is no such pod.
fn account(snapshot: &Snapshot, node: &NodeInfo) -> Option<Arc<str>> {
    let workload = snapshot.workloads.get(&node.namespace, &node.pod_name)?;
    Some(workload.service_account.clone())
}

fn judge(account: Option<&str>, node: &NodeInfo) -> Result<(), String> {
    let NodeInfo { namespace, pod_name, service_account, .. } = node;
    match account {
        Some(account) if account == service_account => Ok(()),
        Some(account) => Err(format!(
            "pod {namespace}/{pod_name} has the service account {account}, not {service_account}"
        )),
        None => Err(format!("there is no pod {namespace}/{pod_name}")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use weft_api::node::{Interception, ProxyKind};
    use weft_core::{diagnosis::Diagnoses, mesh::MeshConfig};
    use weft_index::{Index, Object};

    use super::*;
    use crate::mesh::View;

    fn node(pod: &str, account: &str) -> NodeInfo {
        NodeInfo {
            kind: ProxyKind::Sidecar,
            pod_address: [10, 0, 0, 1].into(),
            pod_name: pod.into(),
            namespace: "shop".into(),
            service_account: account.into(),
            workload_name: String::new(),
            labels: Default::default(),
            cluster_id: "Kubernetes".into(),
            interception: Interception::Redirect,
            app_address: None,
            on_demand: true,
            domain: "cluster.local".into(),
        }
    }

    fn view(pods: &[&str]) -> Option<Arc<View>> {
        let mut index = Index::new(MeshConfig::default());
        for name in pods {
            let pod = serde_json::json!({
                "metadata": { "name": name, "namespace": "shop" },
                "spec": { "serviceAccountName": "orders", "containers": [] },
            });
            index.apply(Object::Pod(serde_json::from_value(pod).unwrap()));
        }
        let snapshot = index.snapshot().0;
        Some(Arc::new(View { snapshot, diagnoses: Diagnoses::default(), report: Arc::default() }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_is_what_its_pod_is() {
        let (_sender, receiver) = watch::channel(view(&["orders-1"]));
        let pods = Pods::new(receiver);
        assert_eq!(pods.check(&node("orders-1", "orders")).await, Ok(()));
        assert_eq!(
            pods.check(&node("orders-1", "admin")).await,
            Err("pod shop/orders-1 has the service account orders, not admin".into())
        );
        assert_eq!(
            pods.check(&node("orders-2", "orders")).await,
            Err("there is no pod shop/orders-2".into())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_that_came_before_the_news_of_its_pod_waits_for_it() {
        let (sender, receiver) = watch::channel(None);
        let pods = Pods::new(receiver);
        let check = tokio::spawn(async move { pods.check(&node("orders-1", "orders")).await });
        sender.send_replace(view(&[]));
        tokio::task::yield_now().await;
        sender.send_replace(view(&["orders-1"]));
        assert_eq!(check.await.unwrap(), Ok(()));
    }
}
