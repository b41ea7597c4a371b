//! The index: objects in, snapshots out.
//!
//! Guarantees: the same objects in any order end in equal snapshots, but for what is remembered on purpose: a resource
//! that is not valid keeps its last good version, a VirtualService that cannot take effect its last version in effect.
//! What did not change is shared with the snapshot before. [`Change`] names whatever differs, and little else.

mod resources;

use std::{collections::BTreeSet, error::Error, mem, sync::Arc};

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use weft_core::{
    change::Change, credential::SecretNamespaces, diagnosis::Diagnoses, mesh::MeshConfig,
    resource::ResourceRef, snapshot::Snapshot,
};
use weft_crds::FieldError;

use crate::{
    journal::Journal,
    kubernetes::{pod, service, slice},
    mesh_config,
    object::{Kind, Object},
    registry::Registry,
    routing::Routing,
    secret::Secrets,
};

/// Name of the ConfigMap that holds the mesh's settings where nobody says another.
const MESH_CONFIG: &str = "istio";
/// The key in it.
const MESH_KEY: &str = "mesh";

/// Builds the mesh model from watch events. Synchronous; has one owner.
#[derive(Debug)]
pub struct Index {
    /// The settings where the ConfigMap says nothing.
    base: MeshConfig,
    /// Namespace and name of the ConfigMap with the settings.
    mesh_config: (Arc<str>, Arc<str>),
    next: Snapshot,
    published: Arc<Snapshot>,
    change: Change,
    modified: bool,
    registry: Registry,
    routing: Routing,
    journal: Journal,
    secrets: Secrets,
    /// Namespaces whose PeerAuthentications changed: whether their endpoints take mTLS may differ.
    stale_mtls: BTreeSet<Arc<str>>,
}

impl Index {
    /// An empty index. The ConfigMap `istio` of the root namespace, once applied, overrides the settings given here.
    pub fn new(base: MeshConfig) -> Self {
        let next = Snapshot { mesh: Arc::new(base.clone()), ..Snapshot::default() };
        let mesh_config = (base.root_namespace.clone(), MESH_CONFIG.into());
        Self {
            base,
            mesh_config,
            published: Arc::new(next.clone()),
            next,
            change: Change { all: true, ..Change::default() },
            modified: true,
            registry: Registry::default(),
            routing: Routing::default(),
            journal: Journal::default(),
            secrets: Secrets::default(),
            stale_mtls: BTreeSet::new(),
        }
    }

    /// The same index, whose settings are in another ConfigMap.
    #[must_use]
    pub fn with_mesh_config(mut self, namespace: &str, name: &str) -> Self {
        self.mesh_config = (namespace.into(), name.into());
        self
    }

    /// The same index, which reads Secrets of these namespaces only.
    #[must_use]
    pub fn with_secret_namespaces(mut self, namespaces: SecretNamespaces) -> Self {
        self.next.credentials.namespaces = namespaces;
        self
    }

    /// Adds or replaces an object; says whether that changed the next snapshot or the diagnoses.
    pub fn apply(&mut self, object: Object) -> bool {
        let (kind, reference) = (object.kind(), object.reference());
        if kind == Kind::ConfigMap && !self.is_mesh_config(&reference) {
            return false;
        }
        let (next, change) = (&mut self.next, &mut self.change);
        let changed = match object {
            Object::Service(object) => self.apply_service(&reference, &object),
            Object::EndpointSlice(object) => {
                let record = slice::read(&object);
                self.registry.set_slice(&reference, record, &self.base.domain)
                    | self.journal.accept_kubernetes(&reference, Vec::new())
            }
            Object::Pod(object) => {
                self.registry.set_pod(&reference, pod::read(&object), next, change)
                    | self.journal.accept_kubernetes(&reference, Vec::new())
            }
            Object::ConfigMap(object) => self.apply_mesh_config(&reference, &object),
            Object::Secret(object) => {
                let read = next.credentials.namespaces.includes(&reference.namespace);
                read && self.secrets.set(&reference, Some(&object))
            }
            Object::Mesh(resource) => self.apply_resource(&reference, &resource),
        };
        self.journal.add(kind, &reference);
        self.modified |= changed;
        changed
    }

