//! The command line. Every flag of a proxy of the mesh has an environment name.

use std::{net::IpAddr, num::NonZeroU8, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::{duration::parse_duration, standalone::StandaloneArgs};
use crate::capture::settings::InitArgs;

/// Weft's data plane: the proxy that runs beside every workload.
///
/// It gets its certificate and its configuration from weft-operator, carries the workload's traffic under mutual
/// TLS, and answers questions about itself on its administration port.
///
/// With --config it runs by an Envoy bootstrap file instead: without a control plane, as Envoy would by the same file.
#[derive(Debug, Parser)]
#[command(
    name = "weft-proxy",
    version,
    arg_required_else_help = true,
    override_usage = "weft-proxy <COMMAND> [OPTIONS]\n       weft-proxy --config <FILE> [OPTIONS]",
    after_help = STANDALONE_EXAMPLE
)]
pub struct Cli {
    /// What to run as, unless the configuration is a file.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to do with a file.
    #[command(flatten)]
    pub standalone: StandaloneArgs,
}

/// What the proxy runs as.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run beside one workload.
    ///
    /// In a pod of Kubernetes (POD_NAME is set) the rest of the environment says what the injector wrote there, and flags
    /// are not needed: connections that `weft-proxy init` captured come in on 15001 and 15006.
    ///
    /// Elsewhere there is no capture, and no privileges are needed. The proxy listens on the pod address for the workload's service ports and forwards to the same ports of the
    /// application address. Outbound, the application either names the explicit proxy
    /// (http_proxy=http://APP_ADDRESS:15007) or connects to the addresses that --outbound assigns.
    ///
    /// Stops on SIGTERM or SIGINT: new connections are refused, requests in flight are finished for at most
    /// --drain-duration.
    #[command(after_help = EXAMPLE)]
    Sidecar(Box<SidecarArgs>),
    /// Run at an edge of the mesh: a gateway.
    ///
    /// Listens where the Gateways that select its labels say, and forwards by the VirtualServices that name them. In a pod
    /// of Kubernetes (POD_NAME is set) no flags are needed; elsewhere it listens on the pod address. Certificates that a
    /// Gateway names (credentialName) come from the control plane, files are watched for changes.
    ///
    /// Stops as a sidecar does.
    #[command(after_help = ROUTER_EXAMPLE)]
    Router(Box<RouterArgs>),
    /// Capture the connections of this network namespace: the step before a pod's containers start.
    ///
    /// Writes packet rules (nftables) in one transaction and reads them back; a second run replaces what the first wrote.
    /// Needs NET_ADMIN.
    Init(Box<InitArgs>),
    /// Tell the proxy of this pod that the pod is about to go: its preStop hook.
    ///
    /// Inbound connections are told to go away, new ones are still taken.
    Drain(DrainArgs),
    /// Wait until the proxy of this pod is ready: its postStart hook, which holds the application back.
    Wait(WaitArgs),
}

/// Arguments of `weft-proxy drain`.
#[derive(Clone, Copy, Debug, Args)]
pub struct DrainArgs {
    /// The proxy's port for the pod.
    #[arg(long, env = "WEFT_STATUS_PORT", default_value_t = 15020, value_name = "PORT")]
    pub status_port: u16,
}

/// Arguments of `weft-proxy wait`.
#[derive(Clone, Copy, Debug, Args)]
pub struct WaitArgs {
    /// The proxy's port for health checks.
    #[arg(long, env = "WEFT_HEALTH_PORT", default_value_t = 15021, value_name = "PORT")]
    pub health_port: u16,
    /// After so long the wait fails.
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Duration,
}

const STANDALONE_EXAMPLE: &str = "\
Example: two data threads by the file that Envoy runs by, after a look whether it can be used:
  weft-proxy --config front-proxy.yaml --mode validate
  weft-proxy --config front-proxy.yaml --concurrency 2";

const EXAMPLE: &str = "\
Example: order-service on 127.20.1.1, its application on 127.20.1.2, calling two services by address:
  weft token --state-dir state --namespace default --service-account order-service -o order.token
  weft-proxy sidecar --pod-name order-service-v1-0 --namespace default --service-account order-service \\
    --label app=order-service --label version=v1 --pod-address 127.20.1.1 --app-address 127.20.1.2 \\
    --outbound-range 127.20.1.16/28 --outbound user-service:8080 --outbound payment-service:9090 \\
    --hosts-file order.hosts --control-plane 127.0.0.1:15012 --control-plane-root state/root-cert.pem \\
    --token-file order.token
  curl 127.20.1.1:15000/help";

const ROUTER_EXAMPLE: &str = "\
Example: the gateway of the Gateways with selector istio: ingressgateway, on 127.20.9.1:
  weft token --state-dir state --namespace istio-system --service-account ingress -o ingress.token
  weft-proxy router --pod-name ingress-0 --namespace istio-system --service-account ingress \\
    --label istio=ingressgateway --pod-address 127.20.9.1 --control-plane 127.0.0.1:15012 \\
    --control-plane-root state/root-cert.pem --token-file ingress.token
  curl 127.20.9.1:15000/listeners";

