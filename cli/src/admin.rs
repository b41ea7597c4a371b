//! The operators' administration ports, wherever they are: at a URL, on this machine, or in a cluster by port-forward.

use std::{fmt, net::SocketAddr};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::ListParams};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{
    http,
    kubernetes::{self, Cluster, Target},
    names::{ADMIN_PORT, OPERATOR},
};

/// Where an operator without Kubernetes is unless told otherwise.
const HERE: &str = "127.0.0.1:15014";

/// Which operators are asked.
#[derive(Debug, clap::Args)]
pub struct Admin {
    /// The operator's administration port. Default: http://127.0.0.1:15014 when somebody answers there, else those of the
    /// cluster.
    #[arg(long, env = "WEFT_ADMIN_URL", value_name = "URL")]
    admin: Option<String>,

    #[command(flatten)]
    target: Target,
}

/// A proxy as the operator that serves it knows it.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// The operator: its address or its pod.
    pub operator: String,
    /// Its entry in `/debug/syncz`.
    pub state: Value,
}

/// Operators that can be asked.
pub enum Operators {
    /// One, at a URL.
    Url(String),
    /// Those of a cluster.
    Cluster {
        /// Where the cluster's client lives.
        runtime: Runtime,
        /// The cluster.
        cluster: Box<Cluster>,
        /// The operators' pods.
        pods: Vec<String>,
    },
}

impl Admin {
    /// Finds them.
    ///
    /// # Errors
    /// When there is none here, nor a cluster with one.
    pub fn connect(&self) -> anyhow::Result<Operators> {
        if let Some(url) = &self.admin {
            return Ok(Operators::Url(url.clone()));
        }
        let named = self.target.kubeconfig.is_some() || self.target.context.is_some();
        if !named && http::answers(HERE) {
            return Ok(Operators::Url(HERE.to_owned()));
        }
        let runtime = kubernetes::runtime()?;
        let (cluster, pods) = runtime.block_on(self.in_cluster())?;
        Ok(Operators::Cluster { runtime, cluster: Box::new(cluster), pods })
    }

    async fn in_cluster(&self) -> anyhow::Result<(Cluster, Vec<String>)> {
        let cluster = self.target.connect().await.with_context(|| {
            format!("no operator answers at {HERE} (give --admin URL), and there is")
        })?;
        let of_operator = ListParams::default().labels(&format!("app={OPERATOR}"));
        let pods = kubernetes::list(&cluster.own::<Pod>(), of_operator)
            .await
            .with_context(|| format!("the operators of {}", cluster.server()))?;
        let running = pods
            .iter()
            .filter(|pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running"));
        let pods: Vec<String> = running.map(ResourceExt::name_any).collect();
        if pods.is_empty() {
            bail!(
                "no operator runs in the namespace {} of {}: weft check says why",
                cluster.namespace,
                cluster.server()
            );
        }
        Ok((cluster, pods))
    }
}

impl Operators {
    /// The proxies of all operators.
    ///
    /// # Errors
    /// When an operator does not answer.
    pub fn proxies(&self) -> anyhow::Result<Vec<Proxy>> {
        let names = match self {
            Self::Url(url) => {
                vec![url.trim_start_matches("http://").trim_end_matches('/').to_owned()]
            }
            Self::Cluster { pods, .. } => pods.clone(),
        };
        let mut proxies = Vec::new();
        for operator in names {
            let answer = self.ask(&operator, "/debug/syncz").context("the operator")?;
            let states = answer.as_array().cloned().unwrap_or_default();
            proxies.extend(
                states.into_iter().map(|state| Proxy { operator: operator.clone(), state }),
            );
        }
        Ok(proxies)
    }

    /// Asks one operator.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(&self, operator: &str, path: &str) -> anyhow::Result<Value> {
        match self {
            Self::Url(url) => http::get_json(url, path),
            Self::Cluster { runtime, cluster, .. } => runtime.block_on(kubernetes::get_json(
                cluster,
                &cluster.namespace,
                operator,
                ADMIN_PORT,
                path,
            )),
        }
    }

    /// Asks a proxy itself.
    ///
    /// # Errors
    /// When it cannot be found or does not answer.
    pub fn ask_proxy(&self, proxy: &Proxy, port: u16, path: &str) -> anyhow::Result<Value> {
        match self {
            Self::Url(_) => {
                let id = proxy.state["node"].as_str().unwrap_or_default();
                let address = id.split('~').nth(1).and_then(|ip| ip.parse().ok());
                let address = address.context("its address is not known")?;
                http::get_json(&SocketAddr::new(address, port).to_string(), path)
            }
            Self::Cluster { runtime, cluster, .. } => {
                let name = proxy.state["proxy"].as_str().unwrap_or_default();
                let (pod, namespace) = name.rsplit_once('.').context("its pod is not known")?;
                runtime.block_on(kubernetes::get_json(cluster, namespace, pod, port, path))
            }
        }
    }
}

impl fmt::Display for Operators {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Cluster { pods, .. } => f.write_str(&pods.join(", ")),
        }
    }
}
