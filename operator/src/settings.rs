//! The operator's settings: flags, each with an environment name.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, ValueEnum};

/// Weft's control plane: configuration and certificates for the proxies of a mesh.
///
/// Reads services, workloads, routes and policies from a folder of YAML, follows its changes, and serves each proxy
/// what it needs over mutual TLS (delta xDS). The same port signs the certificates of workloads that show a token.
/// Problems with the resources never stop it: they are logged and shown on the administration port, and what was
/// in effect before stays.
///
/// Stops on SIGTERM and SIGINT. It may be restarted at any time: proxies carry on with what they have.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-operator", version, after_help = EXAMPLE)]
pub struct Settings {
    /// Where resources come from: dir:PATH is a folder whose .yaml, .yml and .json files are read, at any depth;
    /// kubernetes is the cluster of the pod's service account, or that of KUBECONFIG.
    #[arg(long, env = "WEFT_SOURCE", value_name = "dir:PATH|kubernetes")]
    pub source: Source,

    /// Folder for what must outlive the operator: the authority's root, the key of workload tokens, resources' ages.
    ///
    /// Made when it is not there. To use an authority of your own, put ca-cert.pem, ca-key.pem, root-cert.pem and
    /// cert-chain.pem into it; they are read again when they change. Proxies need its root-cert.pem. Required for a
    /// folder of YAML; with --source kubernetes there is none, as everything is kept in the cluster.
    #[arg(long, env = "WEFT_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// The operator's namespace in Kubernetes: its Secrets, Lease and settings are there, and policies in it are for
    /// the whole mesh unless the mesh configuration names another root namespace.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", default_value = "weft-system")]
    pub namespace: String,

    /// The operator's pod in Kubernetes, which tells its replicas apart.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,

    /// Address of the webhooks that inject proxies and validate resources, HTTPS. Served with --source kubernetes only.
    #[arg(long, env = "WEFT_WEBHOOK", value_name = "ADDRESS", default_value = "127.0.0.1:15017")]
    pub webhook: SocketAddr,

    /// Time for which the operator goes on serving after the signal to stop, while it is not ready any more: callers
    /// have to learn that they are to go elsewhere.
    #[arg(long, env = "WEFT_STOP_DELAY", value_name = "DURATION", default_value = "0s", value_parser = any_duration)]
    pub stop_delay: Duration,

    /// Address for proxies: configuration and certificates, TLS.
    #[arg(long, env = "WEFT_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:15012")]
    pub listen: SocketAddr,

    /// Address of the administration port: /healthz, /ready, /metrics and /debug/, plain HTTP. Keep it private.
    #[arg(long, env = "WEFT_ADMIN", value_name = "ADDRESS", default_value = "127.0.0.1:15014")]
    pub admin: SocketAddr,

    /// A name or address that proxies call the operator by, beside localhost and the address of --listen. Needed
    /// when --listen stands for all addresses.
    #[arg(long, env = "WEFT_SERVING_NAMES", value_name = "NAME", value_delimiter = ',')]
    pub serving_name: Vec<String>,

    /// Trust domain of the mesh's identities. Default: the mesh configuration's, else cluster.local.
    #[arg(long, env = "WEFT_TRUST_DOMAIN", value_name = "DOMAIN")]
    pub trust_domain: Option<String>,

    /// Lifetime of workload certificates. A proxy may ask for less.
    #[arg(long, env = "WEFT_CERT_TTL", value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub cert_ttl: Duration,

    /// The longest lifetime that a proxy may ask for. Default: that of --cert-ttl.
    #[arg(long, env = "WEFT_MAX_CERT_TTL", value_name = "DURATION", value_parser = duration)]
    pub max_cert_ttl: Option<Duration>,

    /// Mesh-wide settings in YAML, with the names of Istio's MeshConfig. A ConfigMap "istio" of the source, key
    /// "mesh", in the root namespace replaces them.
    #[arg(long, env = "WEFT_MESH_CONFIG", value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,

    /// Namespaces whose Secrets are read for the certificates of Gateways: those that gateway proxies run in, or * for
    /// all. With --source kubernetes none are read by default; a folder's are all read.
    #[arg(long, env = "WEFT_SECRET_NAMESPACES", value_name = "NAMESPACE", value_delimiter = ',')]
    pub secret_namespaces: Vec<String>,

    /// Connections of proxies that are held at once; more are refused.
    #[arg(long, env = "WEFT_MAX_CONNECTIONS", value_name = "N", default_value_t = 20_000)]
    pub max_connections: usize,

    /// Time that open streams get when the operator stops.
    #[arg(long, env = "WEFT_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub drain_timeout: Duration,

    /// What is logged: a level (error, warn, info, debug, trace) or filters as in "info,weft_xds=debug".
    #[arg(long, env = "WEFT_LOG", value_name = "FILTER", default_value = "info")]
    pub log_level: String,

    /// How logs look; they go to standard error.
    #[arg(long, env = "WEFT_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

const EXAMPLE: &str = "\
Example: a mesh from the folder ./mesh, and a first look at it
  weft-operator --source dir:mesh --state-dir state
  weft token --state-dir state --namespace default --service-account orders -o orders.token
  weft proxy-status
  curl 127.0.0.1:15014/debug/status";

/// Where resources come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder of YAML.
    Dir(PathBuf),
    /// The API server of a cluster.
    Kubernetes,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Dir(path.into())),
            None if text == "kubernetes" => Ok(Self::Kubernetes),
            _ => Err("expected kubernetes or dir:PATH, for example dir:./mesh".into()),
        }
    }
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

fn any_duration(text: &str) -> Result<Duration, String> {
    let duration: weft_crds::Duration = text.parse().map_err(|error| format!("{error}"))?;
    Ok(duration.into())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = any_duration(text)?;
    if duration < Duration::from_secs(1) {
        return Err("must be at least 1s".into());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_its_defaults_are_loopback() {
        Settings::command().debug_assert();
        let settings =
            Settings::parse_from(["weft-operator", "--source", "dir:mesh", "--state-dir", "state"]);
        assert_eq!(settings.source, Source::Dir("mesh".into()));
        assert_eq!(settings.listen, "127.0.0.1:15012".parse().unwrap());
        assert_eq!(settings.admin, "127.0.0.1:15014".parse().unwrap());
        assert_eq!(settings.cert_ttl, Duration::from_secs(86_400));
    }

    #[test]
    fn mistakes_are_explained() {
        for (arguments, expected) in [
            (["--source", "mesh"], "expected kubernetes or dir:PATH"),
            (["--cert-ttl", "0s"], "at least 1s"),
            (["--cert-ttl", "soon"], "soon"),
            (["--listen", "15012"], "invalid socket address"),
        ] {
            let base = ["weft-operator", "--state-dir", "s", "--source", "dir:a"];
            let base = &base[..if arguments[0] == "--source" { 3 } else { 5 }];
            let error = Settings::try_parse_from(base.iter().chain(&arguments)).unwrap_err();
            assert!(error.to_string().contains(expected), "{arguments:?}: {error}");
        }
    }
}
