//! Resolved resources, shared by the streams whose views agree.
//!
//! Fed and read by every stream. Holds answers for the latest snapshot only: a change evicts what hangs on it, and a
//! stream that is behind resolves for itself. Bounded: when full, what nobody asked for since the last sweep goes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use weft_core::view::NodeView;

use crate::{
    ResourceType, SnapshotReceiver,
    resolver::{Resolved, Resolver},
    snapshots::Look,
};

struct Entry {
    view: NodeView,
    resolved: Arc<Resolved>,
    used: bool,
}

struct Inner<S> {
    snapshots: SnapshotReceiver<S>,
    /// The snapshot that all entries are valid for.
    sequence: u64,
    entries: HashMap<(ResourceType, Arc<str>), Vec<Entry>>,
    count: usize,
}

impl<S> Inner<S> {
    /// Catches up with the latest snapshot.
    fn advance(&mut self) {
        let Some(look) = self.snapshots.look() else { return };
        self.sequence = look.sequence;
        self.retain(|entry| !entry.resolved.dependencies.touched_by(&look.change));
    }

    fn retain(&mut self, mut keep: impl FnMut(&mut Entry) -> bool) {
        let mut count = 0;
        self.entries.retain(|_, entries| {
            entries.retain_mut(&mut keep);
            count += entries.len();
            !entries.is_empty()
        });
        self.count = count;
    }
}

pub(crate) struct ResourceCache<S> {
    inner: Mutex<Inner<S>>,
    capacity: usize,
}

impl<S> ResourceCache<S> {
    pub(crate) fn new(snapshots: SnapshotReceiver<S>, capacity: usize) -> Self {
        let inner = Inner { snapshots, sequence: 0, entries: HashMap::new(), count: 0 };
        Self { inner: Mutex::new(inner), capacity }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a name resolves to in the snapshot that the stream looks at.
    pub(crate) fn resolve<R: Resolver<Snapshot = S>>(
        &self,
        resolver: &R,
        look: &Look<S>,
        (kind, name): (ResourceType, &Arc<str>),
        view: &NodeView,
    ) -> Arc<Resolved> {
        {
            let mut inner = self.lock();
            inner.advance();
            if inner.sequence == look.sequence
                && let Some(entries) = inner.entries.get_mut(&(kind, name.clone()))
                && let Some(entry) =
                    entries.iter_mut().find(|entry| entry.resolved.reads.agree(&entry.view, view))
            {
                entry.used = true;
                return entry.resolved.clone();
            }
        }
        // Outside the lock: two streams that make the same answer at once cost less than all waiting for one.
        let resolved = Arc::new(resolver.resolve(&look.snapshot, kind, name, view));
        let mut inner = self.lock();
        if inner.sequence == look.sequence {
            if inner.count >= self.capacity {
                inner.retain(|entry| std::mem::take(&mut entry.used));
            }
            if inner.count < self.capacity {
                let entry = Entry { view: view.clone(), resolved: resolved.clone(), used: true };
                inner.entries.entry((kind, name.clone())).or_default().push(entry);
                inner.count += 1;
            }
        }
        resolved
    }
}
