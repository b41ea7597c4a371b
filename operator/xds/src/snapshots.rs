//! How snapshots reach the streams: the latest one, and the merged change since each reader last looked.
//!
//! Fed by the runtime's index task through [`SnapshotSender`]; read by every ADS stream and by the resource cache. A reader
//! that is slow skips snapshots, never changes: when the log no longer reaches back far enough, everything counts as changed.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::watch;
use weft_core::change::Change;

/// How many changes are kept for readers that are behind.
const LOG: usize = 256;

#[derive(Debug)]
struct Published<S> {
    /// `None` until the sources have been read for the first time: serving an empty mesh then would take
    /// everything away from proxies that outlived the operator.
    snapshot: Option<Arc<S>>,
    /// How many snapshots were published.
    sequence: u64,
    /// The changes that the latest snapshots brought, the newest last.
    log: VecDeque<Arc<Change>>,
}

/// Where snapshots are published.
#[derive(Debug)]
pub struct SnapshotSender<S>(watch::Sender<Published<S>>);

impl<S> Default for SnapshotSender<S> {
    fn default() -> Self {
        Self(watch::Sender::new(Published { snapshot: None, sequence: 0, log: VecDeque::new() }))
    }
}

impl<S> SnapshotSender<S> {
    /// A channel that holds no snapshot yet. Streams are accepted, and wait.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a snapshot the latest one. `change` is relative to the snapshot published before.
    pub fn publish(&self, snapshot: Arc<S>, change: Change) {
        self.0.send_modify(|published| {
            published.snapshot = Some(snapshot);
            published.sequence += 1;
            if published.log.len() == LOG {
                published.log.pop_front();
            }
            published.log.push_back(Arc::new(change));
        });
    }

    /// A reader that has seen nothing.
    pub fn subscribe(&self) -> SnapshotReceiver<S> {
        let mut changes = self.0.subscribe();
        changes.mark_changed();
        SnapshotReceiver { changes, seen: 0 }
    }
}

/// What a reader sees when it looks.
#[derive(Debug)]
pub struct Look<S> {
    /// The latest snapshot.
    pub snapshot: Arc<S>,
    /// Its number, counted from 1.
    pub sequence: u64,
    /// What may differ since the reader last looked; everything, the first time.
    pub change: Change,
}

impl<S> Clone for Look<S> {
    fn clone(&self) -> Self {
        Self {
            snapshot: self.snapshot.clone(),
            sequence: self.sequence,
            change: self.change.clone(),
        }
    }
}

/// Where snapshots are read. A clone has seen what its original has.
#[derive(Debug)]
pub struct SnapshotReceiver<S> {
    changes: watch::Receiver<Published<S>>,
    seen: u64,
}

impl<S> Clone for SnapshotReceiver<S> {
    fn clone(&self) -> Self {
        Self { changes: self.changes.clone(), seen: self.seen }
    }
}

impl<S> SnapshotReceiver<S> {
    /// Waits until there may be something to look at. Cancel safe. For ever once the sender is gone: what was published
    /// stays in effect.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The latest snapshot, when there is one that this reader has not seen.
    pub fn look(&mut self) -> Option<Look<S>> {
        let published = self.changes.borrow_and_update();
        let snapshot = published.snapshot.clone()?;
        let missed = usize::try_from(published.sequence - self.seen).unwrap_or(usize::MAX);
        if missed == 0 {
            return None;
        }
        let mut change = Change::default();
        if self.seen == 0 || missed > published.log.len() {
            change.all = true;
        } else {
            for missed in published.log.range(published.log.len() - missed..) {
                change.merge(Change::clone(missed));
            }
        }
        self.seen = published.sequence;
        Some(Look { snapshot, sequence: published.sequence, change })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Change {
        Change { hosts: [Arc::from(name)].into(), ..Change::default() }
    }

    #[test]
    fn a_slow_reader_skips_snapshots_but_no_change() {
        let sender = SnapshotSender::new();
        let mut reader = sender.subscribe();
        assert!(reader.look().is_none());
        sender.publish(Arc::new(1), host("first"));
        let look = reader.look().unwrap();
        assert_eq!((*look.snapshot, look.sequence, look.change.all), (1, 1, true));
        assert!(reader.look().is_none());
        sender.publish(Arc::new(2), host("a"));
        sender.publish(Arc::new(3), host("b"));
        let look = reader.look().unwrap();
        let mut both = host("a");
        both.merge(host("b"));
        assert_eq!((*look.snapshot, look.sequence, look.change), (3, 3, both));
    }

    #[test]
    fn a_reader_that_is_too_far_behind_is_told_that_everything_changed() {
        let sender = SnapshotSender::new();
        let mut reader = sender.subscribe();
        sender.publish(Arc::new(0), Change::default());
        reader.look().unwrap();
        for n in 0..LOG {
            sender.publish(Arc::new(n), host(&n.to_string()));
        }
        assert_eq!(reader.clone().look().unwrap().change.hosts.len(), LOG);
        sender.publish(Arc::new(LOG), host("last"));
        assert!(reader.look().unwrap().change.all);
    }
}
