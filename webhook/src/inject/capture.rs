//! The container that has the pod's traffic captured, before anything else in the pod runs.

use serde_json::{Value, json};

use super::{INIT, Injection};

impl Injection<'_> {
    /// `weft-proxy init`: root, with the two capabilities that writing the rules takes, and nothing more.
    pub(super) fn init_container(&self) -> Value {
        let capture = &self.settings.capture;
        let excluded_inbound = capture.excluded_inbound_ports(self.settings.status_port);
        let mut args: Vec<&str> = vec![
            "init",
            "-p",
            "15001",
            "-z",
            "15006",
            "-u",
            "1337",
            "-m",
            capture.mode.as_str(),
            "-i",
            &capture.include_outbound_ip_ranges,
            "-x",
            &capture.exclude_outbound_ip_ranges,
            "-b",
            &capture.include_inbound_ports,
            "-d",
            &excluded_inbound,
        ];
        for (flag, value) in [
            ("-q", &capture.include_outbound_ports),
            ("-o", &capture.exclude_outbound_ports),
            ("-k", &capture.virtual_interfaces),
            ("-c", &capture.exclude_interfaces),
        ] {
            if !value.is_empty() {
                args.extend([flag, value]);
            }
        }
        let mut container = json!({
            "name": INIT,
            "image": self.settings.image,
            "imagePullPolicy": self.config.image_pull_policy,
            "args": args,
            "resources": self.settings.resources,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "privileged": false,
                "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
                "readOnlyRootFilesystem": true,
                "runAsGroup": 0,
                "runAsNonRoot": false,
                "runAsUser": 0,
            },
        });
        self.add_seccomp(&mut container);
        container
    }

    /// The profile that Kubernetes' restricted pods must have.
    pub(super) fn add_seccomp(&self, container: &mut Value) {
        let profile = self.config.seccomp_profile.as_str();
        if !profile.is_empty() {
            container["securityContext"]["seccompProfile"] = json!({"type": profile});
        }
    }
}