    /// Removes an object, and what was reported about it; says whether that changed anything.
    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) -> bool {
        let reference = kind.reference(namespace, name);
        let (next, change) = (&mut self.next, &mut self.change);
        let changed = match kind {
            Kind::Service => {
                let key = service::key(namespace, name, &self.base.domain);
                self.registry.set_service(&key, None, next, change)
            }
            Kind::EndpointSlice => self.registry.set_slice(&reference, None, &self.base.domain),
            Kind::Pod => self.registry.set_pod(&reference, None, next, change),
            Kind::ConfigMap => self.is_mesh_config(&reference) && self.set_mesh(self.base.clone()),
            Kind::Secret => self.secrets.set(&reference, None),
            Kind::Mesh(kind) => self.delete_resource(kind, &reference),
        };
        self.modified |= changed;
        changed | self.journal.remove(kind, &reference)
    }

    /// Replaces every object of a kind by these; says whether that changed anything.
    pub fn reset(&mut self, kind: Kind, objects: Vec<Object>) -> bool {
        let mut gone = self.journal.known(kind);
        let mut changed = false;
        for object in objects.into_iter().filter(|object| object.kind() == kind) {
            let reference = object.reference();
            gone.remove(&(reference.namespace, reference.name));
            changed |= self.apply(object);
        }
        for (namespace, name) in gone {
            changed |= self.delete(kind, &namespace, &name);
        }
        changed
    }

    /// Records that the source could not read the latest version of an object; the version before stays. Forgotten when
    /// the object is applied or deleted.
    pub fn report_invalid(
        &mut self,
        kind: Kind,
        namespace: &str,
        name: &str,
        errors: Vec<FieldError>,
    ) -> bool {
        self.reject(&kind.reference(namespace, name), kind, None, errors)
    }

    /// The same for a version of an object whose generation is known.
    pub fn reject(
        &mut self,
        reference: &ResourceRef,
        kind: Kind,
        generation: Option<i64>,
        errors: Vec<FieldError>,
    ) -> bool {
        self.journal.reject(kind, reference, generation, (errors, Vec::new()))
    }

    /// The mesh as it is now, and what may differ from the snapshot taken before. The first one changes everything.
    pub fn snapshot(&mut self) -> (Arc<Snapshot>, Change) {
        if mem::take(&mut self.modified) {
            let (next, change) = (&mut self.next, &mut self.change);
            self.registry.refresh_endpoints(next, change);
            self.routing.refresh(next, change);
            self.refresh_mtls();
            self.secrets.refresh(&mut self.next, &mut self.change);
            self.next.version += 1;
            self.published = Arc::new(self.next.clone());
        }
        (self.published.clone(), mem::take(&mut self.change))
    }

    /// What is wrong with resources by themselves.
    pub fn diagnoses(&self) -> &Diagnoses {
        &self.journal.diagnoses
    }

    fn apply_service(&mut self, reference: &ResourceRef, object: &Service) -> bool {
        let (definition, warnings) = service::read(object, &self.base.domain);
        let key = definition.service.key.clone();
        let (next, change) = (&mut self.next, &mut self.change);
        self.registry.set_service(&key, Some(definition), next, change)
            | self.journal.accept_kubernetes(reference, warnings)
    }

    fn is_mesh_config(&self, reference: &ResourceRef) -> bool {
        let (namespace, name) = &self.mesh_config;
        reference.name == *name && reference.namespace == *namespace
    }

    fn apply_mesh_config(&mut self, reference: &ResourceRef, object: &ConfigMap) -> bool {
        let text = object.data.as_ref().and_then(|data| data.get(MESH_KEY));
        match mesh_config::parse(text.map_or("", String::as_str), &self.base) {
            Ok((mesh, warnings)) => {
                self.set_mesh(mesh) | self.journal.accept_kubernetes(reference, warnings)
            }
            Err(error) => {
                let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                let path = format!("data.{MESH_KEY}");
                let errors = vec![FieldError { path, reason: format!("{error}{cause}") }];
                let generation = object.metadata.generation;
                self.journal.reject(Kind::ConfigMap, reference, generation, (errors, Vec::new()))
            }
        }
    }

    fn set_mesh(&mut self, mesh: MeshConfig) -> bool {
        if *self.next.mesh == mesh {
            return false;
        }
        self.next.mesh = Arc::new(mesh);
        self.change.all = true;
        let (next, change) = (&mut self.next, &mut self.change);
        self.registry.reread(next, change);
        let rules: Vec<_> = next.destination_rules.accepted().iter().cloned().collect();
        for rule in rules {
            self.set_destination_rule(rule);
        }
        self.routing.touch_all(&self.next);
        true
    }

    /// Names the services with endpoints in namespaces whose PeerAuthentications changed.
    fn refresh_mtls(&mut self) {
        let namespaces = mem::take(&mut self.stale_mtls);
        if self.change.all || namespaces.is_empty() {
            return;
        }
        let affected = self.next.endpoints.iter().filter(|(_, ports)| {
            ports.values().flat_map(|set| &set.endpoints).any(|e| namespaces.contains(&e.namespace))
        });
        self.change.endpoints.extend(affected.map(|(key, _)| key.hostname.clone()));
    }
}
