//! One name of one type: what was last said of it, and what is in effect.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use super::{REMOVAL_GRACE, references::References};
use crate::control::decode::Invalid;

/// A version of a resource that was accepted.
#[derive(Debug)]
pub struct Accepted<T> {
    /// The control plane's version.
    pub version: Box<str>,
    /// The resource.
    pub value: Arc<T>,
    /// What it names.
    pub references: Arc<References>,
}

impl<T> Clone for Accepted<T> {
    fn clone(&self) -> Self {
        Self {
            version: self.version.clone(),
            value: self.value.clone(),
            references: self.references.clone(),
        }
    }
}

/// What the control plane last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Nothing yet.
    Nothing,
    /// The resource.
    Present,
    /// It does not exist.
    Absent,
    /// Something that was refused, and there is no good version.
    Refused,
}

/// One name.
#[derive(Debug)]
pub struct Slot<T> {
    /// Tells it from an earlier slot of the same name.
    number: u64,
    said: Said,
    latest: Option<Accepted<T>>,
    live: Option<Accepted<T>>,
    /// When it was removed, while what was held is still of use.
    removed: Option<Instant>,
    /// The last refusal, until a good version comes.
    error: Option<Box<str>>,
}

impl<T> Slot<T> {
    fn new(number: u64) -> Self {
        Self { number, said: Said::Nothing, latest: None, live: None, removed: None, error: None }
    }

    /// The newest good version.
    pub fn latest(&self) -> Option<&Accepted<T>> {
        self.latest.as_ref()
    }

    /// The version in effect.
    pub fn live(&self) -> Option<&Accepted<T>> {
        self.live.as_ref()
    }

    /// The control plane has not answered yet.
    pub fn is_pending(&self) -> bool {
        self.said == Said::Nothing
    }

    /// There is nothing to wait for, and nothing to use.
    pub fn is_absent(&self) -> bool {
        matches!(self.said, Said::Absent | Said::Refused) && self.latest.is_none()
    }

    /// Whether the newest version is not in effect yet.
    pub fn is_warming(&self) -> bool {
        match (&self.latest, &self.live) {
            (Some(latest), Some(live)) => !Arc::ptr_eq(&latest.value, &live.value),
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// Puts the newest version into effect.
    pub fn promote(&mut self) {
        self.live.clone_from(&self.latest);
    }

    /// Gives up what was removed long enough ago; true when something was given up.
    pub fn expire(&mut self, now: Instant) -> bool {
        let expired = self
            .removed
            .is_some_and(|removed| now.saturating_duration_since(removed) >= REMOVAL_GRACE);
        if expired {
            self.removed = None;
            self.latest = None;
            self.live = None;
        }
        expired
    }

    /// It was removed, and what was held is kept for a while.
    pub fn is_removed(&self) -> bool {
        self.removed.is_some()
    }

    /// What it names, in effect or about to be.
    pub fn references(&self) -> impl Iterator<Item = &Arc<References>> {
        let latest = self.latest.iter().map(|accepted| &accepted.references);
        latest.chain(self.live.iter().map(|accepted| &accepted.references))
    }
}

/// What administration says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// The name.
    pub name: Arc<str>,
    /// The version in effect.
    pub live: Option<Box<str>>,
    /// A newer version that waits for what it names.
    pub warming: Option<Box<str>>,
    /// The control plane says that it does not exist.
    pub absent: bool,
    /// Why the newest version was refused.
    pub error: Option<Box<str>>,
}

/// All names of one type.
#[derive(Debug)]
pub struct Slots<T> {
    slots: HashMap<Arc<str>, Slot<T>>,
    /// Slots that were made.
    made: u64,
    /// Whether removed resources stay in use for a while.
    grace: bool,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: HashMap::new(), made: 0, grace: false }
    }
}

impl<T> Slots<T> {
    /// Names whose removal is put off while something uses them.
    pub fn with_grace() -> Self {
        Self { slots: HashMap::new(), made: 0, grace: true }
    }

    /// Whether the name is wanted.
    pub fn contains(&self, name: &str) -> bool {
        self.slots.contains_key(name)
    }

    /// The slot of a name.
    pub fn get(&self, name: &str) -> Option<&Slot<T>> {
        self.slots.get(name)
    }

    /// Every slot.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Slot<T>)> {
        self.slots.iter()
    }

    /// Every slot, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Arc<str>, &mut Slot<T>)> {
        self.slots.iter_mut()
    }

    /// Wants a name.
    pub fn want(&mut self, name: &Arc<str>) {
        if !self.slots.contains_key(name) {
            self.made += 1;
            self.slots.insert(name.clone(), Slot::new(self.made));
        }
    }

    /// Wants exactly these names.
    pub fn want_only(&mut self, names: &HashSet<Arc<str>>) {
        self.slots.retain(|name, _| names.contains(name));
        for name in names {
            self.want(name);
        }
    }

    /// Does not want a name any more.
    pub fn forget(&mut self, name: &str) {
        self.slots.remove(name);
    }

    /// Stores what was said of one resource under its names. A refused one leaves the last good version.
    pub fn store(
        &mut self,
        names: &[&str],
        version: &str,
        decoded: Result<(T, References), Invalid>,
    ) -> Result<(), Invalid> {
        match decoded {
            Ok((value, references)) => {
                let accepted = Accepted {
                    version: version.into(),
                    value: Arc::new(value),
                    references: Arc::new(references),
                };
                for name in names {
                    if let Some(slot) = self.slots.get_mut(*name) {
                        slot.said = Said::Present;
                        slot.removed = None;
                        slot.error = None;
                        slot.latest = Some(accepted.clone());
                    }
                }
                Ok(())
            }
            Err(invalid) => {
                let text = invalid.to_string();
                for name in names {
                    if let Some(slot) = self.slots.get_mut(*name) {
                        if slot.latest.is_none() {
                            slot.said = Said::Refused;
                        }
                        slot.error = Some(text.as_str().into());
                    }
                }
                Err(invalid)
            }
        }
    }

    /// Notes that the control plane has no such resource.
    pub fn remove(&mut self, name: &str, now: Instant) {
        let grace = self.grace;
        if let Some(slot) = self.slots.get_mut(name) {
            slot.said = Said::Absent;
            slot.error = None;
            if grace && slot.latest.is_some() {
                slot.removed.get_or_insert(now);
            } else {
                slot.latest = None;
                slot.live = None;
            }
        }
    }

    /// Every name, with a number that tells slots of the same name apart.
    pub fn names(&self) -> HashMap<Arc<str>, u64> {
        self.slots.iter().map(|(name, slot)| (name.clone(), slot.number)).collect()
    }

    /// Versions of what is held.
    pub fn versions(&self) -> HashMap<String, String> {
        self.slots
            .iter()
            .filter(|(_, slot)| slot.said == Said::Present)
            .filter_map(|(name, slot)| {
                Some((name.to_string(), slot.latest.as_ref()?.version.to_string()))
            })
            .collect()
    }

    /// For administration, sorted by name.
    pub fn overview(&self) -> Vec<Overview> {
        let mut overview: Vec<_> = self
            .slots
            .iter()
            .map(|(name, slot)| Overview {
                name: name.clone(),
                live: slot.live.as_ref().map(|live| live.version.clone()),
                warming: slot
                    .is_warming()
                    .then(|| slot.latest.as_ref().map(|latest| latest.version.clone()))
                    .flatten(),
                absent: slot.said == Said::Absent,
                error: slot.error.clone(),
            })
            .collect();
        overview.sort_by(|a, b| a.name.cmp(&b.name));
        overview
    }
}
