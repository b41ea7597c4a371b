//! What manifests say of each other: the operator's own index and conditions, on what was given.
//!
//! Manifests are often a part of a mesh. What may be defined elsewhere is not missed: services are only asked for
//! when some are given, workloads when pods are.

use std::collections::BTreeMap;

use weft_core::{credential::SecretNamespaces, mesh::MeshConfig};
use weft_crds::{Condition, Kind};
use weft_index::{Index, Object};
use weft_operator::source::object::ObjectKey;
use weft_status::ResourceConditions;

/// Resources with the files that they are from.
#[derive(Default)]
pub struct Together {
    objects: Vec<(String, Object)>,
}

impl Together {
    /// Adds a resource of a file.
    pub fn add(&mut self, file: &str, object: Object) {
        self.objects.push((file.to_owned(), object));
    }

    /// Warnings, each with its file.
    pub fn warnings(self) -> Vec<(String, String)> {
        let mut warnings = Vec::new();
        let mut given = Given::default();
        let mut files: BTreeMap<(String, String, String), String> = BTreeMap::new();
        let mut index =
            Index::new(MeshConfig::default()).with_secret_namespaces(SecretNamespaces::Unknown);
        for (file, object) in self.objects {
            let key = ObjectKey::of(&object);
            let place = (key.kind.to_string(), key.namespace.clone(), key.name.clone());
            if let Some(first) = files.get(&place) {
                let text = format!("{key}: already defined in {first}; the first file counts");
                warnings.push((file, text));
                continue;
            }
            files.insert(place, file);
            given.note(&object);
            index.apply(object);
        }
        let (snapshot, _) = index.snapshot();
        for resource in weft_status::conditions(&snapshot, index.diagnoses()) {
            let ResourceConditions { reference, conditions, .. } = resource;
            let place = (
                reference.kind.to_owned(),
                reference.namespace.to_string(),
                reference.name.to_string(),
            );
            let Some(file) = files.get(&place) else { continue };
            let telling = conditions.iter().filter(|condition| given.tells(condition));
            warnings
                .extend(telling.map(|condition| {
                    (file.clone(), format!("{reference}: {}", condition.message))
                }));
        }
        warnings
    }
}

/// Which kinds of resources were given at all.
#[derive(Default)]
struct Given {
    services: bool,
    rules: bool,
    pods: bool,
    gateways: bool,
}

impl Given {
    fn note(&mut self, object: &Object) {
        match object.kind() {
            weft_index::Kind::Service | weft_index::Kind::Mesh(Kind::ServiceEntry) => {
                self.services = true;
            }
            weft_index::Kind::Mesh(Kind::DestinationRule) => self.rules = true,
            weft_index::Kind::Pod => self.pods = true,
            weft_index::Kind::Mesh(Kind::Gateway) => self.gateways = true,
            _ => {}
        }
    }

    /// Whether a condition says something that is surely not meant. What the resource itself is to blame for was
    /// said by its validation.
    fn tells(&self, condition: &Condition) -> bool {
        match condition.reason.as_str() {
            "HostNotFound" | "DestinationNotFound" | "PortNotFound" => self.services,
            "WaitingForSubset" => self.services || self.rules,
            // Whether a pod has a proxy is decided when it is made, not in its file.
            "NoMatchingWorkload" => self.pods,
            "GatewayNotFound" | "NoHostInCommon" => self.gateways,
            "Superseded"
            | "PartlySuperseded"
            | "Hidden"
            | "ProtocolConflict"
            | "DuplicateHost"
            | "SelectorInRootNamespace"
            | "DelegateNotFound" => true,
            _ => false,
        }
    }
}
