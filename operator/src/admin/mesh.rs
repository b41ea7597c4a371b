//! The mesh model as JSON: services, endpoints, resources and what became of them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use weft_core::{
    endpoint::{Endpoint, EndpointAddress, Locality},
    resource::{Resource, table::ResourceTable},
    service::{Service, TargetPort, Visibility},
    snapshot::Snapshot,
};

use crate::mesh::View;

/// Services by namespace and hostname.
pub fn services(snapshot: &Snapshot) -> Value {
    let mut services: Vec<_> = snapshot.services.iter().collect();
    services.sort_by_key(|service| &service.key);
    services.into_iter().map(|service| self::service(service)).collect()
}

fn service(service: &Service) -> Value {
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|port| {
            let target = match &port.target {
                TargetPort::Number(number) => json!(number),
                TargetPort::Name(name) => json!(**name),
            };
            json!({
                "name": *port.name,
                "port": port.number,
                "targetPort": target,
                "protocol": format!("{:?}", port.protocol),
            })
        })
        .collect();
    let export_to = match &service.visibility {
        Visibility::Public => vec!["*".to_owned()],
        Visibility::Hidden => vec!["~".to_owned()],
        Visibility::Namespaces(names) if names.is_empty() => vec![".".to_owned()],
        Visibility::Namespaces(names) => names.iter().map(ToString::to_string).collect(),
    };
    json!({
        "hostname": *service.key.hostname,
        "namespace": *service.key.namespace,
        "name": *service.name,
        "addresses": service.addresses,
        "ports": ports,
        "resolution": format!("{:?}", service.resolution),
        "meshExternal": service.external,
        "registry": format!("{:?}", service.registry),
        "created": service.created,
        "exportTo": export_to,
        "selector": service.selector,
        "headless": service.headless,
    })
}

/// Endpoints by service and port.
pub fn endpoints(snapshot: &Snapshot) -> Value {
    let mut services: Vec<_> = snapshot.endpoints.iter().collect();
    services.sort_by_key(|(key, _)| *key);
    let ports = services.into_iter().flat_map(|(key, ports)| {
        ports.iter().map(move |(port, set)| {
            let endpoints: Vec<Value> =
                set.endpoints.iter().map(|endpoint| self::endpoint(snapshot, endpoint)).collect();
            json!({
                "service": *key.hostname,
                "namespace": *key.namespace,
                "port": port,
                "endpoints": endpoints,
            })
        })
    });
    ports.collect()
}

fn endpoint(snapshot: &Snapshot, endpoint: &Endpoint) -> Value {
    let address = match &endpoint.address {
        EndpointAddress::Ip(address) => address.to_string(),
        EndpointAddress::Dns(name) | EndpointAddress::Unix(name) => name.to_string(),
    };
    let Locality { region, zone, sub_zone } = &endpoint.locality;
    let locality = format!("{region}/{zone}/{sub_zone}");
    json!({
        "address": address,
        "port": endpoint.port,
        "health": format!("{:?}", endpoint.health).to_uppercase(),
        "mtls": snapshot.endpoint_accepts_mtls(endpoint),
        "namespace": *endpoint.namespace,
        "serviceAccount": endpoint.service_account.as_deref(),
        "workload": endpoint.workload.as_ref().map(|w| w.name.to_string()),
        "labels": *endpoint.labels,
        "locality": locality.trim_end_matches('/'),
        "weight": endpoint.weight,
    })
}

/// Routes, rules and policies: the specs that the mesh goes by, and their conditions.
pub fn resources(view: &View) -> Value {
    let mut specs = BTreeMap::new();
    let snapshot = &view.snapshot;
    collect(&snapshot.virtual_services.accepted, &mut specs);
    collect(snapshot.destination_rules.accepted(), &mut specs);
    collect(&snapshot.service_entries, &mut specs);
    collect(&snapshot.gateways, &mut specs);
    collect(&snapshot.peer_authentications, &mut specs);
    collect(&snapshot.authorization_policies, &mut specs);
    collect(&snapshot.envoy_filters, &mut specs);
    let mut resources = conditions(view);
    for resource in resources.as_array_mut().into_iter().flatten() {
        let key = |field: &str| resource[field].as_str().unwrap_or_default().to_owned();
        let spec = specs.remove(&(key("kind"), key("namespace"), key("name")));
        if let (Some(spec), Some(resource)) = (spec, resource.as_object_mut()) {
            resource.extend(spec);
        }
    }
    resources
}

type Specs = BTreeMap<(String, String, String), serde_json::Map<String, Value>>;

fn collect<S: Serialize>(table: &ResourceTable<S>, specs: &mut Specs) {
    for resource in table.iter() {
        let Resource { reference, created, generation, labels, annotations, spec } = &**resource;
        let key = (
            reference.kind.to_owned(),
            reference.namespace.to_string(),
            reference.name.to_string(),
        );
        let fields = [
            ("created", json!(created)),
            ("acceptedGeneration", json!(generation)),
            ("labels", json!(labels)),
            ("annotations", json!(annotations)),
            ("spec", json!(spec)),
        ];
        specs.insert(
            key,
            fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect(),
        );
    }
}

/// What became of every resource, by kind, namespace and name.
pub fn conditions(view: &View) -> Value {
    let conditions = weft_status::conditions(&view.snapshot, &view.diagnoses);
    conditions
        .into_iter()
        .map(|resource| {
            json!({
                "kind": resource.reference.kind,
                "namespace": *resource.reference.namespace,
                "name": *resource.reference.name,
                "observedGeneration": resource.observed_generation,
                "conditions": resource.conditions,
            })
        })
        .collect()
}
