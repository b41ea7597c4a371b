//! Administration ports inside the cluster, by port-forward: they are on loopback of their pods, or shut to others by a
//! NetworkPolicy, and neither stands in the kubelet's way.

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;

use super::Cluster;
use crate::http;

/// Gets JSON from a port of a pod.
///
/// # Errors
/// When the pod cannot be reached, or does not answer with success and JSON. The message names pod and port.
pub async fn get_json(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
    path: &str,
) -> anyhow::Result<Value> {
    let place = || format!("port {port} of the pod {namespace}/{pod}");
    let exchange = async {
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let mut forwarder = pods.portforward(pod, &[port]).await?;
        let stream = forwarder.take_stream(port).context("no stream")?;
        http::get_json_over(stream, &format!("localhost:{port}"), path).await
    };
    tokio::time::timeout(http::TIMEOUT, exchange)
        .await
        .context("no answer in time")
        .flatten()
        .with_context(place)
}
