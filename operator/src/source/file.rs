//! One file of the folder: reading it once, whole, and what its documents are.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

use weft_crds::{FieldError, ParseError, Parsed, parse_text};
use weft_index::{Kind, Object};

use super::{
    Severity,
    object::{self, ObjectKey, Understood},
};

/// A file beyond this is not read.
const MAX_SIZE: u64 = 64 << 20;

/// Tells whether a file is the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// How long ago the file was last written or renamed; zero when that is in the future.
    pub fn age(&self, now: SystemTime) -> Duration {
        let (seconds, nanoseconds) = self.changed;
        let changed = u64::try_from(seconds).unwrap_or(0);
        let changed = Duration::new(changed, u32::try_from(nanoseconds).unwrap_or(0));
        now.duration_since(SystemTime::UNIX_EPOCH + changed).unwrap_or_default()
    }
}

/// What a file's documents are.
#[derive(Debug, Default)]
pub struct Content {
    /// Those that can be used.
    pub objects: Vec<Object>,
    /// Those that cannot, as far as it is known which resources they stand for.
    pub invalid: Vec<(ObjectKey, Vec<FieldError>)>,
    /// What is wrong, for people.
    pub problems: Vec<(Severity, String)>,
}

impl Content {
    /// Whether a part of the file cannot be used.
    pub fn is_broken(&self) -> bool {
        self.problems.iter().any(|(severity, _)| *severity == Severity::Error)
    }

    fn error(&mut self, message: impl Into<String>) {
        self.problems.push((Severity::Error, message.into()));
    }
}

/// Reads a file's text with the stamp that it had before; a file that changes meanwhile has another stamp next time.
pub fn read(path: &Path) -> io::Result<(Stamp, Result<String, String>)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > MAX_SIZE {
        let message = format!("larger than {} MiB, not read", MAX_SIZE >> 20);
        return Ok((Stamp::of(&metadata), Err(message)));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(MAX_SIZE).read_to_end(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        format!("not text: byte {} is not UTF-8", error.utf8_error().valid_up_to())
    });
    Ok((Stamp::of(&metadata), text))
}

/// Understands a file's text.
pub fn parse(text: &str) -> Content {
    let mut content = Content::default();
    for parsed in parse_text(text) {
        match parsed {
            Ok(Parsed::Ours(resource)) => content.objects.push(Object::Mesh(resource)),
            Ok(Parsed::Other(document)) => {
                let kind = format!("{} {}", document.api_version, document.kind);
                match object::read(document) {
                    Ok(Understood::Object(object)) => content.objects.push(object),
                    Ok(Understood::Unused { expected: false }) => {
                        tracing::debug!(%kind, "no use for this kind");
                    }
                    Ok(Understood::Unused { expected: true }) => {
                        let message = format!("{kind} has no effect: Weft does not know this kind");
                        content.problems.push((Severity::Warning, message));
                    }
                    Err(message) => content.error(message),
                }
            }
            Err(error) => {
                content.error(error.to_string());
                content.invalid.extend(invalid(error));
            }
        }
    }
    content
}

fn invalid(error: ParseError) -> Option<(ObjectKey, Vec<FieldError>)> {
    match error {
        ParseError::Resource { kind, namespace, name, problems, .. } if !name.is_empty() => {
            Some((ObjectKey { kind: Kind::Mesh(kind), namespace, name }, problems))
        }
        _ => None,
    }
}
