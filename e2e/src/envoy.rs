//! Stock Envoy as a sidecar of the mesh, or as a gateway: driven by the operator over wildcard delta ADS, with a certificate that was
//! asked of the authority as any workload asks.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use weft_api::{
    names::{SECRET_DEFAULT, SECRET_ROOT_CA},
    node::{Interception, NodeInfo, ProxyKind},
};

use crate::{
    authority::{Credentials, credentials},
    client::{Client, url},
    mesh::{Mesh, PROXY_PORTS, Pod},
    process::{Invocation, Process},
    programs::repository,
    wait,
};

/// Where Envoy is, or why it cannot be had.
///
/// # Errors
/// With the script's reason. When `WEFT_REQUIRE_ENVOY` is set nobody may take that as a reason to skip.
pub fn find() -> anyhow::Result<PathBuf> {
    let script = repository().join("e2e/envoy.sh");
    let output = Command::new(script).stdin(Stdio::null()).output().context("e2e/envoy.sh")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    pod: Pod,
    process: Process,
}

impl Envoy {
    /// Starts Envoy as the pod's proxy and waits until it is ready.
    ///
    /// # Errors
    /// When it gets no certificate or does not become ready; the message has the end of its log.
    pub async fn start(binary: &std::path::Path, mesh: &Mesh, pod: &Pod) -> anyhow::Result<Self> {
        let Pod { namespace, service_account, .. } = pod;
        let token = mesh.token(namespace, service_account, &[])?;
        let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/{service_account}");
        let own =
            credentials(mesh.control_plane(), &mesh.state_folder(), &token, &identity).await?;
        let file = mesh.run_folder().join(format!("{}.envoy.json", pod.name));
        std::fs::write(&file, bootstrap(mesh.control_plane(), pod, &own).to_string())?;
        let arguments = [
            "--disable-hot-restart",
            "--concurrency",
            "1",
            // A connection keeps the filters that it began with until it is drained.
            "--drain-time-s",
            "1",
            "--log-level",
            "warning",
            "-c",
            &file.display().to_string(),
        ];
        let invocation = Invocation {
            name: format!("{}.envoy", pod.name),
            program: binary.display().to_string(),
            arguments: arguments.map(str::to_owned).to_vec(),
            environment: Vec::new(),
        };
        let process = Process::start(mesh.programs(), &mesh.run_folder(), &invocation)?;
        let mut envoy = Self { pod: pod.clone(), process };
        let outcome = wait::until_ok("Envoy should be ready", async || {
            envoy.process.must_run()?;
            envoy.admin("/ready").await
        });
        let outcome = outcome.await;
        outcome.with_context(|| envoy.process.log_tail())?;
        Ok(envoy)
    }

    /// A client that goes through its explicit proxy port.
    pub fn client(&self) -> Client {
        Client::through(SocketAddr::from((self.pod.app_address(), PROXY_PORTS.http_proxy)))
    }

    /// Its pod's address.
    pub fn address(&self) -> Ipv4Addr {
        self.pod.address
    }

    /// Asks its administration port.
    ///
    /// # Errors
    /// When it does not answer with success.
    pub async fn admin(&self, path: &str) -> anyhow::Result<String> {
        let reply = Client::direct().get(&url(self.pod.address, PROXY_PORTS.admin, path)).await?;
        anyhow::ensure!(reply.status.is_success(), "{path}: {} {}", reply.status, reply.text());
        Ok(reply.text())
    }

    /// The sum of its statistics whose name ends so.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn stats_ending(&self, end: &str) -> anyhow::Result<u64> {
        let text = self.admin("/stats?type=Counters").await?;
        let value = |line: &str| -> Option<u64> {
            let (name, value) = line.rsplit_once(": ")?;
            name.ends_with(end).then(|| value.trim().parse().ok()).flatten()
        };
        Ok(text.lines().filter_map(value).sum())
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn node(pod: &Pod) -> Value {
    let info = NodeInfo {
        kind: if pod.is_gateway() { ProxyKind::Router } else { ProxyKind::Sidecar },
        pod_address: pod.address.into(),
        pod_name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        service_account: pod.service_account.clone(),
        workload_name: pod.workload(),
        labels: pod.labels.clone(),
        cluster_id: "Kubernetes".into(),
        interception: Interception::None,
        app_address: Some(pod.app_address().into()),
        on_demand: false,
        domain: "cluster.local".into(),
    };
    json!({
        "id": info.id(),
        "cluster": format!("{}.{}", pod.workload(), pod.namespace),
        "metadata": {
            "NAME": pod.name,
            "NAMESPACE": pod.namespace,
            "SERVICE_ACCOUNT": pod.service_account,
            "WORKLOAD_NAME": pod.workload(),
            "CLUSTER_ID": "Kubernetes",
            "INSTANCE_IPS": pod.address.to_string(),
            "INTERCEPTION_MODE": "NONE",
            "LABELS": pod.labels,
            "WEFT_APP_ADDRESS": pod.app_address().to_string(),
        },
    })
}

fn socket(address: impl Into<std::net::IpAddr>, port: u16) -> Value {
    json!({"socket_address": {"address": address.into().to_string(), "port_value": port}})
}

fn bootstrap(control_plane: SocketAddr, pod: &Pod, own: &Credentials) -> Value {
    let (chain, root) = own.split();
    let inline = |text: &str| json!({"inline_string": text});
    let certificate = json!({"certificate_chain": inline(&chain), "private_key": inline(&own.key)});
    let trust = json!({"trusted_ca": inline(&root)});
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": node(pod),
        "admin": {"address": socket(pod.address, PROXY_PORTS.admin)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "weft-operator"}}],
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "static_resources": {
            "secrets": [
                {"name": SECRET_DEFAULT, "tls_certificate": certificate},
                {"name": SECRET_ROOT_CA, "validation_context": trust},
            ],
            "clusters": [{
                "name": "weft-operator",
                "type": "STATIC",
                "connect_timeout": "5s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    },
                },
                "load_assignment": {
                    "cluster_name": "weft-operator",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {
                        "address": socket(control_plane.ip(), control_plane.port()),
                    }}]}],
                },
                "transport_socket": {
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                        "sni": "localhost",
                        "common_tls_context": {
                            "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                            "alpn_protocols": ["h2"],
                            "tls_certificates": [certificate],
                            "validation_context": trust,
                        },
                    },
                },
            }],
        },
    })
}
