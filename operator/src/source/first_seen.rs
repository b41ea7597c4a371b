//! When each resource was first seen, for those whose manifest does not say when it was created.
//!
//! Precedence among resources follows their age, so ages must outlive the operator: they are kept in the state folder.
//! Every resource gets a second of its own, in the order of files and documents.

use std::collections::BTreeMap;

use weft_ca::state::{Secrecy, StateDir};

use super::object::ObjectKey;

const FILE: &str = "first-seen";

/// The ages of resources.
#[derive(Debug, Default)]
pub struct FirstSeen {
    state: Option<StateDir>,
    /// By the key's text, as the file has it.
    seen: BTreeMap<String, i64>,
    last: i64,
    changed: bool,
}

impl FirstSeen {
    /// Reads what an earlier process kept. A file that cannot be read is reported and replaced.
    pub fn open(state: StateDir) -> Self {
        let seen: BTreeMap<String, i64> = match state.read(FILE) {
            Ok(None) => BTreeMap::new(),
            Ok(Some(text)) => serde_json::from_str(&text).unwrap_or_else(|error| {
                tracing::warn!(file = FILE, %error, "the ages of resources are lost");
                BTreeMap::new()
            }),
            Err(error) => {
                tracing::warn!(file = FILE, %error, "the ages of resources are lost");
                BTreeMap::new()
            }
        };
        let last = seen.values().copied().max().unwrap_or(0);
        Self { state: Some(state), seen, last, changed: false }
    }

    /// When the resource was first seen; now, when it is new.
    pub fn of(&mut self, key: &ObjectKey, now: i64) -> i64 {
        if let Some(seen) = self.seen.get(&key.to_string()) {
            return *seen;
        }
        self.last = now.max(self.last.saturating_add(1));
        self.seen.insert(key.to_string(), self.last);
        self.changed = true;
        self.last
    }

    /// Forgets a resource: should it come back, it is new.
    pub fn forget(&mut self, key: &ObjectKey) {
        self.changed |= self.seen.remove(&key.to_string()).is_some();
    }

    /// Forgets all but these, which is what was deleted while nobody looked.
    pub fn retain(&mut self, known: impl Fn(&str) -> bool) {
        let before = self.seen.len();
        self.seen.retain(|key, _| known(key));
        self.changed |= self.seen.len() != before;
    }

    /// Writes what changed to the state folder.
    pub fn save(&mut self) {
        let Some(state) = self.state.as_ref().filter(|_| self.changed) else { return };
        let written =
            serde_json::to_string(&self.seen).map_err(|error| error.to_string()).and_then(|text| {
                state.write(FILE, &text, Secrecy::Public).map_err(|error| error.to_string())
            });
        match written {
            Ok(()) => self.changed = false,
            Err(error) => tracing::warn!(file = FILE, %error, "cannot keep the ages of resources"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            kind: weft_index::Kind::Service,
            namespace: "default".into(),
            name: name.into(),
        }
    }

    #[test]
    fn resources_are_ordered_as_they_were_seen_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || FirstSeen::open(StateDir::open(dir.path()).unwrap());
        let mut seen = open();
        assert_eq!([seen.of(&key("b"), 100), seen.of(&key("a"), 100)], [100, 101]);
        seen.save();
        let mut seen = open();
        let ages = [seen.of(&key("a"), 90), seen.of(&key("b"), 200), seen.of(&key("c"), 90)];
        assert_eq!(ages, [101, 100, 102]);
        seen.forget(&key("b"));
        assert_eq!(seen.of(&key("b"), 200), 200);
    }

    #[test]
    fn a_damaged_file_costs_the_ages_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"a\": ").unwrap();
        let mut seen = FirstSeen::open(StateDir::open(dir.path()).unwrap());
        assert_eq!(seen.of(&key("a"), 7), 7);
        seen.save();
        assert_eq!(FirstSeen::open(StateDir::open(dir.path()).unwrap()).of(&key("a"), 9), 7);
    }
}
