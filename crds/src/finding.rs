//! What is wrong with a field.

use std::fmt;

use crate::path::Path;

/// Something about one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldError {
    /// The field: `spec.http[0].route[1].weight`.
    pub path: String,
    /// What about it.
    pub reason: String,
}

impl FieldError {
    pub(crate) fn new(path: &Path<'_>, reason: impl Into<String>) -> Self {
        Self { path: path.to_string(), reason: reason.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}
