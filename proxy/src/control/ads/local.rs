//! What happens in the process itself: wishes of data threads, time, and look-ups of names.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinSet, time::Interval};

use crate::{control::names, shared::Demand};

/// Wishes that are taken together.
const BATCH: usize = 256;
/// A look-up that takes longer counts as failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Something happened.
pub enum Event {
    /// Data threads need names.
    Demands(Vec<Demand>),
    /// Time passed: what was not used for long may go, grace periods may have ended.
    Tick,
    /// A name was looked up.
    Resolved(Box<str>, Vec<IpAddr>),
}

/// The sources of events.
pub struct Local {
    demands: mpsc::Receiver<Demand>,
    tick: Interval,
    lookups: JoinSet<(Box<str>, Vec<IpAddr>)>,
    /// When each name is looked up next; `None` while a look-up is under way.
    next_lookup: HashMap<Box<str>, (Duration, Option<Instant>)>,
}

impl Local {
    /// Ticks often enough for `idle`.
    pub fn new(demands: mpsc::Receiver<Demand>, idle: Duration) -> Self {
        let every = (idle / 4).clamp(Duration::from_millis(250), Duration::from_secs(1));
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { demands, tick, lookups: JoinSet::new(), next_lookup: HashMap::new() }
    }

    /// The next event. Cancel safe.
    pub async fn next(&mut self) -> Event {
        tokio::select! {
            Some(demand) = self.demands.recv() => {
                let mut demands = vec![demand];
                while demands.len() < BATCH {
                    match self.demands.try_recv() {
                        Ok(demand) => demands.push(demand),
                        Err(_) => break,
                    }
                }
                Event::Demands(demands)
            }
            Some(Ok((name, addresses))) = self.lookups.join_next() => {
                if let Some((every, next)) = self.next_lookup.get_mut(&name) {
                    *next = Some(Instant::now() + *every);
                }
                Event::Resolved(name, addresses)
            }
            _ = self.tick.tick() => {
                self.look_up();
                Event::Tick
            }
        }
    }

    /// Keeps these names looked up, each so often.
    pub fn resolve(&mut self, names: Vec<(Box<str>, Duration)>) {
        if names.is_empty() && self.next_lookup.is_empty() {
            return;
        }
        let names: HashMap<_, _> = names.into_iter().collect();
        self.next_lookup.retain(|name, _| names.contains_key(name));
        for (name, every) in names {
            self.next_lookup
                .entry(name)
                .and_modify(|(old, _)| *old = every)
                .or_insert_with(|| (every, Some(Instant::now())));
        }
        self.look_up();
    }

    fn look_up(&mut self) {
        let now = Instant::now();
        for (name, (_, next)) in &mut self.next_lookup {
            if next.is_some_and(|at| at <= now) {
                *next = None;
                let name = name.clone();
                self.lookups.spawn(async move {
                    let lookup = tokio::time::timeout(LOOKUP_TIMEOUT, names::look_up(&name));
                    let addresses = lookup.await.ok().and_then(Result::ok).unwrap_or_default();
                    (name, addresses)
                });
            }
        }
    }
}
