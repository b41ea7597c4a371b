//! The proxy's settings: the command line and its environment names, checked once and then immutable.
//!
//! Read by the control thread; data threads see them through `Shared`.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use weft_api::{
    names::{HTTP_PROXY, VIRTUAL_INBOUND, VIRTUAL_OUTBOUND},
    node::{Interception, NodeInfo, ProxyKind},
};

use crate::shared::NamedService;

mod cli;
mod duration;
mod listen;
mod outbound;
mod pod;
mod standalone;

pub use cli::{
    AccessLogFormat, Cli, Command, DrainArgs, LogFormat, ProxyArgs, RouterArgs, SidecarArgs,
    WaitArgs,
};
pub use duration::{DurationError, parse_duration};
pub use pod::Pod;
pub use standalone::{Mode, Said, StandaloneArgs};

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
    /// A flag is missing, and there is no pod to take its value from.
    #[error("{0} is missing (in a pod of Kubernetes, where POD_NAME is set, it is not needed)")]
    Missing(&'static str),
    /// Something of a pod's environment.
    #[error("environment: {name} {problem}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// A proxy that fetches nothing on demand still looks at the time so often.
const ON_DEMAND_IDLE: Duration = Duration::from_secs(600);
/// See [`ON_DEMAND_IDLE`].
const ON_DEMAND_WAIT: Duration = Duration::from_secs(5);
/// How long a drain may take when nothing says so.
const DRAIN_DURATION: Duration = Duration::from_secs(45);

/// The listeners that a proxy asks the control plane for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// These, which it cannot do without; others on demand.
    Named(&'static [&'static str]),
    /// Every one that there is for it.
    All,
}

/// What the process was told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The configuration is a file: there is no control plane, no certificate of the mesh, and peers are told nothing.
    pub standalone: bool,
    /// What the proxy is for.
    pub kind: ProxyKind,
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
    /// How connections reach the proxy.
    pub interception: Interception,
    /// The workload's address; without capture the proxy listens on it.
    pub pod_address: IpAddr,
    /// Where the application listens, and beside it the explicit proxy port. In a pod it is the pod's address.
    pub app_address: IpAddr,
    /// Where the proxy's own ports are: the workload's address, or in a pod every address.
    pub own_addresses: Vec<IpAddr>,
    /// Where administration is: in a pod only the pod itself gets there.
    pub admin_addresses: Vec<IpAddr>,
    /// What the application says of itself, in a pod.
    pub pod: Option<Arc<Pod>>,
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
    /// Captured outbound traffic; where `virtualOutbound` binds.
    pub outbound: u16,
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
            outbound: 15001,
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
            kind: self.kind,
            pod_address: self.pod_address,
            pod_name: self.pod_name.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            workload_name: self.workload_name.clone(),
            labels: self.labels.clone(),
            cluster_id: self.cluster_id.clone(),
            interception: self.interception,
            app_address: (self.app_address != self.pod_address).then_some(self.app_address),
            // A gateway's routes come whole.
            on_demand: self.kind == ProxyKind::Sidecar,
            domain: self.domain.clone(),
        }
    }

    /// The proxy's name among others.
    pub fn node_id(&self, node: &NodeInfo) -> String {
        if self.standalone { self.pod_name.clone() } else { node.id() }
    }

    /// The name that it shares with the other proxies of its workload.
    pub fn service_cluster(&self) -> String {
        if self.standalone {
            return self.workload_name.clone();
        }
        format!("{}.{}", self.workload_name, self.namespace)
    }

    /// Whether connections are captured, and not addressed to the proxy.
    pub fn is_captured(&self) -> bool {
        // A gateway says so in a pod, as Istio's do, and means every address of the pod: nothing is captured.
        self.kind == ProxyKind::Sidecar && self.interception == Interception::Redirect
    }

    /// The listeners that the proxy asks for.
    pub fn listeners(&self) -> Subscribed {
        match (self.kind, self.interception) {
            (ProxyKind::Router, _) => Subscribed::All,
            (ProxyKind::Sidecar, Interception::Redirect) => {
                Subscribed::Named(&[VIRTUAL_INBOUND, VIRTUAL_OUTBOUND])
            }
            (ProxyKind::Sidecar, Interception::None) => {
                Subscribed::Named(&[VIRTUAL_INBOUND, HTTP_PROXY])
            }
        }
    }

    /// The lines of the hosts file: every named host once.
    pub fn hosts_lines(&self) -> String {
        outbound::hosts_lines(&self.named_services)
    }
}

/// A flag, or what stands in its place in a pod.
fn given<T>(flag: Option<T>, pod: Option<T>, name: &'static str) -> Result<T, SettingsError> {
    flag.or(pod).ok_or(SettingsError::Missing(name))
}

