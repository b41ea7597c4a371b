//! Resources of our kinds: validated, qualified, put into their tables, and what depends on them told.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weft_core::{
    destination_rule,
    resource::{Resource, ResourceRef, table::ResourceTable},
    service::Visibility,
    virtual_service,
};
use weft_crds::{
    AnyResource,
    networking::{DestinationRuleSpec, ServiceEntrySpec, VirtualServiceSpec},
};

use super::Index;
use crate::object::{self, Kind};

/// What a resource's metadata says.
struct Meta<'a> {
    reference: &'a ResourceRef,
    metadata: &'a ObjectMeta,
    /// The generation of the version seen last.
    last: i64,
}

impl Meta<'_> {
    /// The resource with a spec. Where nobody counts its generations, a version that differs from the one before is the
    /// next generation.
    fn with<S: PartialEq>(&self, spec: S, table: &ResourceTable<S>) -> Arc<Resource<S>> {
        let old = table.get(&self.reference.namespace, &self.reference.name);
        let mut resource = Resource {
            reference: self.reference.clone(),
            created: object::created(self.metadata),
            generation: self.metadata.generation.or(old.map(|old| old.generation)).unwrap_or(1),
            labels: self.metadata.labels.clone().unwrap_or_default(),
            annotations: self.metadata.annotations.clone().unwrap_or_default(),
            spec,
        };
        match old {
            Some(old) if **old == resource => return old.clone(),
            _ if self.metadata.generation.is_none() => resource.generation = self.last + 1,
            _ => {}
        }
        Arc::new(resource)
    }

    /// Puts the resource with a spec into its table; answers its generation and whether that changed anything.
    fn put<S: Clone + PartialEq>(&self, spec: &S, table: &mut ResourceTable<S>) -> (i64, bool) {
        let resource = self.with(spec.clone(), table);
        (resource.generation, table.set(resource))
    }
}

impl Index {
    /// Applies a resource that was parsed; one that is not valid leaves the version before.
    pub(super) fn apply_resource(
        &mut self,
        reference: &ResourceRef,
        resource: &AnyResource,
    ) -> bool {
        let metadata = resource.metadata();
        let found = weft_crds::validate(resource);
        if !found.is_valid() {
            let kind = Kind::Mesh(resource.kind());
            let findings = (found.errors, found.warnings);
            return self.journal.reject(kind, reference, metadata.generation, findings);
        }
        let meta = Meta { reference, metadata, last: self.journal.last_generation(reference) };
        let namespace = &reference.namespace;
        let (generation, changed) = match resource {
            AnyResource::VirtualService(object) => self.put_virtual_service(&meta, &object.spec),
            AnyResource::DestinationRule(object) => self.put_destination_rule(&meta, &object.spec),
            AnyResource::ServiceEntry(object) => self.put_service_entry(&meta, &object.spec),
            AnyResource::Gateway(object) => {
                let put = meta.put(&object.spec, &mut self.next.gateways);
                (put.0, self.touch_gateways(put.1))
            }
            AnyResource::PeerAuthentication(object) => {
                let put = meta.put(&object.spec, &mut self.next.peer_authentications);
                (put.0, self.touch_peers(put.1, namespace))
            }
            AnyResource::AuthorizationPolicy(object) => {
                let put = meta.put(&object.spec, &mut self.next.authorization_policies);
                (put.0, self.touch_workloads(put.1, namespace))
            }
            AnyResource::EnvoyFilter(object) => {
                let put = meta.put(&object.spec, &mut self.next.envoy_filters);
                (put.0, self.touch_workloads(put.1, namespace))
            }
        };
        changed | self.journal.accept(reference, generation, found.warnings)
    }

