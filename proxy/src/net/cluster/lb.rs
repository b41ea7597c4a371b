//! Choosing an endpoint.
//!
//! A [`Balancer`] belongs to one thread and one version of a cluster. It keeps the lists of available endpoints by
//! priority until an ejection, or the end of one, changes them. Policies are Envoy's; where its retry predicate may
//! give up and choose an endpoint that was tried, this one does so only when there is no other.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::BinaryHeap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::hash::{MaglevTable, Ring};
use crate::config::cluster::{Cluster, Endpoint, LbPolicy};

/// Chooses endpoints of one version of a cluster, for one thread.
#[derive(Debug)]
pub struct Balancer {
    cluster: Arc<Cluster>,
    view: RefCell<View>,
}

/// What is available, until `version` or `until` says that it may have changed.
#[derive(Debug, Default)]
struct View {
    made: bool,
    version: u64,
    until_ms: u64,
    levels: Vec<Level>,
}

/// The available endpoints of a priority.
#[derive(Debug)]
struct Level {
    hosts: Vec<Arc<Endpoint>>,
    /// Percent of the choices.
    load: u32,
    /// Running sums of the weights; empty when they are equal.
    weights: Vec<u64>,
    chooser: Chooser,
}

/// What a policy keeps between choices.
#[derive(Debug)]
enum Chooser {
    Random,
    LeastRequest(u32),
    Rotation(Cell<usize>),
    /// Earliest deadline first: an endpoint's deadlines are 1/weight apart.
    Deadlines(RefCell<BinaryHeap<Reverse<(Deadline, usize)>>>),
    Ring(Ring),
    Maglev(MaglevTable),
}

/// A deadline; ordered.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Deadline(f64);

impl Eq for Deadline {}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Balancer {
    /// For one version of a cluster.
    pub fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, view: RefCell::default() }
    }

    /// An available endpoint, one that is not in `exclude` where there is such a one; `None` when none is available.
    pub fn pick(
        &self,
        hash: Option<u64>,
        exclude: &[SocketAddr],
        now_ms: u64,
    ) -> Option<Arc<Endpoint>> {
        self.refresh(now_ms);
        let view = self.view.borrow();
        let level = view.level()?;
        let chosen = level.choose(hash)?;
        if !exclude.contains(&chosen.address) {
            return Some(chosen.clone());
        }
        let other = level
            .other(exclude)
            .or_else(|| view.levels.iter().find_map(|level| level.other(exclude)));
        Some(other.unwrap_or(chosen).clone())
    }

    fn refresh(&self, now_ms: u64) {
        let version = self.cluster.state.health_version.load(Relaxed);
        let mut view = self.view.borrow_mut();
        if !view.made || view.version != version || now_ms >= view.until_ms {
            *view = View::new(&self.cluster, version, now_ms);
        }
    }
}

impl View {
    fn new(cluster: &Cluster, version: u64, now_ms: u64) -> Self {
        let mut until_ms = u64::MAX;
        // Endpoints are ordered by priority.
        let mut all: Vec<(Vec<Arc<Endpoint>>, usize)> = Vec::new();
        let mut priority = None;
        for endpoint in &cluster.endpoints.all {
            if priority != Some(endpoint.priority) {
                priority = Some(endpoint.priority);
                all.push(Default::default());
            }
            let Some((available, total)) = all.last_mut() else { continue };
            *total += 1;
            let ejected = endpoint.state.outlier.ejected_until(now_ms);
            until_ms = until_ms.min(ejected.unwrap_or(u64::MAX));
            if cluster.is_healthy(endpoint) && ejected.is_none() {
                available.push(endpoint.clone());
            }
        }
        let loads = loads(&all.iter().map(|(up, total)| (up.len(), *total)).collect::<Vec<_>>());
        let total_load: u32 = loads.iter().map(|(_, health)| health).sum();
        let mut levels: Vec<Level> = Vec::new();
        let mut skipped = 0;
        for ((available, total), (load, _)) in all.into_iter().zip(loads) {
            let panic = cluster.panic_threshold > 0
                && total_load < 100
                && available.len() * 100 < usize::from(cluster.panic_threshold) * total;
            let hosts = if panic {
                cluster.endpoints.all.iter().skip(skipped).take(total).cloned().collect()
            } else {
                available
            };
            skipped += total;
            // When nobody is healthy, all traffic panics to the first priority.
            let load = if panic && total_load == 0 && levels.is_empty() { 100 } else { load };
            if !hosts.is_empty() {
                levels.push(Level::new(hosts, load, cluster.lb));
            }
        }
        Self { made: true, version, until_ms, levels }
    }

    fn level(&self) -> Option<&Level> {
        if let [only] = self.levels.as_slice() {
            return Some(only);
        }
        let mut at = fastrand::u32(0..100);
        for level in &self.levels {
            if at < level.load {
                return Some(level);
            }
            at -= level.load;
        }
        self.levels.first()
    }
}

