//! A folder of YAML as a set of resources: scanned whole, compared with the scan before.
//!
//! Guarantees: a file is parsed whole before anything of it counts; a file that cannot be used as it is keeps its
//! last good content in effect and is reported; a file that is gone takes its resources with it; of two files that
//! define the same resource, the first by path wins. Renaming a file changes nothing.
//!
//! Caveat: of a file that is broken when it is first seen, the documents that can be used are.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use weft_crds::FieldError;
use weft_index::Object;

use super::{
    Batch, Event, Problem, Report, Severity,
    file::{self, Content, Stamp},
    first_seen::FirstSeen,
    object::{self, ObjectKey},
};

/// What is worse than before is believed only when it has stayed for this long: writers that do not rename
/// truncate the file first.
const SETTLE: Duration = Duration::from_millis(300);
/// Deeper folders are not looked at.
const MAX_DEPTH: usize = 16;
/// More files are not looked at.
const MAX_FILES: usize = 100_000;

#[derive(Debug, Default)]
struct FileState {
    stamp: Option<Stamp>,
    /// The last good content.
    objects: Vec<Arc<Object>>,
    invalid: Vec<(ObjectKey, Vec<FieldError>)>,
    problems: Vec<(Severity, String)>,
}

/// A folder of YAML, as it was when last scanned.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    files: BTreeMap<PathBuf, FileState>,
    effective: BTreeMap<ObjectKey, Arc<Object>>,
    invalid: BTreeMap<ObjectKey, Vec<FieldError>>,
    first_seen: FirstSeen,
    report: Arc<Report>,
    scanned: bool,
}

/// What a scan found.
#[derive(Debug)]
pub struct Scan {
    /// What changed; `None` when nothing did.
    pub batch: Option<Batch>,
    /// A file may still be being written: look again after this time.
    pub again: Option<Duration>,
}

/// What there is to read below a folder.
#[derive(Debug, Default)]
struct Listing {
    files: BTreeSet<PathBuf>,
    /// Folders that cannot be read, and why. What was known of them stays.
    unreadable: Vec<(PathBuf, String)>,
}