/// How the proxy logs about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How the access log looks: Istio's formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessLogFormat {
    /// Istio's default line.
    Text,
    /// One JSON object a line, with Istio's keys.
    Json,
}

/// Arguments of every proxy.
#[derive(Debug, Args)]
pub struct ProxyArgs {
    /// Name of the pod.
    #[arg(long, env = "WEFT_POD_NAME", value_name = "NAME", help_heading = "Workload")]
    pub pod_name: Option<String>,
    /// Namespace of the pod; the certificate says the same.
    #[arg(long, env = "WEFT_NAMESPACE", value_name = "NS", help_heading = "Workload")]
    pub namespace: Option<String>,
    /// Service account of the pod; the certificate says the same.
    #[arg(long, env = "WEFT_SERVICE_ACCOUNT", value_name = "SA", help_heading = "Workload")]
    pub service_account: Option<String>,
    /// Workload (Deployment or the like) that the pod belongs to [default: the pod's name].
    #[arg(long, env = "WEFT_WORKLOAD_NAME", value_name = "NAME", help_heading = "Workload")]
    pub workload_name: Option<String>,
    /// A label of the pod; may be repeated, or hold several separated by commas.
    #[arg(
        long = "label", env = "WEFT_LABELS", value_name = "KEY=VALUE", value_delimiter = ',',
        value_parser = parse_label, help_heading = "Workload"
    )]
    pub labels: Vec<(String, String)>,
    /// Name of the Kubernetes cluster, for telemetry [default: Kubernetes].
    #[arg(long, env = "WEFT_CLUSTER_ID", value_name = "NAME", help_heading = "Workload")]
    pub cluster_id: Option<String>,
    /// Domain of the mesh's services.
    #[arg(
        long,
        env = "WEFT_DOMAIN",
        default_value = "cluster.local",
        value_name = "DOMAIN",
        help_heading = "Workload"
    )]
    pub domain: String,
    /// Address that Pod and EndpointSlice give for the workload; the proxy listens on it.
    #[arg(long, env = "WEFT_POD_ADDRESS", value_name = "IP", help_heading = "Addresses")]
    pub pod_address: Option<IpAddr>,
    /// weft-operator's address for configuration and certificates.
    #[arg(
        long,
        env = "WEFT_CONTROL_PLANE",
        value_name = "HOST:PORT",
        help_heading = "Control plane"
    )]
    pub control_plane: Option<String>,
    /// PEM file with the root that the operator's certificate is checked against; read again for every connection.
    #[arg(
        long,
        env = "WEFT_CONTROL_PLANE_ROOT",
        value_name = "FILE",
        help_heading = "Control plane"
    )]
    pub control_plane_root: Option<PathBuf>,
    /// Name that the operator's certificate must have [default: the host of --control-plane].
    #[arg(
        long,
        env = "WEFT_CONTROL_PLANE_SAN",
        value_name = "NAME",
        help_heading = "Control plane"
    )]
    pub control_plane_san: Option<String>,
    /// File with the token that certificates are asked for with; read again each time.
    #[arg(long, env = "WEFT_TOKEN_FILE", value_name = "FILE", help_heading = "Control plane")]
    pub token_file: Option<PathBuf>,
    /// Lifetime that certificates are asked for; they are renewed at half of what was given.
    #[arg(
        long, env = "WEFT_CERT_TTL", default_value = "24h", value_name = "DURATION",
        value_parser = parse_duration, help_heading = "Control plane"
    )]
    pub cert_ttl: Duration,
    /// Data threads [default: the CPUs that the process may use, at most 2].
    #[arg(long, env = "WEFT_CONCURRENCY", value_name = "N", help_heading = "Behaviour")]
    pub concurrency: Option<NonZeroU8>,
    /// How long a drain may take before what is left is closed [default: 45s].
    #[arg(
        long, env = "WEFT_DRAIN_DURATION", value_name = "DURATION",
        value_parser = parse_duration, help_heading = "Behaviour"
    )]
    pub drain_duration: Option<Duration>,
    /// Access log of every listener, whatever the control plane says.
    #[arg(long, env = "WEFT_ACCESS_LOG", value_name = "FORMAT", help_heading = "Logs")]
    pub access_log: Option<AccessLogFormat>,
    /// Where the access log goes.
    #[arg(
        long,
        env = "WEFT_ACCESS_LOG_FILE",
        default_value = "/dev/stdout",
        value_name = "PATH",
        help_heading = "Logs"
    )]
    pub access_log_file: PathBuf,
    /// What the proxy logs about itself: error, warn, info, debug, trace, or directives such as warn,weft_proxy=debug.
    #[arg(
        long,
        env = "WEFT_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL",
        help_heading = "Logs"
    )]
    pub log_level: String,
    /// How the proxy logs about itself, on standard error.
    #[arg(long, env = "WEFT_LOG_FORMAT", default_value = "text", help_heading = "Logs")]
    pub log_format: LogFormat,
    /// Administration: /help, /ready, /stats, /clusters, /config_dump, ...
    #[arg(
        long,
        env = "WEFT_ADMIN_PORT",
        default_value_t = 15000,
        value_name = "PORT",
        help_heading = "Ports"
    )]
    pub admin_port: u16,
    /// /healthz/ready and /stats/prometheus.
    #[arg(
        long,
        env = "WEFT_STATUS_PORT",
        default_value_t = 15020,
        value_name = "PORT",
        help_heading = "Ports"
    )]
    pub status_port: u16,
    /// /healthz/ready.
    #[arg(
        long,
        env = "WEFT_HEALTH_PORT",
        default_value_t = 15021,
        value_name = "PORT",
        help_heading = "Ports"
    )]
    pub health_port: u16,
    /// /stats/prometheus.
    #[arg(
        long,
        env = "WEFT_METRICS_PORT",
        default_value_t = 15090,
        value_name = "PORT",
        help_heading = "Ports"
    )]
    pub metrics_port: u16,
}

