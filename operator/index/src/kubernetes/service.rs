//! Service objects (`istio-behaviours` 2.7).

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{self as api, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use weft_core::{
    host,
    mesh::MeshConfig,
    protocol::Protocol,
    service::{Registry, Resolution, Service, ServiceKey, ServicePort, TargetPort, Visibility},
};
use weft_crds::FieldError;

use crate::object::{self, Kind};

const EXPORT_TO: &str = "networking.istio.io/exportTo";

/// A Service as it was defined, and who its annotation exports it to (empty: the mesh's default).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Definition {
    pub service: Service,
    pub export_to: Vec<String>,
}

impl Definition {
    /// The service as seen in a mesh with these settings.
    pub fn service(&self, mesh: &MeshConfig) -> Arc<Service> {
        let mut service = self.service.clone();
        service.visibility = Visibility::from_export_to(
            &self.export_to,
            &mesh.default_service_export_to,
            &service.key.namespace,
        );
        Arc::new(service)
    }
}

/// The key of the Service with this name.
pub(crate) fn key(namespace: &str, name: &str, domain: &str) -> ServiceKey {
    ServiceKey {
        namespace: namespace.into(),
        hostname: host::resolve(name, namespace, domain).into(),
    }
}

/// Reads a Service; also says which of its fields make no sense and are left out.
pub(crate) fn read(object: &api::Service, domain: &str) -> (Definition, Vec<FieldError>) {
    let reference = object::reference(Kind::Service, &object.metadata);
    let mut findings = Vec::new();
    let empty = ServiceSpec::default();
    let spec = object.spec.as_ref().unwrap_or(&empty);
    let is_external_name = spec.type_.as_deref() == Some("ExternalName");
    let external_name = spec
        .external_name
        .as_deref()
        .filter(|_| is_external_name)
        .map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    let cluster_ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let headless =
        spec.cluster_ip.as_deref() == Some("None") || cluster_ips.iter().any(|ip| ip == "None");
    let mut addresses = Vec::new();
    for address in
        spec.cluster_ip.iter().chain(cluster_ips).filter(|ip| !ip.is_empty() && *ip != "None")
    {
        match address.parse() {
            Ok(address) if !addresses.contains(&address) => addresses.push(address),
            Ok(_) => {}
            Err(_) => findings.push(FieldError {
                path: "spec.clusterIP".to_owned(),
                reason: format!("{address:?} is not an IP address"),
            }),
        }
    }
    let annotations = object.metadata.annotations.as_ref();
    let export_to = annotations.and_then(|annotations| annotations.get(EXPORT_TO)).map_or_else(
        Vec::new,
        |names| {
            names
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect()
        },
    );
    let service = Service {
        key: key(&reference.namespace, &reference.name, domain),
        name: reference.name.clone(),
        addresses,
        networks: Vec::new(),
        ports: read_ports(spec.ports.as_deref().unwrap_or_default(), &mut findings),
        resolution: if external_name.is_some() { Resolution::Dns } else { Resolution::Static },
        external: false,
        registry: Registry::Kubernetes,
        created: object::created(&object.metadata),
        visibility: Visibility::Public,
        selector: spec.selector.clone().filter(|_| !is_external_name).unwrap_or_default(),
        headless,
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        external_name: external_name.map(Into::into),
        subject_alt_names: Vec::new(),
    };
    (Definition { service, export_to }, findings)
}

fn read_ports(ports: &[api::ServicePort], findings: &mut Vec<FieldError>) -> Vec<ServicePort> {
    let mut read: Vec<ServicePort> = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let mut wrong = |field: &str, reason: String| {
            findings.push(FieldError { path: format!("spec.ports[{at}].{field}"), reason });
        };
        let Some(number) = port_number(port.port) else {
            wrong("port", format!("{} is not a port: it must be from 1 to 65535", port.port));
            continue;
        };
        if read.iter().any(|other| other.number == number) {
            // The same number for UDP and TCP is usual (DNS); only one of the two can be proxied.
            if port.protocol.as_deref().is_some_and(|transport| transport != "TCP") {
                continue;
            }
            read.retain(|other| other.number != number || other.protocol.is_proxied());
            if read.iter().any(|other| other.number == number) {
                wrong("port", format!("{number} is there twice"));
                continue;
            }
        }
        let target = match &port.target_port {
            None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
            Some(IntOrString::Int(target)) => match port_number(*target) {
                Some(target) => TargetPort::Number(target),
                None => {
                    wrong(
                        "targetPort",
                        format!("{target} is not a port: it must be from 1 to 65535"),
                    );
                    continue;
                }
            },
            Some(IntOrString::String(name)) => match name.parse().ok().filter(|number| *number > 0)
            {
                Some(number) => TargetPort::Number(number),
                None => TargetPort::Name(name.as_str().into()),
            },
        };
        let name = port.name.as_deref().unwrap_or_default();
        read.push(ServicePort {
            name: name.into(),
            number,
            target,
            protocol: Protocol::of_service_port(
                port.protocol.as_deref(),
                port.app_protocol.as_deref(),
                name,
                number,
            ),
        });
    }
    read.sort_by_key(|port| port.number);
    read
}

/// A port number, unless it is none.
pub(crate) fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number > 0)
}
