//! The pods of the mesh by name and by address. Fed by the index.

use std::{net::IpAddr, sync::Arc};

use super::Workload;
use crate::store::Store;

/// Workloads by name and by address.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkloadTable {
    by_name: Store<Arc<str>, Arc<Workload>>,
    /// Several only while one pod replaces another; by name, the first counts.
    by_address: Store<IpAddr, Vec<Arc<Workload>>>,
}

impl WorkloadTable {
    /// The pod with this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        self.by_name.get(&*key(namespace, name))
    }

    /// The pod with this address.
    pub fn at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.by_address.get(&address)?.first()
    }

    /// Every workload, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_name.values()
    }

    /// Adds or replaces a workload; says whether that changed anything.
    pub fn set(&mut self, workload: &Arc<Workload>) -> bool {
        if self.get(&workload.namespace, &workload.name) == Some(workload) {
            return false;
        }
        self.remove(&workload.namespace, &workload.name);
        self.by_name.set(key(&workload.namespace, &workload.name).into(), workload.clone());
        for address in &workload.addresses {
            self.by_address.edit(address, |list| {
                let order = |w: &Workload| (w.namespace.clone(), w.name.clone());
                let at = list.partition_point(|other| order(other) < order(workload));
                list.insert(at, workload.clone());
            });
        }
        true
    }

    /// Removes a workload; answers what it was.
    pub fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<Workload>> {
        let old = self.by_name.remove(&*key(namespace, name))?;
        for address in &old.addresses {
            self.by_address.edit(address, |list| list.retain(|other| !Arc::ptr_eq(other, &old)));
        }
        Some(old)
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}
