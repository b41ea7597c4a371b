//! The proxy's settings: the command line and its environment names, checked once and then immutable.
//!
//! Read by the control thread; data threads see them through `Shared`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use weft_api::node::{Interception, NodeInfo, ProxyKind};

use crate::shared::NamedService;

mod cli;
mod duration;
mod outbound;

pub use cli::{AccessLogFormat, Cli, Command, LogFormat, SidecarArgs};
pub use duration::{DurationError, parse_duration};

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// Services are named, and there is no range to take their addresses from.
    #[error("--outbound needs --outbound-range, the addresses that named services take")]
    RangeMissing,
    /// The range is too small.
    #[error("--outbound-range {range} has no address left for {host}")]
    RangeFull {
        /// The range.
        range: ipnet::IpNet,
        /// The host that got none.
        host: String,
    },
    /// The control plane's address is not `HOST:PORT`.
    #[error("--control-plane {0:?} is not HOST:PORT")]
    ControlPlane(String),
}

/// What the process was told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The pod's name.
    pub pod_name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's service account.
    pub service_account: String,
    /// The workload that the pod belongs to.
    pub workload_name: String,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// The Kubernetes cluster's name.
    pub cluster_id: String,
    /// The domain of the mesh's services.
    pub domain: String,
    /// Where the proxy listens for the workload.
    pub pod_address: IpAddr,
    /// Where the application listens, and beside it the explicit proxy port.
    pub app_address: IpAddr,
    /// Services that the workload names, and the addresses that stand for them.
    pub named_services: Arc<[NamedService]>,
    /// Where those addresses are written, in the form of `/etc/hosts`.
    pub hosts_file: Option<PathBuf>,
    /// The control plane.
    pub control_plane: ControlPlaneSettings,
    /// Data threads.
    pub concurrency: usize,
    /// Longest time that a drain takes.
    pub drain_duration: Duration,
    /// Lifetime that certificates are asked for.
    pub certificate_ttl: Duration,
    /// What was fetched on demand and not used for so long is dropped.
    pub on_demand_idle: Duration,
    /// Most names fetched on demand that are held at once.
    pub on_demand_limit: usize,
    /// How long the first use of a name waits for the control plane's answer.
    pub on_demand_wait: Duration,
    /// Ports of the proxy itself.
    pub ports: Ports,
    /// Access log of every listener, whatever the control plane says.
    pub access_log: Option<AccessLogSettings>,
    /// Log filter, e.g. `info` or `warn,weft_proxy=debug`.
    pub log_level: String,
    /// Log format.
    pub log_format: LogFormat,
}

/// How the control plane is reached.
#[derive(Clone, Debug)]
pub struct ControlPlaneSettings {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// PEM bundle that its certificate is checked against.
    pub root: PathBuf,
    /// The name that its certificate must have.
    pub san: String,
    /// The token that certificates are asked for with; read again each time.
    pub token_file: PathBuf,
}

/// The proxy's own ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Administration.
    pub admin: u16,
    /// Captured inbound traffic; where `virtualInbound` binds.
    pub inbound: u16,
    /// The explicit proxy, on the application's address.
    pub http_proxy: u16,
    /// Readiness and merged metrics.
    pub status: u16,
    /// Readiness, for health checks.
    pub health: u16,
    /// Metrics.
    pub metrics: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            admin: 15000,
            inbound: 15006,
            http_proxy: 15007,
            status: 15020,
            health: 15021,
            metrics: 15090,
        }
    }
}

/// An access log that was asked for on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// How a line looks.
    pub format: AccessLogFormat,
    /// Where lines go.
    pub file: PathBuf,
}

impl Settings {
    /// The node as the control plane is told of it.
    pub fn node_info(&self) -> NodeInfo {
        NodeInfo {
            kind: ProxyKind::Sidecar,
            pod_address: self.pod_address,
            pod_name: self.pod_name.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            workload_name: self.workload_name.clone(),
            labels: self.labels.clone(),
            cluster_id: self.cluster_id.clone(),
            interception: Interception::None,
            app_address: Some(self.app_address),
            on_demand: true,
            domain: self.domain.clone(),
        }
    }

    /// An address of the proxy itself, on the pod's address.
    pub fn own(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.pod_address, port)
    }

    /// The lines of the hosts file: every named host once.
    pub fn hosts_lines(&self) -> String {
        outbound::hosts_lines(&self.named_services)
    }
}

impl TryFrom<SidecarArgs> for Settings {
    type Error = SettingsError;

    fn try_from(args: SidecarArgs) -> Result<Self, SettingsError> {
        let (host, port) = cli::split_host_port(&args.control_plane)
            .ok_or_else(|| SettingsError::ControlPlane(args.control_plane.clone()))?;
        let named_services = outbound::assign(args.outbound_range, &args.outbound)?;
        let default_concurrency =
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(2);
        Ok(Self {
            workload_name: args.workload_name.unwrap_or_else(|| args.pod_name.clone()),
            pod_name: args.pod_name,
            namespace: args.namespace,
            service_account: args.service_account,
            labels: args.labels.into_iter().collect(),
            cluster_id: args.cluster_id,
            domain: args.domain,
            pod_address: args.pod_address,
            app_address: args.app_address,
            named_services: named_services.into(),
            hosts_file: args.hosts_file,
            control_plane: ControlPlaneSettings {
                san: args.control_plane_san.unwrap_or_else(|| host.clone()),
                host,
                port,
                root: args.control_plane_root,
                token_file: args.token_file,
            },
            concurrency: args
                .concurrency
                .map_or(default_concurrency, |threads| usize::from(threads.get())),
            drain_duration: args.drain_duration,
            certificate_ttl: args.cert_ttl,
            on_demand_idle: args.on_demand_idle,
            on_demand_limit: args.on_demand_limit,
            on_demand_wait: args.on_demand_wait,
            ports: Ports {
                admin: args.admin_port,
                inbound: args.inbound_port,
                http_proxy: args.http_proxy_port,
                status: args.status_port,
                health: args.health_port,
                metrics: args.metrics_port,
            },
            access_log: args
                .access_log
                .map(|format| AccessLogSettings { format, file: args.access_log_file }),
            log_level: args.log_level,
            log_format: args.log_format,
        })
    }
}

#[cfg(test)]
impl Settings {
    /// Settings of a small workload, for tests.
    pub fn test() -> Self {
        let cli = <Cli as clap::Parser>::try_parse_from([
            "weft-proxy",
            "sidecar",
            "--pod-name=order-service-v1-0",
            "--namespace=default",
            "--service-account=order-service",
            "--workload-name=order-service-v1",
            "--label=app=order-service",
            "--label=version=v1",
            "--pod-address=127.0.0.1",
            "--app-address=127.0.0.1",
            "--control-plane=127.0.0.1:15012",
            "--control-plane-root=/nonexistent/root-cert.pem",
            "--token-file=/nonexistent/token",
            "--concurrency=1",
        ])
        .expect("arguments are valid");
        let Command::Sidecar(args) = cli.command else { panic!("another command") };
        Self::try_from(*args).expect("settings are valid")
    }
}

#[cfg(test)]
mod tests;
