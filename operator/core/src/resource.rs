//! A resource of ours as the model keeps it: identity, age and spec.

pub mod table;

use std::{cmp::Ordering, collections::BTreeMap, fmt, sync::Arc};

/// Points at a resource by kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceRef {
    /// The kind, e.g. `VirtualService`.
    pub kind: &'static str,
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A resource with its spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource<S> {
    /// Which resource it is.
    pub reference: ResourceRef,
    /// When it was created: seconds since the Unix epoch. The folder source uses the manifest's
    /// `creationTimestamp`, else the order in which files and documents were first seen.
    pub created: i64,
    /// `metadata.generation`, or a count of the changes seen.
    pub generation: i64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its spec, as validated by `weft-crds`.
    pub spec: S,
}

impl<S> Resource<S> {
    /// Orders by age, then name, then namespace: the one comparator for every "the oldest wins"
    /// (`istio-behaviours` 2.10, item 89).
    pub fn oldest_first(&self, other: &Self) -> Ordering {
        self.age().cmp(&other.age())
    }

    /// What [`Self::oldest_first`] compares, for a resource to be ordered among others than its own kind.
    pub fn age(&self) -> (i64, &str, &str) {
        (self.created, &self.reference.name, &self.reference.namespace)
    }

    /// The namespace that short names in the spec are resolved in.
    pub fn namespace(&self) -> &str {
        &self.reference.namespace
    }
}
