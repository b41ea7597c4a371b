//! Why a text is not a resource.

use std::fmt;

use crate::{FieldError, Kind};

/// Why a text is not a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// It is not YAML, or too much of it.
    Yaml {
        /// What the YAML parser says, with the place.
        reason: String,
        /// The line, from 1; 0 if not known.
        line: u64,
        /// The column, from 1; 0 if not known.
        column: u64,
    },
    /// A document is a list or a scalar.
    NotAnObject {
        /// Which document that holds something, from 0, if the text has several.
        document: Option<usize>,
    },
    /// A resource of ours has something that it cannot have.
    Resource {
        /// The resource's kind.
        kind: Kind,
        /// Its namespace.
        namespace: String,
        /// Its name; empty if it has none.
        name: String,
        /// What is wrong, at least one.
        problems: Vec<FieldError>,
        /// Which document that holds something, from 0, if the text has several.
        document: Option<usize>,
    },
}

impl ParseError {
    /// The resource's kind, as far as known.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Resource { kind, .. } => Some(*kind),
            _ => None,
        }
    }

    /// The resource's name, as far as known.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Resource { name, .. } => Some(name.as_str()).filter(|name| !name.is_empty()),
            _ => None,
        }
    }

    /// The resource's namespace, as far as known.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Resource { namespace, .. } => Some(namespace),
            _ => None,
        }
    }

    /// The path of the first field that is wrong.
    pub fn path(&self) -> Option<&str> {
        self.problems().first().map(|problem| problem.path.as_str())
    }

    /// What is wrong first.
    pub fn reason(&self) -> &str {
        match self {
            Self::Yaml { reason, .. } => reason,
            Self::NotAnObject { .. } => "expected an object with apiVersion and kind",
            Self::Resource { problems, .. } => problems.first().map_or("", |p| p.reason.as_str()),
        }
    }

    /// Every field that is wrong.
    pub fn problems(&self) -> &[FieldError] {
        match self {
            Self::Resource { problems, .. } => problems,
            _ => &[],
        }
    }

    pub(super) fn in_document(mut self, place: Option<usize>) -> Self {
        match &mut self {
            Self::Yaml { .. } => {}
            Self::NotAnObject { document } | Self::Resource { document, .. } => *document = place,
        }
        self
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::NotAnObject { document: Some(index) }
        | Self::Resource { document: Some(index), .. } = self
        {
            write!(f, "document {}: ", index + 1)?;
        }
        match self {
            Self::Yaml { reason, .. } => write!(f, "not valid YAML: {reason}"),
            Self::NotAnObject { .. } => f.write_str(self.reason()),
            Self::Resource { kind, namespace, name, problems, .. } => {
                let name = if name.is_empty() { "(no name)" } else { name };
                write!(f, "{kind} {namespace}/{name}")?;
                for (index, problem) in problems.iter().enumerate() {
                    write!(f, "{}{problem}", if index == 0 { ": " } else { "; " })?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ParseError {}