/// Arguments of `weft-proxy sidecar`.
#[derive(Debug, Args)]
pub struct SidecarArgs {
    /// Those of every proxy.
    #[command(flatten)]
    pub proxy: ProxyArgs,

    /// Address that the application listens on and that only this proxy calls.
    #[arg(long, env = "WEFT_APP_ADDRESS", value_name = "IP", help_heading = "Addresses")]
    pub app_address: Option<IpAddr>,
    /// Addresses that named services take, one per host, in order.
    #[arg(long, env = "WEFT_OUTBOUND_RANGE", value_name = "CIDR", help_heading = "Addresses")]
    pub outbound_range: Option<IpNet>,
    /// A service that the application calls by address: the proxy listens for it on the host's address and PORT. May be
    /// repeated, or hold several separated by commas.
    #[arg(
        long, env = "WEFT_OUTBOUND", value_name = "HOST:PORT", value_delimiter = ',',
        value_parser = parse_host_port, help_heading = "Addresses"
    )]
    pub outbound: Vec<(String, u16)>,
    /// File that the named services' addresses are written to, in the form of /etc/hosts.
    #[arg(long, env = "WEFT_HOSTS_FILE", value_name = "PATH", help_heading = "Addresses")]
    pub hosts_file: Option<PathBuf>,
    /// Configuration fetched on demand is dropped when it was not used for so long.
    #[arg(
        long, env = "WEFT_ON_DEMAND_IDLE", default_value = "10m", value_name = "DURATION",
        value_parser = parse_duration, help_heading = "Behaviour"
    )]
    pub on_demand_idle: Duration,
    /// Most destinations fetched on demand that are held at once; the least recently used give way.
    #[arg(
        long,
        env = "WEFT_ON_DEMAND_LIMIT",
        default_value_t = 4096,
        value_name = "N",
        help_heading = "Behaviour"
    )]
    pub on_demand_limit: usize,
    /// How long the first request to a destination waits for the control plane's answer.
    #[arg(
        long, env = "WEFT_ON_DEMAND_WAIT", default_value = "5s", value_name = "DURATION",
        value_parser = parse_duration, help_heading = "Behaviour"
    )]
    pub on_demand_wait: Duration,
    /// Captured outbound traffic.
    #[arg(
        long,
        env = "WEFT_OUTBOUND_PORT",
        default_value_t = 15001,
        value_name = "PORT",
        help_heading = "Ports"
    )]
    pub outbound_port: u16,
    /// Captured inbound traffic; without capture the service ports themselves are bound as the control plane says.
    #[arg(
        long,
        env = "WEFT_INBOUND_PORT",
        default_value_t = 15006,
        value_name = "PORT",
        help_heading = "Ports"
    )]
    pub inbound_port: u16,
    /// The explicit HTTP proxy, on the application's address.
    #[arg(
        long,
        env = "WEFT_HTTP_PROXY_PORT",
        default_value_t = 15007,
        value_name = "PORT",
        help_heading = "Ports"
    )]
    pub http_proxy_port: u16,
}

/// Arguments of `weft-proxy router`.
#[derive(Debug, Args)]
pub struct RouterArgs {
    /// Those of every proxy.
    #[command(flatten)]
    pub proxy: ProxyArgs,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

fn parse_host_port(text: &str) -> Result<(String, u16), String> {
    split_host_port(text).ok_or_else(|| format!("{text:?} is not HOST:PORT"))
}

/// `HOST:PORT`, or `[IPv6]:PORT`; the brackets are taken off.
pub(super) fn split_host_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}
