//! Sources: where the mesh's resources come from, as a stream of batches for the index.
//!
//! A batch is applied whole before anybody sees a snapshot of it. [`folder`] is a folder of YAML, watched for changes;
//! [`kubernetes`] the API server of a cluster.

mod file;
pub mod first_seen;
pub mod folder;
pub mod kubernetes;
pub mod object;
pub mod watch;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use serde::Serialize;
use weft_crds::FieldError;
use weft_index::Object;

use self::object::ObjectKey;

/// One change of the source's resources.
#[derive(Clone, Debug)]
pub enum Event {
    /// A resource is there, new or changed.
    Apply(Object),
    /// A resource is gone.
    Delete(ObjectKey),
    /// What was given for a resource cannot be used; what was applied before stays in effect.
    Invalid {
        /// The resource.
        key: ObjectKey,
        /// The resource's own count of its versions, where somebody counts them.
        generation: Option<i64>,
        /// What is wrong with it.
        problems: Vec<FieldError>,
    },
}

/// Changes that belong together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The changes, in order.
    pub events: Vec<Event>,
    /// The state of the source after them.
    pub report: Arc<Report>,
}

/// How grave a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is not in effect as it was written.
    Error,
    /// Everything is in effect that can be, but probably not as meant.
    Warning,
}

/// Something about a file or a kind that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The file, or a folder that cannot be read; of Kubernetes, the kind.
    pub file: PathBuf,
    /// How grave it is.
    pub severity: Severity,
    /// What is wrong: kind, namespace/name, field and reason as far as they are known.
    pub message: String,
}

/// The state of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Files that it consists of.
    pub files: usize,
    /// Resources in effect.
    pub objects: usize,
    /// What is wrong, ordered by file.
    pub problems: Vec<Problem>,
    /// Rights that the operator lacks, as the rules that give them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub missing_rights: BTreeSet<String>,
}