impl Folder {
    /// A folder that was not scanned yet.
    pub fn new(root: PathBuf, first_seen: FirstSeen) -> Self {
        Self {
            root,
            files: BTreeMap::new(),
            effective: BTreeMap::new(),
            invalid: BTreeMap::new(),
            first_seen,
            report: Arc::default(),
            scanned: false,
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads what changed since the last scan. The first scan always gives a batch.
    pub fn scan(&mut self, now: SystemTime) -> Scan {
        let listing = list(&self.root);
        let lost = |path: &Path| listing.unreadable.iter().any(|(dir, _)| path.starts_with(dir));
        self.files.retain(|path, _| listing.files.contains(path) || lost(path));
        let mut again = None;
        for path in &listing.files {
            if self.read_file(path, now) == Settled::No {
                again = Some(SETTLE / 2);
            }
        }
        let mut problems: Vec<Problem> = listing
            .unreadable
            .into_iter()
            .map(|(file, message)| Problem { file, severity: Severity::Error, message })
            .collect();
        let events = self.compare(&mut problems);
        problems.sort();
        let report = Report {
            files: self.files.len(),
            objects: self.effective.len(),
            problems,
            ..Report::default()
        };
        if self.scanned && events.is_empty() && report == *self.report {
            return Scan { batch: None, again };
        }
        // What was deleted while nobody looked; a broken file may still hold what it does not show.
        if !self.scanned && report.problems.iter().all(|p| p.severity == Severity::Warning) {
            let known: HashSet<String> = self
                .files
                .values()
                .flat_map(|file| &file.objects)
                .map(|o| ObjectKey::of(o).to_string())
                .collect();
            self.first_seen.retain(|key| known.contains(key));
        }
        self.scanned = true;
        log_problems(&self.report, &report);
        self.report = Arc::new(report);
        self.first_seen.save();
        Scan { batch: Some(Batch { events, report: self.report.clone() }), again }
    }

    /// Reads a file when it is not the one that was read before.
    fn read_file(&mut self, path: &Path, now: SystemTime) -> Settled {
        let state = self.files.entry(path.to_owned()).or_default();
        let unchanged = fs::metadata(path).is_ok_and(|m| Some(Stamp::of(&m)) == state.stamp);
        if unchanged {
            return Settled::Yes;
        }
        let (stamp, text) = match file::read(path) {
            Ok(read) => read,
            Err(error) => {
                // Gone since the folder was listed: the next scan will know.
                if error.kind() != io::ErrorKind::NotFound {
                    state.problems = vec![(Severity::Error, format!("cannot be read: {error}"))];
                }
                state.stamp = None;
                return Settled::Yes;
            }
        };
        let settled = stamp.age(now) >= SETTLE;
        let content = text.map_or_else(unreadable, |text| file::parse(&text));
        let worse = content.is_broken() || content.objects.len() < state.objects.len();
        if worse && !settled {
            return Settled::No;
        }
        // A write within the clock's resolution would leave the same stamp: look once more when time has passed.
        state.stamp = settled.then_some(stamp);
        let keep = content.is_broken() && !state.objects.is_empty();
        if !keep {
            let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            state.objects = content
                .objects
                .into_iter()
                .map(|mut object| {
                    let key = ObjectKey::of(&object);
                    object::set_created(&mut object, self.first_seen.of(&key, seconds));
                    Arc::new(object)
                })
                .collect();
        }
        state.invalid = content.invalid;
        state.problems = content.problems;
        if settled { Settled::Yes } else { Settled::No }
    }

    /// Compares what the files say with what was in effect, and makes it so.
    fn compare(&mut self, problems: &mut Vec<Problem>) -> Vec<Event> {
        let mut wanted: BTreeMap<ObjectKey, (&Path, &Arc<Object>)> = BTreeMap::new();
        let mut invalid: BTreeMap<ObjectKey, Vec<FieldError>> = BTreeMap::new();
        for (path, file) in &self.files {
            let report = |severity, message| Problem { file: path.clone(), severity, message };
            problems.extend(file.problems.iter().map(|(s, message)| report(*s, message.clone())));
            for object in &file.objects {
                let key = ObjectKey::of(object);
                if let Some((first, _)) = wanted.get(&key) {
                    let message = format!(
                        "{key}: ignored, it is already defined in {}",
                        first.strip_prefix(&self.root).unwrap_or(first).display()
                    );
                    problems.push(report(Severity::Warning, message));
                    continue;
                }
                wanted.insert(key, (path, object));
            }
            for (key, errors) in &file.invalid {
                invalid.entry(key.clone()).or_insert_with(|| errors.clone());
            }
        }
        let mut events = Vec::new();
        let gone: Vec<_> =
            self.effective.keys().filter(|key| !wanted.contains_key(key)).cloned().collect();
        for key in gone {
            self.effective.remove(&key);
            self.first_seen.forget(&key);
            events.push(Event::Delete(key));
        }
        // In the order of files and documents, which is the order of first sight.
        for object in self.files.values().flat_map(|file| &file.objects) {
            let key = ObjectKey::of(object);
            if !wanted.get(&key).is_some_and(|(_, first)| Arc::ptr_eq(first, object)) {
                continue;
            }
            let before = self.effective.get(&key);
            let same = before.is_some_and(|b| Arc::ptr_eq(b, object) || same(b, object));
            // What was reported about it is forgotten when it is applied.
            let repaired = self.invalid.contains_key(&key) && !invalid.contains_key(&key);
            if same && !repaired {
                continue;
            }
            events.push(Event::Apply(Object::clone(object)));
            self.effective.insert(key, object.clone());
        }
        // A report about a resource that was never in effect ends with its deletion.
        for key in self.invalid.keys() {
            if !invalid.contains_key(key) && !self.effective.contains_key(key) {
                events.push(Event::Delete(key.clone()));
            }
        }
        for (key, errors) in &invalid {
            if self.invalid.get(key) != Some(errors) {
                events.push(Event::Invalid {
                    key: key.clone(),
                    generation: None,
                    problems: errors.clone(),
                });
            }
        }
        self.invalid = invalid;
        events
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    Yes,
    No,
}

/// Whether two versions of a resource are equal in all that the mesh reads.
fn same(a: &Object, b: &Object) -> bool {
    match (a, b) {
        (Object::Service(a), Object::Service(b)) => a == b,
        (Object::EndpointSlice(a), Object::EndpointSlice(b)) => a == b,
        (Object::Pod(a), Object::Pod(b)) => a == b,
        (Object::ConfigMap(a), Object::ConfigMap(b)) => a == b,
        (Object::Secret(a), Object::Secret(b)) => a == b,
        (Object::Mesh(a), Object::Mesh(b)) => a == b,
        _ => false,
    }
}

fn unreadable(message: String) -> Content {
    Content { problems: vec![(Severity::Error, message)], ..Content::default() }
}

fn log_problems(before: &Report, after: &Report) {
    for problem in after.problems.iter().filter(|p| !before.problems.contains(p)) {
        let Problem { file, severity, message } = problem;
        let effect = match severity {
            Severity::Error => "a file cannot be used as it is; its last good content stays",
            Severity::Warning => "a file has something that is not in effect",
        };
        tracing::warn!(file = %file.display(), problem = %message, "{effect}");
    }
    for problem in before.problems.iter().filter(|p| !after.problems.contains(p)) {
        tracing::info!(file = %problem.file.display(), problem = %problem.message, "no longer so");
    }
}

/// Finds the files to read: `.yaml`, `.yml` and `.json`, not those with a leading dot.
fn list(root: &Path) -> Listing {
    let mut listing = Listing::default();
    let mut folders = vec![(root.to_owned(), 0)];
    let mut visited = HashSet::new();
    while let Some((folder, depth)) = folders.pop() {
        // Symbolic links may lead in a circle.
        if let Ok(metadata) = fs::metadata(&folder)
            && !visited.insert((metadata.dev(), metadata.ino()))
        {
            continue;
        }
        if let Err(error) = list_folder(&folder, depth, &mut listing, &mut folders) {
            listing.unreadable.push((folder, format!("cannot be read: {error}")));
        }
    }
    listing
}

fn list_folder(
    folder: &Path,
    depth: usize,
    listing: &mut Listing,
    folders: &mut Vec<(PathBuf, usize)>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let Some(metadata) = fs::metadata(&path).ok().filter(|_| !hidden) else { continue };
        let known = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if metadata.is_dir() {
            if depth < MAX_DEPTH {
                folders.push((path, depth + 1));
            } else {
                listing.unreadable.push((path, "is nested too deeply".into()));
            }
        } else if metadata.is_file() && known {
            if listing.files.len() >= MAX_FILES {
                listing.unreadable.push((path, format!("more than {MAX_FILES} files")));
                return Ok(());
            }
            listing.files.insert(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
