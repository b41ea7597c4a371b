//! What the harness needs to know of a Pod object.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::Context;
use serde_json::Value;

/// A pod to start a proxy and an application for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its address, which ends in `.1`: the application's ends in `.2`, and named services have the upper half.
    pub address: Ipv4Addr,
}

impl Pod {
    /// The Pod objects of a file.
    ///
    /// # Errors
    /// When it is not YAML, or a Pod lacks something.
    pub fn in_yaml(yaml: &str) -> anyhow::Result<Vec<Self>> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("not YAML")?;
        documents.iter().filter(|document| document["kind"] == "Pod").map(Self::read).collect()
    }

    fn read(pod: &Value) -> anyhow::Result<Self> {
        let text = |pointer: &str| -> anyhow::Result<String> {
            let value = pod.pointer(pointer).and_then(Value::as_str);
            Ok(value.with_context(|| format!("a Pod without {pointer}"))?.to_owned())
        };
        let labels = pod.pointer("/metadata/labels").cloned().unwrap_or_default();
        Ok(Self {
            name: text("/metadata/name")?,
            namespace: text("/metadata/namespace")?,
            service_account: text("/spec/serviceAccountName")?,
            labels: serde_json::from_value(labels).context("labels")?,
            address: text("/status/podIP")?.parse().context("podIP")?,
        })
    }

    /// A label's value, or "".
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The value of its label `app`, which is the sample application's role.
    pub fn app(&self) -> &str {
        self.label("app")
    }

    /// Whether it only calls others, without an application of its own.
    pub fn is_client(&self) -> bool {
        self.app() == "load"
    }

    /// Whether its proxy stands at the edge of the mesh, without an application.
    pub fn is_gateway(&self) -> bool {
        self.label("istio").ends_with("gateway")
    }

    /// The workload that it belongs to.
    pub fn workload(&self) -> String {
        match self.label("service.istio.io/workload-name") {
            "" => self.name.clone(),
            name => name.to_owned(),
        }
    }

    /// Where the application listens.
    pub fn app_address(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.address.octets();
        Ipv4Addr::new(a, b, c, 2)
    }

    /// The addresses for services that the workload names.
    pub fn outbound_range(&self) -> String {
        let [a, b, c, _] = self.address.octets();
        format!("{a}.{b}.{c}.128/25")
    }
}
