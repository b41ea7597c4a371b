//! The resources of one kind by namespace, oldest first. Fed by the index.

use std::sync::Arc;

use super::Resource;
use crate::store::Store;

/// Resources of a namespace, oldest first.
type List<S> = Arc<Vec<Arc<Resource<S>>>>;

/// Resources of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceTable<S> {
    by_name: Store<Arc<str>, Arc<Resource<S>>>,
    by_namespace: Store<Arc<str>, List<S>>,
}

impl<S> Default for ResourceTable<S> {
    fn default() -> Self {
        Self { by_name: Store::default(), by_namespace: Store::default() }
    }
}

impl<S> ResourceTable<S> {
    /// The resources of a namespace, oldest first.
    pub fn of(&self, namespace: &str) -> &[Arc<Resource<S>>] {
        self.by_namespace.get(namespace).map_or(&[], |list| list.as_slice())
    }

    /// The resource with this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Resource<S>>> {
        self.by_name.get(&*key(namespace, name))
    }

    /// Every resource, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource<S>>> {
        self.by_name.values()
    }

    /// The resources that may apply to workloads of a namespace: those of the root namespace, then its own.
    pub fn of_root_and<'a>(
        &'a self,
        root: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource<S>>> {
        let own = if namespace == root { &[] } else { self.of(namespace) };
        self.of(root).iter().chain(own)
    }
}

impl<S: Clone + PartialEq> ResourceTable<S> {
    /// Adds or replaces a resource; says whether that changed anything.
    pub fn set(&mut self, resource: Arc<Resource<S>>) -> bool {
        let namespace = resource.reference.namespace.clone();
        let name = resource.reference.name.clone();
        if self.get(&namespace, &name) == Some(&resource) {
            return false;
        }
        self.remove(&namespace, &name);
        self.by_name.set(key(&namespace, &name).into(), resource.clone());
        self.by_namespace.edit(&namespace, |list| {
            let at = list.partition_point(|other| other.oldest_first(&resource).is_lt());
            Arc::make_mut(list).insert(at, resource);
        });
        true
    }

    /// Removes a resource; answers what it was.
    pub fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<Resource<S>>> {
        let old = self.by_name.remove(&*key(namespace, name))?;
        self.by_namespace.edit(&old.reference.namespace, |list| {
            Arc::make_mut(list).retain(|other| !Arc::ptr_eq(other, &old));
        });
        Some(old)
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}
