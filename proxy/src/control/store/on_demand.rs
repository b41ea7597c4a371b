//! Names that are wanted for themselves: the listeners of every proxy, named services, and what data threads ask for.
//!
//! Their number is bounded; what was not used for long is dropped.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::oneshot;
use weft_api::names::OutboundListenerName;

use crate::shared::{DemandKey, NamedService};

/// How many names are held on demand, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct OnDemandLimits {
    /// Most names.
    pub names: usize,
    /// Unused for so long: dropped.
    pub idle: Duration,
}

/// A name that was asked for.
#[derive(Debug)]
struct Name {
    last_used: Arc<AtomicU32>,
    waiters: Vec<oneshot::Sender<()>>,
}

/// The names.
#[derive(Debug)]
pub struct OnDemandNames {
    /// Listeners that stay.
    fixed: Vec<(Arc<str>, Arc<AtomicU32>)>,
    /// So many of them are the proxy's own, the others those of named services.
    needed: usize,
    /// The mark of those that are here without having been asked for by name.
    unnamed: Arc<AtomicU32>,
    names: HashMap<DemandKey, Name>,
    limits: OnDemandLimits,
}

impl OnDemandNames {
    /// The names of every proxy and of the named services.
    pub fn new(needed: &[&str], named: &[NamedService], limits: OnDemandLimits) -> Self {
        let mut fixed: Vec<Arc<str>> = needed.iter().map(|name| Arc::from(*name)).collect();
        for service in named {
            let name = OutboundListenerName { host: service.host.to_string(), port: service.port };
            let name = Arc::from(name.to_string());
            if !fixed.contains(&name) {
                fixed.push(name);
            }
        }
        let fixed = fixed.into_iter().map(|name| (name, Arc::default())).collect();
        Self { fixed, needed: needed.len(), unnamed: Arc::default(), names: HashMap::new(), limits }
    }

    /// The listeners that stay.
    pub fn fixed(&self) -> impl Iterator<Item = &Arc<str>> {
        self.fixed.iter().map(|(name, _)| name)
    }

    /// Those of them that every proxy has.
    pub fn needed(&self) -> impl Iterator<Item = &Arc<str>> {
        self.fixed.iter().take(self.needed).map(|(name, _)| name)
    }

    /// The mark that data threads touch.
    pub fn last_used(&self, key: &DemandKey) -> Arc<AtomicU32> {
        if let Some(name) = self.names.get(key) {
            return name.last_used.clone();
        }
        let fixed = match key {
            DemandKey::Listener(wanted) => self.fixed.iter().find(|(name, _)| name == wanted),
            DemandKey::VirtualHost(_) => None,
        };
        fixed.map_or_else(|| self.unnamed.clone(), |(_, mark)| mark.clone())
    }

    /// Adds a waiter, and the name when it is new.
    pub fn wait(&mut self, key: &DemandKey, ready: oneshot::Sender<()>, now: u32) {
        let name = self.names.entry(key.clone()).or_insert_with(|| Name {
            last_used: Arc::new(AtomicU32::new(now)),
            waiters: Vec::new(),
        });
        name.waiters.retain(|waiter| !waiter.is_closed());
        name.waiters.push(ready);
    }

    /// The names that must give way to a new one: of the least worth those that were unused for longest. When there
    /// are many, some more go than must, so that a flood of new names does not search for each.
    pub fn make_room(&self, key: &DemandKey, worth: impl Fn(&DemandKey) -> u8) -> Vec<DemandKey> {
        let most = self.limits.names.max(1);
        if self.names.len() < most || self.names.contains_key(key) {
            return Vec::new();
        }
        let mut ranked: Vec<_> = self
            .names
            .iter()
            .map(|(key, name)| (worth(key), name.last_used.load(Ordering::Relaxed), key))
            .collect();
        ranked.sort_unstable_by_key(|(worth, last_used, _)| (*worth, *last_used));
        let least = ranked.first().map_or(0, |(worth, _, _)| *worth);
        let must = self.names.len() + 1 - most;
        let spare = ranked.iter().take(most / 16).filter(|(worth, _, _)| *worth == least).count();
        ranked.into_iter().take(must.max(spare)).map(|(_, _, key)| key.clone()).collect()
    }

    /// Names that were unused for long and that nobody waits for.
    pub fn idle(&self, now: u32) -> Vec<DemandKey> {
        let limit = u32::try_from(self.limits.idle.as_secs()).unwrap_or(u32::MAX);
        self.names
            .iter()
            .filter(|(_, name)| name.waiters.iter().all(oneshot::Sender::is_closed))
            .filter(|(_, name)| {
                now.saturating_sub(name.last_used.load(Ordering::Relaxed)) >= limit.max(1)
            })
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Drops a name and whoever waits for it.
    pub fn remove(&mut self, key: &DemandKey) {
        self.names.remove(key);
    }

    /// Wakes those whose name is answered.
    pub fn wake(&mut self, answered: impl Fn(&DemandKey) -> bool) {
        for (key, name) in &mut self.names {
            if !name.waiters.is_empty() && answered(key) {
                for waiter in name.waiters.drain(..) {
                    let _ = waiter.send(());
                }
            }
        }
    }
}