    /// Removes a resource.
    pub(super) fn delete_resource(
        &mut self,
        kind: weft_crds::Kind,
        reference: &ResourceRef,
    ) -> bool {
        let (namespace, name) = (&reference.namespace, &*reference.name);
        let next = &mut self.next;
        match kind {
            weft_crds::Kind::VirtualService => {
                let changed = next.virtual_services.accepted.remove(namespace, name).is_some();
                if changed {
                    self.routing.touch_virtual_service(reference, next);
                }
                changed
            }
            weft_crds::Kind::DestinationRule => {
                let touched = next.destination_rules.remove(namespace, name);
                let changed = !touched.is_empty();
                self.routing.touch_destination_rules(touched);
                changed
            }
            weft_crds::Kind::ServiceEntry => {
                let old = next.service_entries.remove(namespace, name);
                if old.is_some() {
                    self.registry.set_entry(old.as_ref(), None, next, &mut self.change);
                }
                old.is_some()
            }
            weft_crds::Kind::Gateway => {
                let changed = next.gateways.remove(namespace, name).is_some();
                self.touch_gateways(changed)
            }
            weft_crds::Kind::PeerAuthentication => {
                let changed = next.peer_authentications.remove(namespace, name).is_some();
                self.touch_peers(changed, namespace)
            }
            weft_crds::Kind::AuthorizationPolicy => {
                let changed = next.authorization_policies.remove(namespace, name).is_some();
                self.touch_workloads(changed, namespace)
            }
            weft_crds::Kind::EnvoyFilter => {
                let changed = next.envoy_filters.remove(namespace, name).is_some();
                self.touch_workloads(changed, namespace)
            }
        }
    }

    /// Adds or replaces a rule whose host is qualified, with the visibility that it has in the mesh as it is.
    pub(super) fn set_destination_rule(
        &mut self,
        rule: Arc<Resource<DestinationRuleSpec>>,
    ) -> bool {
        let visibility = Visibility::from_export_to(
            &rule.spec.export_to,
            &self.next.mesh.default_destination_rule_export_to,
            &rule.reference.namespace,
        );
        let touched = self.next.destination_rules.set(rule, visibility);
        let changed = !touched.is_empty();
        self.routing.touch_destination_rules(touched);
        changed
    }

    fn put_destination_rule(&mut self, meta: &Meta<'_>, spec: &DestinationRuleSpec) -> (i64, bool) {
        let spec = destination_rule::qualify(spec, &meta.reference.namespace, &self.base.domain);
        let rule = meta.with(spec, self.next.destination_rules.accepted());
        (rule.generation, self.set_destination_rule(rule))
    }

    fn put_virtual_service(&mut self, meta: &Meta<'_>, spec: &VirtualServiceSpec) -> (i64, bool) {
        let spec = virtual_service::qualify(spec, &meta.reference.namespace, &self.base.domain);
        let (generation, changed) = meta.put(&spec, &mut self.next.virtual_services.accepted);
        if changed {
            self.routing.touch_virtual_service(meta.reference, &self.next);
        }
        (generation, changed)
    }

    fn put_service_entry(&mut self, meta: &Meta<'_>, spec: &ServiceEntrySpec) -> (i64, bool) {
        let (next, change) = (&mut self.next, &mut self.change);
        let (namespace, name) = (&meta.reference.namespace, &meta.reference.name);
        let old = next.service_entries.get(namespace, name).cloned();
        let (generation, changed) = meta.put(spec, &mut next.service_entries);
        if changed {
            let new = next.service_entries.get(namespace, name).cloned();
            self.registry.set_entry(old.as_ref(), new.as_ref(), next, change);
        }
        (generation, changed)
    }

    /// A policy of this namespace changed; in the root namespace it may be for any workload.
    fn touch_workloads(&mut self, changed: bool, namespace: &Arc<str>) -> bool {
        if changed && *namespace == self.next.mesh.root_namespace {
            self.change.all = true;
        } else if changed {
            self.change.namespaces.insert(namespace.clone());
        }
        changed
    }

    fn touch_gateways(&mut self, changed: bool) -> bool {
        self.change.gateways |= changed;
        self.secrets.touch_names(changed);
        changed
    }

    fn touch_peers(&mut self, changed: bool, namespace: &Arc<str>) -> bool {
        if changed {
            self.stale_mtls.insert(namespace.clone());
        }
        self.touch_workloads(changed, namespace)
    }
}
