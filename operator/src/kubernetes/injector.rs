//! The injector's settings, from the ConfigMap with the mesh's settings. Settings that make no sense leave those before.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, runtime::watcher::watch_object};
use tokio::{sync::watch, time::sleep};
use weft_webhook::InjectConfig;

use super::{Cluster, MESH_CONFIG};
use crate::backoff::Backoff;

fn read(config_map: Option<&ConfigMap>) -> Result<InjectConfig, weft_webhook::ConfigError> {
    let empty = BTreeMap::new();
    let data = config_map.and_then(|map| map.data.as_ref()).unwrap_or(&empty);
    let text = |key: &str| data.get(key).map_or("", String::as_str);
    InjectConfig::read(text("values"), text("mesh"))
}

/// Keeps the settings those of the ConfigMap, for as long as somebody reads them.
pub async fn follow(cluster: Cluster, settings: watch::Sender<Arc<InjectConfig>>) {
    let api = Api::<ConfigMap>::namespaced(cluster.client, &cluster.namespace);
    let stream = watch_object(api, MESH_CONFIG);
    pin_mut!(stream);
    let mut backoff = Backoff::default();
    while let Some(event) = stream.next().await {
        let config_map = match event {
            Ok(config_map) => config_map,
            Err(error) => {
                backoff.tell(&format!("ConfigMap {MESH_CONFIG} cannot be followed"), &error);
                sleep(backoff.next()).await;
                continue;
            }
        };
        backoff.reset();
        match read(config_map.as_ref()) {
            Ok(read) => {
                settings.send_replace(Arc::new(read));
                tracing::info!(config_map = MESH_CONFIG, "settings of the injector read");
            }
            Err(error) => tracing::error!(
                config_map = MESH_CONFIG,
                error = &error as &dyn std::error::Error,
                "the injector's settings make no sense, those before stay in effect"
            ),
        }
        if settings.is_closed() {
            return;
        }
    }
}
