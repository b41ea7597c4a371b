//! Which objects were applied, and what is wrong with them by themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use weft_core::{
    diagnosis::{Diagnoses, Diagnosis},
    resource::ResourceRef,
};
use weft_crds::FieldError;

use crate::object::{Kind, ObjectKey};

/// What is known of objects besides their meaning. Answers say whether anything differs for who reads the diagnoses.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub diagnoses: Diagnoses,
    /// What was applied and not deleted, valid or not.
    known: BTreeMap<Kind, BTreeSet<ObjectKey>>,
}

impl Journal {
    /// An object was applied.
    pub fn add(&mut self, kind: Kind, reference: &ResourceRef) {
        self.known.entry(kind).or_default().insert(key(reference));
    }

    /// An object was deleted.
    pub fn remove(&mut self, kind: Kind, reference: &ResourceRef) -> bool {
        if let Some(known) = self.known.get_mut(&kind) {
            known.remove(&key(reference));
        }
        self.diagnoses.remove(reference).is_some()
    }

    /// The objects of a kind that were applied.
    pub fn known(&self, kind: Kind) -> BTreeSet<ObjectKey> {
        self.known.get(&kind).cloned().unwrap_or_default()
    }

    /// The generation of the version of a resource of ours that was seen last.
    pub fn last_generation(&self, reference: &ResourceRef) -> i64 {
        self.diagnoses.get(reference).map_or(0, |diagnosis| diagnosis.generation)
    }

    /// The latest version of a resource of ours was accepted.
    pub fn accept(
        &mut self,
        reference: &ResourceRef,
        generation: i64,
        warnings: Vec<FieldError>,
    ) -> bool {
        let diagnosis =
            Diagnosis { generation, accepted: Some(generation), errors: Vec::new(), warnings };
        self.diagnoses.set(reference.clone(), Arc::new(diagnosis))
    }

    /// An object of Kubernetes was accepted; nothing is recorded of one that is in order.
    pub fn accept_kubernetes(
        &mut self,
        reference: &ResourceRef,
        warnings: Vec<FieldError>,
    ) -> bool {
        if warnings.is_empty() {
            return self.diagnoses.remove(reference).is_some();
        }
        let diagnosis = Diagnosis { accepted: Some(0), warnings, ..Diagnosis::default() };
        self.diagnoses.set(reference.clone(), Arc::new(diagnosis))
    }

    /// The latest version of an object cannot be accepted; `generation` is its own, where somebody counts them.
    pub fn reject(
        &mut self,
        kind: Kind,
        reference: &ResourceRef,
        generation: Option<i64>,
        (errors, warnings): (Vec<FieldError>, Vec<FieldError>),
    ) -> bool {
        let is_known =
            || self.known.get(&kind).is_some_and(|known| known.contains(&key(reference)));
        let old = match self.diagnoses.get(reference) {
            Some(old) => Diagnosis::clone(old),
            // Of Kubernetes' objects only those with faults have a diagnosis.
            None => Diagnosis { accepted: is_known().then_some(0), ..Diagnosis::default() },
        };
        if old.errors == errors && old.warnings == warnings && generation.is_none() {
            return false;
        }
        let generation = generation.unwrap_or(old.generation + 1);
        let diagnosis = Diagnosis { generation, accepted: old.accepted, errors, warnings };
        self.diagnoses.set(reference.clone(), Arc::new(diagnosis))
    }
}

fn key(reference: &ResourceRef) -> ObjectKey {
    (reference.namespace.clone(), reference.name.clone())
}
