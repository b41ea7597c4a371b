//! CoreDNS as the cluster's name server: an ordinary Deployment behind the Service `kube-dns`.

use serde_json::{Value, json};

use super::config::Families;

/// The image made of the program in the cache.
pub const IMAGE: &str = "docker.io/weft/coredns:dev";

/// Names outside the cluster are those in `hosts`, which tests may write to; all others do not exist.
const COREFILE: &str = "\
.:53 {
    errors
    health :8080
    ready :8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }
    hosts /etc/coredns/hosts {
        ttl 5
        fallthrough
    }
    file /etc/coredns/nothing .
    cache 5
    loop
    reload 2s 1s
}
";

/// A root zone without names: what nobody knows does not exist, rather than being a fault of the server.
const NOTHING: &str = "@ 60 IN SOA nothing. nobody. 1 60 60 60 5\n@ 60 IN NS nothing.\n";

/// What is applied to a new cluster.
pub fn name_server(families: Families) -> Value {
    let labels = json!({ "k8s-app": "kube-dns" });
    let meta = |name: &str| json!({ "name": name, "namespace": "kube-system", "labels": labels });
    let watched = ["endpoints", "services", "pods", "namespaces"];
    let objects = [
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("coredns") }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "weft-cluster:coredns" },
            "rules": [
                { "apiGroups": [""], "resources": watched, "verbs": ["list", "watch"] },
                { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "weft-cluster:coredns" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "weft-cluster:coredns" },
            "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }],
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("coredns"),
            "data": { "Corefile": COREFILE, "hosts": "# ADDRESS NAME...\n", "nothing": NOTHING },
        }),
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("coredns"), "spec": deployment() }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta("kube-dns"),
            "spec": {
                "clusterIP": families.name_server(),
                "selector": labels,
                "ports": [
                    { "name": "dns", "port": 53, "protocol": "UDP" },
                    { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
                ],
            },
        }),
    ];
    json!({ "apiVersion": "v1", "kind": "List", "items": objects })
}

fn deployment() -> Value {
    let labels = json!({ "k8s-app": "kube-dns" });
    json!({
        "replicas": 1,
        "selector": { "matchLabels": labels },
        "template": {
            "metadata": { "labels": labels },
            "spec": {
                "serviceAccountName": "coredns",
                "priorityClassName": "system-cluster-critical",
                "dnsPolicy": "Default",
                "containers": [{
                    "name": "coredns",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "args": ["-conf", "/etc/coredns/Corefile"],
                    "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }],
                    "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1 },
                    "livenessProbe": { "httpGet": { "path": "/health", "port": 8080 }, "periodSeconds": 10, "failureThreshold": 6 },
                    "resources": { "requests": { "cpu": "50m", "memory": "32Mi" } },
                    "securityContext": { "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false },
                }],
                "volumes": [{ "name": "config", "configMap": { "name": "coredns" } }],
            },
        },
    })
}
