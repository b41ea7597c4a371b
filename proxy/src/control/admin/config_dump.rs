//! `/config_dump` in Envoy's shape, made of what the data threads read: it shows exactly what the proxy has.

use std::{net::SocketAddr, sync::Arc};

use foldhash::HashMap;
use serde_json::{Map, Value, json};
use weft_api::{
    names::VirtualHostName,
    node::NodeInfo,
    xds::google::protobuf::{Struct, Value as PbValue, value::Kind as PbKind},
};

use super::dump;
use crate::{
    config::ProxyConfig,
    control::store::{Kind, Store, slot::Overview},
    shared::Shared,
};

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// Versions in effect by name.
fn versions(store: &Store, kind: Kind) -> HashMap<Arc<str>, Overview> {
    store.overview(kind).into_iter().map(|overview| (overview.name.clone(), overview)).collect()
}

fn version(versions: &HashMap<Arc<str>, Overview>, name: &str) -> String {
    versions
        .get(name)
        .and_then(|overview| overview.live.as_ref())
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// Adds what is wrong with a resource's newest version.
fn with_error(mut entry: Value, versions: &HashMap<Arc<str>, Overview>, name: &str) -> Value {
    if let Some(error) = versions.get(name).and_then(|overview| overview.error.as_ref()) {
        entry["error_state"] = json!({"details": &**error});
    }
    entry
}

/// The dump, or one part of it; `None` when there is no such part.
pub fn config_dump(shared: &Shared, store: &Store, resource: Option<&str>) -> Option<Value> {
    let config = shared.config.load();
    if let Some(resource) = resource {
        let (kind, list) = match resource {
            "dynamic_listeners" => {
                ("ListenersConfigDump.DynamicListener", listeners(&config, store, shared))
            }
            "dynamic_route_configs" => {
                ("RoutesConfigDump.DynamicRouteConfig", routes(&config, store))
            }
            "dynamic_active_clusters" => {
                ("ClustersConfigDump.DynamicCluster", clusters(&config, store))
            }
            "dynamic_endpoint_configs" => {
                ("EndpointsConfigDump.DynamicEndpointConfig", endpoints(&config, store))
            }
            _ => return None,
        };
        let list: Vec<Value> = list
            .into_iter()
            .map(|entry| {
                let mut typed = Map::new();
                typed.insert("@type".to_owned(), json!(format!("{ADMIN}{kind}")));
                if let Value::Object(fields) = entry {
                    typed.extend(fields);
                }
                Value::Object(typed)
            })
            .collect();
        return Some(json!({"configs": list}));
    }
    Some(json!({"configs": [
        {
            "@type": format!("{ADMIN}BootstrapConfigDump"),
            "bootstrap": {"node": node(&shared.node)},
        },
        {
            "@type": format!("{ADMIN}ClustersConfigDump"),
            "dynamic_active_clusters": clusters(&config, store),
        },
        {
            "@type": format!("{ADMIN}EndpointsConfigDump"),
            "dynamic_endpoint_configs": endpoints(&config, store),
        },
        {
            "@type": format!("{ADMIN}ListenersConfigDump"),
            "dynamic_listeners": listeners(&config, store, shared),
        },
        {
            "@type": format!("{ADMIN}RoutesConfigDump"),
            "dynamic_route_configs": routes(&config, store),
        },
    ]}))
}

/// Names in order, so that dumps can be compared.
fn sorted<T>(map: &HashMap<Arc<str>, T>) -> Vec<(&Arc<str>, &T)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    entries
}

fn listeners(config: &ProxyConfig, store: &Store, shared: &Shared) -> Vec<Value> {
    let versions = versions(store, Kind::Listener);
    let failures = shared.bind_failures.first().map(arc_swap::ArcSwapAny::load_full);
    let bind_failure = |name: &str| {
        failures.iter().flat_map(|all| all.iter()).find(|failure| *failure.listener == *name)
    };
    sorted(&config.listeners)
        .into_iter()
        .filter_map(|(name, entry)| {
            let error = versions.get(name).is_some_and(|overview| overview.error.is_some());
            let mut value = json!({"name": &**name});
            match entry {
                Some(listener) => {
                    value["active_state"] = json!({
                        "version_info": version(&versions, name),
                        "listener": dump::listener::listener(&listener.value),
                    });
                }
                // Only what was refused; most names are just unknown to the mesh.
                None if !error => return None,
                None => {}
            }
            if let Some(failure) = bind_failure(name) {
                let details = format!("cannot listen on {}: {}", failure.address, failure.reason);
                value["error_state"] = json!({"details": details});
            }
            Some(with_error(value, &versions, name))
        })
        .collect()
}

