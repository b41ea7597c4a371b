//! What is wrong with resources by themselves, for people and for the status; it has no influence on the mesh.

use std::sync::Arc;

use weft_crds::FieldError;

use crate::{resource::ResourceRef, store::Store};

/// What the index found when it read the latest version of a resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diagnosis {
    /// The generation of the latest version.
    pub generation: i64,
    /// The generation of the version that the mesh goes by: the latest, or the last good one (0 when nobody counts
    /// them, as of Kubernetes' objects); `None` when there never was a good one.
    pub accepted: Option<i64>,
    /// Why the latest version was not accepted.
    pub errors: Vec<FieldError>,
    /// What is accepted and yet probably not meant.
    pub warnings: Vec<FieldError>,
}

/// Diagnoses by resource. Every resource of a kind of ours has one; those of Kubernetes only when something is wrong.
pub type Diagnoses = Store<ResourceRef, Arc<Diagnosis>>;
