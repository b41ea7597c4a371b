//! The settings of a proxy whose configuration is a file: flags as Envoy has them, and what the file says of the process.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU8,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueEnum};
use weft_api::node::{Interception, ProxyKind};

use super::{
    ControlPlaneSettings, LogFormat, ON_DEMAND_IDLE, ON_DEMAND_WAIT, Ports, Settings, listen,
    parse_duration,
};

/// What is done with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Run by it.
    Serve,
    /// Read it, say whether it can be used, and end.
    Validate,
}

/// Arguments of `weft-proxy --config FILE`.
#[derive(Debug, Args)]
pub struct StandaloneArgs {
    /// Run by an Envoy bootstrap file (v3, YAML or JSON), without a control plane.
    ///
    /// What the proxy does not support is refused with the path of the field.
    #[arg(short = 'c', long, alias = "config-path", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Run by the file, or say only whether it can be used.
    #[arg(long, value_name = "MODE", default_value = "serve", requires = "config")]
    pub mode: Mode,
    /// Data threads [default: the CPUs that the process may use, at most 2].
    #[arg(long, value_name = "N", requires = "config")]
    pub concurrency: Option<NonZeroU8>,
    /// What is logged: trace, debug, info, warn, error, off, or directives such as warn,weft_proxy=debug.
    #[arg(short = 'l', long, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// How the proxy logs about itself, on standard error.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Name of this proxy; counts more than the file's `node.id`.
    #[arg(long, value_name = "NAME", requires = "config")]
    pub service_node: Option<String>,
    /// Name of the service that it is part of; counts more than the file's `node.cluster`.
    #[arg(long, value_name = "NAME", requires = "config")]
    pub service_cluster: Option<String>,
    /// Requests in flight are finished for at most so long when the proxy is told to stop.
    #[arg(
        long, value_name = "DURATION", default_value = "45s",
        value_parser = parse_duration, requires = "config"
    )]
    pub drain_duration: Duration,
    /// Taken for Envoy's sake: there is no hot restart.
    #[arg(long, hide = true)]
    pub disable_hot_restart: bool,
}

/// What the file says of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// `node.id`
    pub node_id: String,
    /// `node.cluster`
    pub node_cluster: String,
    /// Where administration listens; `None`: nowhere.
    pub admin: Option<SocketAddr>,
}

impl Settings {
    /// The settings of a proxy whose configuration is a file.
    pub fn standalone(args: &StandaloneArgs, said: Said) -> Self {
        let node = args.service_node.clone().unwrap_or(said.node_id);
        let service = args.service_cluster.clone().unwrap_or(said.node_cluster);
        let nowhere = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            standalone: true,
            kind: ProxyKind::Router,
            pod_name: node,
            namespace: String::new(),
            service_account: String::new(),
            workload_name: service,
            labels: std::collections::BTreeMap::new(),
            cluster_id: String::new(),
            domain: String::new(),
            interception: Interception::None,
            pod_address: nowhere,
            app_address: nowhere,
            own_addresses: Vec::new(),
            admin_addresses: said.admin.iter().map(SocketAddr::ip).collect(),
            pod: None,
            named_services: Arc::default(),
            hosts_file: None,
            control_plane: ControlPlaneSettings {
                host: String::new(),
                port: 0,
                root: PathBuf::new(),
                san: String::new(),
                token_file: PathBuf::new(),
            },
            concurrency: args
                .concurrency
                .map_or_else(listen::default_concurrency, |threads| threads.get().into()),
            drain_duration: args.drain_duration,
            certificate_ttl: Duration::ZERO,
            on_demand_idle: ON_DEMAND_IDLE,
            on_demand_limit: 1,
            on_demand_wait: ON_DEMAND_WAIT,
            ports: Ports { admin: said.admin.map_or(0, |admin| admin.port()), ..Ports::default() },
            access_log: None,
            log_level: args.log_level.clone(),
            log_format: args.log_format,
        }
    }
}