/// Percent of the traffic for each priority, and its health in percent, from (available, total): a priority takes what
/// its health times 1.4 allows, and what is left goes to the next.
fn loads(levels: &[(usize, usize)]) -> Vec<(u32, u32)> {
    let health = |(available, total): &(usize, usize)| {
        u32::try_from(available * 140 / (*total).max(1)).unwrap_or(100).min(100)
    };
    let total: u32 = levels.iter().map(health).sum::<u32>().min(100);
    let mut left = 100;
    let mut loads: Vec<(u32, u32)> = levels
        .iter()
        .map(|level| {
            let health = health(level);
            let load = (health * 100).checked_div(total).unwrap_or(0).min(left);
            left -= load;
            (load, health)
        })
        .collect();
    // Rounding leaves a rest: it goes to the first that has somebody.
    if let Some((load, _)) = loads.iter_mut().find(|(_, health)| *health > 0) {
        *load += left;
    }
    loads
}

impl Level {
    fn new(hosts: Vec<Arc<Endpoint>>, load: u32, policy: LbPolicy) -> Self {
        let first = hosts.first().map_or(1, |host| host.weight);
        let weights: Vec<u64> = if hosts.iter().all(|host| host.weight == first) {
            Vec::new()
        } else {
            let mut sum = 0;
            hosts
                .iter()
                .map(|host| {
                    sum += u64::from(host.weight.max(1));
                    sum
                })
                .collect()
        };
        let chooser = match policy {
            LbPolicy::RoundRobin if weights.is_empty() => {
                Chooser::Rotation(Cell::new(fastrand::usize(0..hosts.len().max(1))))
            }
            LbPolicy::RoundRobin => Chooser::Deadlines(RefCell::new(
                hosts
                    .iter()
                    .enumerate()
                    .map(|(i, host)| {
                        // Threads and proxies must not all begin with the same endpoint.
                        Reverse((Deadline(fastrand::f64() / f64::from(host.weight.max(1))), i))
                    })
                    .collect(),
            )),
            LbPolicy::LeastRequest { choices } => Chooser::LeastRequest(choices.max(2)),
            LbPolicy::Random | LbPolicy::ClusterProvided => Chooser::Random,
            LbPolicy::RingHash { minimum_size } => Chooser::Ring(Ring::new(&hosts, minimum_size)),
            LbPolicy::Maglev { table_size } => {
                Chooser::Maglev(MaglevTable::new(&hosts, table_size))
            }
        };
        Self { hosts, load, weights, chooser }
    }

    /// One at random, by weight.
    fn draw(&self) -> usize {
        match self.weights.last() {
            None => fastrand::usize(0..self.hosts.len().max(1)),
            Some(total) => {
                let at = fastrand::u64(0..*total);
                self.weights.partition_point(|sum| *sum <= at)
            }
        }
    }

    fn choose(&self, hash: Option<u64>) -> Option<&Arc<Endpoint>> {
        let index = match &self.chooser {
            Chooser::Random => self.draw(),
            Chooser::LeastRequest(choices) => self.least_request(*choices),
            Chooser::Rotation(next) => {
                let index = next.get() % self.hosts.len().max(1);
                next.set(index + 1);
                index
            }
            Chooser::Deadlines(heap) => {
                let mut heap = heap.borrow_mut();
                let Reverse((Deadline(deadline), index)) = heap.pop()?;
                let weight = f64::from(self.hosts.get(index)?.weight.max(1));
                heap.push(Reverse((Deadline(deadline + 1.0 / weight), index)));
                index
            }
            Chooser::Ring(ring) => ring.get(hash.unwrap_or_else(|| fastrand::u64(..)))?,
            Chooser::Maglev(table) => table.get(hash.unwrap_or_else(|| fastrand::u64(..)))?,
        };
        self.hosts.get(index)
    }

    /// Of so many random ones, that with the fewest active requests for its weight. Drawing by weight keeps the shares
    /// right when nothing is active.
    fn least_request(&self, choices: u32) -> usize {
        let mut best = self.draw();
        if self.hosts.len() == 1 {
            return best;
        }
        for i in 1..choices {
            let mut other = self.draw();
            if other == best && i == 1 && self.weights.is_empty() {
                // Two different ones of two: otherwise a quarter of the draws would not compare anything.
                other = (other + 1 + fastrand::usize(0..self.hosts.len() - 1)) % self.hosts.len();
            }
            let (Some(a), Some(b)) = (self.hosts.get(best), self.hosts.get(other)) else {
                continue;
            };
            let (active_a, active_b) = (a.state.active.get(), b.state.active.get());
            if u64::from(active_b) * u64::from(a.weight) < u64::from(active_a) * u64::from(b.weight)
            {
                best = other;
            }
        }
        best
    }

    /// One that is not in `exclude`, from a random beginning.
    fn other(&self, exclude: &[SocketAddr]) -> Option<&Arc<Endpoint>> {
        let start = fastrand::usize(0..self.hosts.len().max(1));
        let (before, after) = self.hosts.split_at_checked(start)?;
        after.iter().chain(before).find(|host| !exclude.contains(&host.address))
    }
}

#[cfg(test)]
mod tests;
