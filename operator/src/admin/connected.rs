//! Connected proxies as JSON: what was asked for, sent and acknowledged.

use serde_json::{Value, json};
use weft_xds::{
    Connections,
    connections::{ConnectionView, Detail, SyncState, TypeView},
};

/// Istio's names of the types in its flat form, which Kiali and others read.
const FLAT_NAMES: [(&str, &str); 4] =
    [("cds", "cluster"), ("lds", "listener"), ("rds", "route"), ("eds", "endpoint")];

/// One entry for each connected proxy: its state by type, without the resources.
pub fn syncz(connections: &Connections) -> Value {
    connections.list(Detail::Names).iter().map(sync).collect()
}

fn sync(connection: &ConnectionView) -> Value {
    let mut entry = json!({
        "cluster_id": "Kubernetes",
        "proxy": connection.proxy,
        "node": connection.node,
        "connection": connection.connection,
        "proxy_version": connection.version,
        "identity": connection.identity,
        "connected_since": connection.connected_since,
    });
    for (short, name) in FLAT_NAMES {
        let view = connection.types.get(short);
        entry[format!("{name}_sent")] = json!(view.and_then(|v| v.nonce_sent.as_ref()));
        entry[format!("{name}_acked")] = json!(view.and_then(|v| v.nonce_acked.as_ref()));
    }
    let types = connection.types.iter().map(|(name, view)| ((*name).to_owned(), type_state(view)));
    entry["types"] = Value::Object(types.collect());
    entry
}

fn type_state(view: &TypeView) -> Value {
    json!({
        "state": state(view.state),
        "wildcard": view.wildcard,
        "resources": view.resources.len(),
        "present": view.resources.iter().filter(|resource| resource.sent.is_some()).count(),
        "lastNack": view.last_nack,
    })
}

/// The words of `istioctl proxy-status`.
fn state(state: SyncState) -> &'static str {
    match state {
        SyncState::NotSent => "NOT SENT",
        SyncState::Synced => "SYNCED",
        SyncState::Stale => "STALE",
        SyncState::Rejected => "REJECTED",
    }
}

/// Everything that one proxy was sent, by type; its newest stream where it has several.
pub fn config_dump(connections: &Connections, proxy: &str) -> Option<Value> {
    let streams = connections.find(proxy, Detail::Resources);
    streams.into_iter().max_by_key(|stream| stream.connection).map(|stream| json!(stream))
}
