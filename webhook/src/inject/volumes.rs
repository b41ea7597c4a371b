//! Volumes that the proxy needs: who it is, what it trusts, and what the pod says of itself.

use serde_json::{Value, json};

use super::{Added, Injection};
use crate::json;

const TOKEN: &str = "istio-token";
const ROOT: &str = "istiod-ca-cert";
const POD: &str = "istio-podinfo";

impl Injection<'_> {
    pub(super) fn mounts(&self) -> Vec<Value> {
        let mount =
            |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
        let mut mounts = vec![
            mount(TOKEN, "/var/run/secrets/tokens"),
            mount(ROOT, "/var/run/secrets/istio"),
            mount(POD, "/etc/istio/pod"),
        ];
        mounts.extend(self.settings.mounts.iter().cloned());
        mounts
    }

    pub(super) fn add_volumes(&mut self, added: &mut Added) {
        let field = |path: &str| {
            let field = format!("metadata.{path}");
            json!({"path": path, "fieldRef": {"apiVersion": "v1", "fieldPath": field}})
        };
        let mut volumes = vec![
            json!({
                "name": TOKEN,
                "projected": {"sources": [{
                    "serviceAccountToken": {
                        "audience": "istio-ca",
                        "expirationSeconds": 43200,
                        "path": "istio-token",
                    },
                }]},
            }),
            json!({"name": ROOT, "configMap": {"name": "istio-ca-root-cert"}}),
            json!({"name": POD, "downwardAPI": {"items": [field("labels"), field("annotations")]}}),
        ];
        volumes.append(&mut self.settings.volumes);
        let secrets = &self.config.image_pull_secrets;
        let spec = self.spec();
        let there = json::list_mut(spec, "volumes");
        for volume in volumes {
            // The pod's own volume of that name is what its author wants.
            if there.iter().all(|other| json::name(other) != json::name(&volume)) {
                added.volumes.push(json::name(&volume).to_owned());
                there.push(volume);
            }
        }
        for secret in secrets {
            let there = json::list_mut(spec, "imagePullSecrets");
            if there.iter().all(|other| json::name(other) != secret) {
                there.push(json!({"name": secret}));
                added.image_pull_secrets.push(secret.clone());
            }
        }
    }
}