/// Route configurations; virtual hosts that came on demand stand in theirs, as Envoy shows them.
fn routes(config: &ProxyConfig, store: &Store) -> Vec<Value> {
    let versions = versions(store, Kind::Route);
    sorted(&config.routes)
        .into_iter()
        .map(|(name, route_config)| {
            let fetched = sorted(&config.virtual_hosts)
                .into_iter()
                .filter_map(|(asked, host)| {
                    let parsed: VirtualHostName = asked.parse().ok()?;
                    (parsed.route_config == **name)
                        .then_some(())
                        .and(host.as_ref())
                        .map(|host| dump::route::virtual_host(&host.value))
                })
                .collect();
            let entry = json!({
                "version_info": version(&versions, name),
                "route_config": dump::route::route_config(route_config, fetched),
            });
            with_error(entry, &versions, name)
        })
        .collect()
}

fn clusters(config: &ProxyConfig, store: &Store) -> Vec<Value> {
    let versions = versions(store, Kind::Cluster);
    sorted(&config.clusters)
        .into_iter()
        .map(|(name, cluster)| {
            let entry = json!({
                "version_info": version(&versions, name),
                "cluster": dump::cluster::cluster(cluster),
            });
            with_error(entry, &versions, name)
        })
        .collect()
}

fn endpoints(config: &ProxyConfig, store: &Store) -> Vec<Value> {
    let versions = versions(store, Kind::Endpoints);
    sorted(&config.clusters)
        .into_iter()
        .map(|(name, cluster)| {
            json!({
                "version_info": version(&versions, name),
                "endpoint_config": dump::cluster::endpoints(cluster),
            })
        })
        .collect()
}

/// Every name that was asked for, by type.
pub fn subscriptions(store: &Store) -> Value {
    let mut types = Map::new();
    for kind in Kind::ALL {
        let names: Vec<Value> = store
            .overview(kind)
            .into_iter()
            .map(|overview| {
                json!({
                    "name": &*overview.name,
                    "version": overview.live,
                    "warming": overview.warming,
                    "absent": overview.absent,
                    "error": overview.error,
                })
            })
            .collect();
        types.insert(weft_api::type_url::short(kind.type_url()).to_owned(), json!(names));
    }
    Value::Object(types)
}

/// Every address that is bound, with its listener.
pub fn listener_addresses(shared: &Shared) -> Vec<(String, SocketAddr)> {
    let config = shared.config.load();
    let mut addresses: Vec<(String, SocketAddr)> = Vec::new();
    for (name, listener) in sorted(&config.listeners) {
        for address in listener.iter().flat_map(|listener| &listener.value.binds) {
            addresses.push((name.to_string(), *address));
        }
    }
    for service in &*shared.named_services {
        addresses.push((format!("{}_{}", service.host, service.port), service.bind));
    }
    addresses
}

/// The node as the control plane is told of it.
pub fn node(node: &NodeInfo) -> Value {
    let pb = node.to_node();
    json!({
        "id": pb.id,
        "cluster": pb.cluster,
        "metadata": pb.metadata.as_ref().map(structure),
        "user_agent_name": pb.user_agent_name,
    })
}

fn structure(value: &Struct) -> Value {
    let mut fields: Vec<_> = value.fields.iter().collect();
    fields.sort_by_key(|(key, _)| *key);
    Value::Object(fields.into_iter().map(|(key, value)| (key.clone(), plain(value))).collect())
}

fn plain(value: &PbValue) -> Value {
    match &value.kind {
        None | Some(PbKind::NullValue(_)) => Value::Null,
        Some(PbKind::NumberValue(number)) => json!(number),
        Some(PbKind::StringValue(text)) => json!(text),
        Some(PbKind::BoolValue(value)) => json!(value),
        Some(PbKind::StructValue(value)) => structure(value),
        Some(PbKind::ListValue(list)) => list.values.iter().map(plain).collect(),
    }
}