impl Settings {
    /// The settings of a sidecar with these arguments, in these surroundings. Flags count more than the pod.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn new(args: SidecarArgs, pod: Option<Pod>) -> Result<Self, SettingsError> {
        let named_services = outbound::assign(args.outbound_range, &args.outbound)?;
        let in_pod = pod.is_some();
        let common = Self::of_proxy(ProxyKind::Sidecar, args.proxy, pod)?;
        Ok(Self {
            app_address: given(
                args.app_address,
                in_pod.then_some(common.pod_address),
                "--app-address",
            )?,
            named_services: named_services.into(),
            hosts_file: args.hosts_file,
            on_demand_idle: args.on_demand_idle,
            on_demand_limit: args.on_demand_limit,
            on_demand_wait: args.on_demand_wait,
            ports: Ports {
                outbound: args.outbound_port,
                inbound: args.inbound_port,
                http_proxy: args.http_proxy_port,
                ..common.ports
            },
            ..common
        })
    }

    /// The settings of a gateway with these arguments, in these surroundings. Flags count more than the pod.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn router(args: RouterArgs, pod: Option<Pod>) -> Result<Self, SettingsError> {
        Self::of_proxy(ProxyKind::Router, args.proxy, pod)
    }

    /// What every proxy has: nothing is captured, there is no application, nothing is fetched on demand.
    fn of_proxy(kind: ProxyKind, args: ProxyArgs, pod: Option<Pod>) -> Result<Self, SettingsError> {
        let pod = pod.map(Arc::new);
        let of_pod = |field: fn(&Pod) -> String| pod.as_deref().map(field);
        let pod_name = given(args.pod_name, of_pod(|pod| pod.name.clone()), "--pod-name")?;
        let pod_address =
            given(args.pod_address, pod.as_ref().map(|pod| pod.address), "--pod-address")?;
        let control_plane =
            given(args.control_plane, of_pod(|pod| pod.control_plane.clone()), "--control-plane")?;
        let (host, port) = cli::split_host_port(&control_plane)
            .ok_or(SettingsError::ControlPlane(control_plane))?;
        let file = |path: fn() -> &'static std::path::Path| pod.is_some().then(|| path().into());
        let (own_addresses, admin_addresses) = match &pod {
            Some(_) => listen::in_pod(),
            None => (vec![pod_address], vec![pod_address]),
        };
        let mut labels = pod.as_ref().map(|pod| pod.labels.clone()).unwrap_or_default();
        labels.extend(args.labels);
        let threads = args.concurrency.map(|threads| usize::from(threads.get()));
        Ok(Self {
            standalone: false,
            kind,
            workload_name: args
                .workload_name
                .or_else(|| pod.as_ref()?.workload_name.clone())
                .unwrap_or_else(|| pod_name.clone()),
            pod_name,
            namespace: given(args.namespace, of_pod(|pod| pod.namespace.clone()), "--namespace")?,
            service_account: given(
                args.service_account,
                of_pod(|pod| pod.service_account.clone()),
                "--service-account",
            )?,
            labels,
            cluster_id: args
                .cluster_id
                .or_else(|| pod.as_ref()?.cluster_id.clone())
                .unwrap_or_else(|| "Kubernetes".into()),
            domain: args.domain,
            interception: pod.as_ref().map_or(Interception::None, |pod| pod.interception),
            pod_address,
            app_address: pod_address,
            own_addresses,
            admin_addresses,
            named_services: Arc::default(),
            hosts_file: None,
            control_plane: ControlPlaneSettings {
                san: args.control_plane_san.unwrap_or_else(|| host.clone()),
                host,
                port,
                root: given(args.control_plane_root, file(Pod::root_file), "--control-plane-root")?,
                token_file: given(args.token_file, file(Pod::token_file), "--token-file")?,
            },
            concurrency: threads
                .or_else(|| pod.as_ref()?.concurrency)
                .map_or_else(listen::default_concurrency, |threads| threads.clamp(1, 255)),
            drain_duration: args
                .drain_duration
                .or_else(|| pod.as_ref()?.drain_duration)
                .unwrap_or(DRAIN_DURATION),
            certificate_ttl: args.cert_ttl,
            on_demand_idle: ON_DEMAND_IDLE,
            on_demand_limit: 1,
            on_demand_wait: ON_DEMAND_WAIT,
            ports: Ports {
                admin: args.admin_port,
                status: args.status_port,
                health: args.health_port,
                metrics: args.metrics_port,
                ..Ports::default()
            },
            access_log: args
                .access_log
                .map(|format| AccessLogSettings { format, file: args.access_log_file }),
            log_level: args.log_level,
            log_format: args.log_format,
            pod,
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
        let Some(Command::Sidecar(args)) = cli.command else { panic!("another command") };
        Self::new(*args, None).expect("settings are valid")
    }
}

#[cfg(test)]
mod tests;
