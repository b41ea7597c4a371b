//! The configuration files of the node's programs.

use std::{fs, path::Path};

use clap::ValueEnum;
use serde_json::{Value, json};

use super::{
    access::{self, INSIDE},
    certificates::pair,
    folder::Folder,
    packages::CNI,
};

/// The image of what holds a pod's namespaces.
pub const PAUSE: &str = "docker.io/weft/pause:dev";

/// The node's own addresses: IPv4, and IPv6.
pub const NODE_ADDRESSES: [&str; 2] = ["172.30.0.2", "fd00:30::2"];

const POD_RANGES: [&str; 2] = ["10.244.0.0/16", "fd00:244::/64"];
const SERVICE_RANGES: [&str; 2] = ["10.96.0.0/16", "fd00:96::/112"];
const NAME_SERVERS: [&str; 2] = ["10.96.0.10", "fd00:96::a"];

/// Which addresses the cluster's pods and Services have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Families {
    /// IPv4 and IPv6; a Service that does not ask has IPv4.
    #[default]
    Dual,
    /// IPv6 and nothing else.
    Ipv6,
}

impl Families {
    fn of(self, both: &'static [&'static str; 2]) -> &'static [&'static str] {
        match self {
            Self::Dual => both,
            Self::Ipv6 => &both[1..],
        }
    }

    /// The node's own addresses, as Kubernetes knows it by; the first is the API server's.
    pub fn node_addresses(self) -> &'static [&'static str] {
        self.of(&NODE_ADDRESSES)
    }

    /// Addresses of pods.
    pub fn pod_ranges(self) -> &'static [&'static str] {
        self.of(&POD_RANGES)
    }

    /// Addresses of Services; the API server's is the first of it, and [`Families::name_server`] is one.
    pub fn service_ranges(self) -> &'static [&'static str] {
        self.of(&SERVICE_RANGES)
    }

    /// The Service of CoreDNS.
    pub fn name_server(self) -> &'static str {
        self.of(&NAME_SERVERS)[0]
    }
}

/// Writes all of them.
///
/// # Errors
/// When a file cannot be written.
pub fn write(folder: &Folder, authority: &str, families: Families) -> anyhow::Result<()> {
    for user in ["controller-manager", "scheduler", "kube-proxy", "kubelet"] {
        let access = access::kubeconfig(folder, user, INSIDE, authority)?;
        folder.write(&format!("{user}.kubeconfig"), access.as_bytes())?;
    }
    folder.write("kubelet.json", &serde_json::to_vec_pretty(&kubelet(folder, families))?)?;
    folder.write("kube-proxy.json", &serde_json::to_vec_pretty(&kube_proxy(folder, families))?)?;
    folder.write("containerd.toml", containerd(folder).as_bytes())?;
    folder
        .write("cni/10-weft.conflist", &serde_json::to_vec_pretty(&network(folder, families))?)?;
    // Pods that ask for the node's own resolver: there is no network to resolve names of.
    folder.write("resolv.conf", format!("nameserver {}\n", families.name_server()).as_bytes())?;
    for path in ["logs", "pods", "plugins", "kubelet", "etcd", "wanted", "running", "manifests"] {
        fs::create_dir_all(folder.file(path))?;
    }
    Ok(())
}

/// Whether the machine has one hierarchy of control groups.
pub fn unified_control_groups() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn kubelet(folder: &Folder, families: Families) -> Value {
    let server = pair(folder, "kubelet-server");
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "::",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": pair(folder, "ca").certificate },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": server.certificate,
        "tlsPrivateKeyFile": server.key,
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": true,
        "cgroupRoot": format!("/{}", super::control_groups::name(folder)),
        "enforceNodeAllocatable": [],
        // Without CAP_SYS_RESOURCE no process may make itself less likely to be killed.
        "oomScoreAdj": 0,
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "containerRuntimeEndpoint": format!("unix://{}", folder.containerd().display()),
        "clusterDNS": [families.name_server()],
        "clusterDomain": "cluster.local",
        "resolvConf": folder.file("resolv.conf"),
        "podLogsDir": folder.file("pods"),
        "volumePluginDir": folder.file("plugins"),
        "serializeImagePulls": false,
        "maxPods": 250,
        "nodeStatusUpdateFrequency": "5s",
        "rotateCertificates": false,
        "logging": { "format": "text" },
    })
}

fn kube_proxy(folder: &Folder, families: Families) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "oomScoreAdj": 0,
        "hostnameOverride": "node",
        "clusterCIDR": families.pod_ranges().join(","),
        "clientConnection": { "kubeconfig": folder.file("kube-proxy.kubeconfig") },
        // Limits of the machine's connection tracking stay as they are.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    })
}

fn network(folder: &Folder, families: Families) -> Value {
    let ranges: Vec<_> =
        families.pod_ranges().iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
    let everywhere = families.of(&["0.0.0.0/0", "::/0"]);
    let routes: Vec<_> = everywhere.iter().map(|dst| json!({ "dst": dst })).collect();
    json!({
        "cniVersion": "1.0.0",
        "name": "weft",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": folder.file("addresses"),
                    "ranges": ranges,
                    "routes": routes,
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

fn containerd(folder: &Folder) -> String {
    let file = |path: &str| folder.file(path).display().to_string();
    format!(
        r#"version = 2
root = {root:?}
state = "/run/weft-containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
address = {socket:?}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = {PAUSE:?}
# Every sandbox fails without this where the machine's root lacks CAP_SYS_RESOURCE.
restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {CNI:?}
conf_dir = {cni:?}

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#,
        root = file("containerd"),
        socket = folder.containerd().display().to_string(),
        cni = file("cni"),
    )
}
