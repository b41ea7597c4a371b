//! The injector's settings, from the ConfigMap with the mesh's settings. Settings that make no sense leave those before;
//! where there are none yet, the fields among them that do make sense count, so that an operator that starts serves.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::{Api, runtime::watcher::watch_object};
use tokio::{sync::watch, time::sleep};
use weft_webhook::InjectConfig;

use super::{Cluster, MESH_CONFIG, events::Events};
use crate::backoff::Backoff;

/// What is wrong with the injector's settings. Empty when they are in effect as they are written.
pub type Problems = Arc<Vec<String>>;

/// Where the injector's settings go.
pub struct Injector {
    /// Those in effect.
    pub settings: watch::Sender<Arc<InjectConfig>>,
    /// What is wrong with those that are written.
    pub problems: watch::Sender<Problems>,
}

/// What becomes of the settings when the ConfigMap changes.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// The settings from now on; `None` when those before stay.
    settings: Option<InjectConfig>,
    problems: Vec<String>,
}

/// `first`: no settings are in effect yet.
fn judge(config_map: Option<&ConfigMap>, first: bool) -> Outcome {
    let empty = BTreeMap::new();
    let data = config_map.and_then(|map| map.data.as_ref()).unwrap_or(&empty);
    let text = |key: &str| data.get(key).map_or("", String::as_str);
    let (values, mesh) = (text("values"), text("mesh"));
    match InjectConfig::read(values, mesh) {
        Ok(settings) => Outcome { settings: Some(settings), problems: Vec::new() },
        Err(_) => {
            let (settings, problems) = InjectConfig::salvage(values, mesh);
            let problems = problems.iter().map(ToString::to_string).collect();
            Outcome { settings: first.then_some(settings), problems }
        }
    }
}

impl Injector {
    /// Keeps the settings those of the ConfigMap, for as long as somebody reads them.
    pub async fn follow(self, cluster: Cluster) {
        let events = Events::new(&cluster);
        let api = Api::<ConfigMap>::namespaced(cluster.client, &cluster.namespace);
        let stream = watch_object(api, MESH_CONFIG);
        pin_mut!(stream);
        let mut backoff = Backoff::default();
        let mut first = true;
        while let Some(event) = stream.next().await {
            let config_map = match event {
                Ok(config_map) => config_map,
                Err(error) => {
                    backoff.tell(&format!("ConfigMap {MESH_CONFIG} cannot be followed"), &error);
                    if first {
                        let reason = format!("ConfigMap {MESH_CONFIG} cannot be read: {error}");
                        self.problems.send_replace(Arc::new(vec![reason]));
                    }
                    sleep(backoff.next()).await;
                    continue;
                }
            };
            backoff.reset();
            let outcome = judge(config_map.as_ref(), first);
            let news = **self.problems.borrow() != outcome.problems;
            self.problems.send_replace(Arc::new(outcome.problems.clone()));
            if let Some(settings) = outcome.settings {
                self.settings.send_replace(Arc::new(settings));
                tracing::info!(config_map = MESH_CONFIG, "settings of the injector read");
            }
            if news && !outcome.problems.is_empty() {
                let message = message(&outcome.problems, first);
                tracing::error!(config_map = MESH_CONFIG, "{message}");
                let about = about(&cluster.namespace, config_map.as_ref());
                events.warn(&about, "InvalidSettings", &message).await;
            }
            first = false;
            if self.settings.is_closed() {
                return;
            }
        }
    }
}

fn message(problems: &[String], first: bool) -> String {
    let instead = if first {
        "the injector uses the defaults instead of these fields"
    } else {
        "the injector's settings before stay in effect"
    };
    format!("{instead}: {}", problems.join("; "))
}

fn about(namespace: &str, config_map: Option<&ConfigMap>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("ConfigMap".to_owned()),
        name: Some(MESH_CONFIG.to_owned()),
        namespace: Some(namespace.to_owned()),
        uid: config_map.and_then(|map| map.metadata.uid.clone()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(keys: &[(&str, &str)]) -> ConfigMap {
        let data = keys.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned()));
        ConfigMap { data: Some(data.collect()), ..ConfigMap::default() }
    }

    #[test]
    fn mistakes_leave_the_settings_before_or_at_the_start_the_fields_that_make_sense() {
        let good = config_map(&[("values", r#"{"image": "registry.example/proxy:9"}"#)]);
        let settings =
            InjectConfig { image: "registry.example/proxy:9".into(), ..InjectConfig::default() };
        let in_order = Outcome { settings: Some(settings.clone()), problems: Vec::new() };
        assert_eq!(judge(Some(&good), true), in_order);
        assert_eq!(judge(Some(&good), false), in_order);

        let values = ("values", r#"{"image": "registry.example/proxy:9", "logLevel": "loud"}"#);
        let bad = config_map(&[values, ("mesh", "defaultConfig: 1")]);
        let at_start = judge(Some(&bad), true);
        assert_eq!(at_start.settings, Some(settings));
        assert_eq!(at_start.problems.len(), 2, "{:?}", at_start.problems);
        let later = judge(Some(&bad), false);
        assert_eq!(later, Outcome { settings: None, problems: at_start.problems });
    }

    #[test]
    fn without_a_config_map_there_are_the_defaults() {
        let defaults = Outcome { settings: Some(InjectConfig::default()), problems: Vec::new() };
        assert_eq!(judge(None, true), defaults);
        assert_eq!(judge(None, false), defaults);
    }
}
