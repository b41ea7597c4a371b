//! The programs that the node runs, with their command lines. Process 1 reads this as `components.json`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::{certificates::pair, config::Families, folder::Folder, packages};

/// What the API server needs before it, in the order of start.
pub const FIRST: [&str; 3] = ["etcd", "containerd", "api-socket"];

/// The API server's own name among the components.
pub const API_SERVER: &str = "kube-apiserver";

/// What needs the API server.
pub const LAST: [&str; 4] = ["kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"];

/// A program of the node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Component {
    /// Names it on the command line, and its log.
    pub name: String,
    /// Absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// All of them.
///
/// # Errors
/// When a Debian program is missing.
pub fn all(folder: &Folder, programs: &Path, families: Families) -> anyhow::Result<Vec<Component>> {
    let debian = |name: &str| packages::find(name).with_context(|| format!("{name} is missing"));
    let own = |name: &str, arguments: Vec<String>| Component {
        name: name.to_owned(),
        program: programs.join(name),
        arguments,
    };
    let file = |path: &str| folder.file(path).display().to_string();
    Ok(vec![
        own("etcd", etcd(&file("etcd"))),
        Component {
            name: "containerd".into(),
            program: debian("containerd")?,
            arguments: vec!["--config".into(), file("containerd.toml")],
        },
        Component {
            name: "api-socket".into(),
            program: debian("socat")?,
            arguments: vec![
                format!("UNIX-LISTEN:{},fork,unlink-early", file("api.sock")),
                "TCP:127.0.0.1:6443".into(),
            ],
        },
        own(API_SERVER, api_server(folder, families)),
        own("kube-controller-manager", controller_manager(folder, families)),
        own(
            "kube-scheduler",
            vec![
                flag("kubeconfig", file("scheduler.kubeconfig")),
                flag("leader-elect", "false"),
                flag("bind-address", "127.0.0.1"),
            ],
        ),
        own("kube-proxy", vec![flag("config", file("kube-proxy.json"))]),
        own(
            "kubelet",
            vec![
                flag("config", file("kubelet.json")),
                flag("kubeconfig", file("kubelet.kubeconfig")),
                flag("root-dir", file("kubelet")),
                flag("node-ip", families.node_addresses().join(",")),
                flag("hostname-override", "node"),
                flag(
                    "node-labels",
                    "topology.kubernetes.io/region=local,topology.kubernetes.io/zone=local-a",
                ),
            ],
        ),
    ])
}

fn flag(name: &str, value: impl AsRef<str>) -> String {
    format!("--{name}={}", value.as_ref())
}

fn etcd(data: &str) -> Vec<String> {
    vec![
        flag("data-dir", data),
        flag("listen-client-urls", "http://127.0.0.1:2379"),
        flag("advertise-client-urls", "http://127.0.0.1:2379"),
        flag("listen-peer-urls", "http://127.0.0.1:2380"),
        flag("initial-advertise-peer-urls", "http://127.0.0.1:2380"),
        flag("initial-cluster", "default=http://127.0.0.1:2380"),
        // What it holds lives as long as the cluster; nobody needs it after a power cut.
        "--unsafe-no-fsync".into(),
        flag("log-level", "warn"),
    ]
}

fn api_server(folder: &Folder, families: Families) -> Vec<String> {
    let certificate = |name: &str| pair(folder, name).certificate.display().to_string();
    let key = |name: &str| pair(folder, name).key.display().to_string();
    let file = |path: &str| folder.file(path).display().to_string();
    vec![
        flag("etcd-servers", "http://127.0.0.1:2379"),
        flag("secure-port", "6443"),
        flag("bind-address", "::"),
        flag("advertise-address", families.node_addresses()[0]),
        flag("tls-cert-file", certificate("apiserver")),
        flag("tls-private-key-file", key("apiserver")),
        flag("client-ca-file", certificate("ca")),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-admission-plugins", "NodeRestriction"),
        flag("allow-privileged", "true"),
        flag("service-cluster-ip-range", families.service_ranges().join(",")),
        flag("service-account-issuer", "https://kubernetes.default.svc"),
        flag("service-account-key-file", file("pki/service-accounts.pub")),
        flag("service-account-signing-key-file", file("pki/service-accounts.key")),
        flag("kubelet-client-certificate", certificate("apiserver-to-kubelet")),
        flag("kubelet-client-key", key("apiserver-to-kubelet")),
        flag("kubelet-certificate-authority", certificate("ca")),
        flag("kubelet-preferred-address-types", "InternalIP"),
        flag("enable-aggregator-routing", "true"),
        flag("proxy-client-cert-file", certificate("front-proxy")),
        flag("proxy-client-key-file", key("front-proxy")),
        flag("requestheader-client-ca-file", certificate("front-proxy-ca")),
        flag("requestheader-allowed-names", "front-proxy-client"),
        flag("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        flag("requestheader-group-headers", "X-Remote-Group"),
        flag("requestheader-username-headers", "X-Remote-User"),
    ]
}

fn controller_manager(folder: &Folder, families: Families) -> Vec<String> {
    let file = |path: &str| folder.file(path).display().to_string();
    let authority = pair(folder, "ca");
    vec![
        flag("kubeconfig", file("controller-manager.kubeconfig")),
        flag("leader-elect", "false"),
        flag("bind-address", "127.0.0.1"),
        // There is no other node to go to: while the API server is paused, the node is not taken for lost, or its pods
        // would leave all Services at once when it is back.
        flag("node-monitor-grace-period", "10m"),
        flag("use-service-account-credentials", "true"),
        flag("service-account-private-key-file", file("pki/service-accounts.key")),
        flag("root-ca-file", authority.certificate.display().to_string()),
        flag("cluster-signing-cert-file", authority.certificate.display().to_string()),
        flag("cluster-signing-key-file", authority.key.display().to_string()),
        flag("cluster-cidr", families.pod_ranges().join(",")),
        flag("service-cluster-ip-range", families.service_ranges().join(",")),
    ]
}
