//! Readiness, and the way to a clean end: drain, then stop.

use std::{cell::Cell, sync::atomic::Ordering};

use tokio::sync::{Notify, watch};

use crate::shared::{Lifecycle, Shared};

/// Whether the proxy is ready, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It is.
    Ready,
    /// Something is still missing.
    Initializing(&'static str),
    /// It is stopping.
    Draining,
    /// Somebody has said so (`/healthcheck/fail`).
    Failed,
}

/// Owns the lifecycle's signal; shared by administration and the control thread's end.
#[derive(Debug)]
pub struct LifecycleControl {
    shared: Shared,
    state: watch::Sender<Lifecycle>,
    quit: Notify,
    failed: Cell<bool>,
    /// The first generation that had all that is needed.
    complete: Cell<Option<u64>>,
}

impl LifecycleControl {
    /// Of a process that is beginning.
    pub fn new(shared: Shared, state: watch::Sender<Lifecycle>) -> Self {
        Self {
            shared,
            state,
            quit: Notify::new(),
            failed: Cell::new(false),
            complete: Cell::new(None),
        }
    }

    /// How far the process is.
    pub fn state(&self) -> Lifecycle {
        *self.state.borrow()
    }

    /// Goes further; never back.
    pub fn advance(&self, to: Lifecycle) {
        self.state.send_if_modified(|state| {
            let further = to > *state;
            if further {
                *state = to;
            }
            further
        });
    }

    /// Asks the process to end as on SIGTERM.
    pub fn quit(&self) {
        self.quit.notify_one();
    }

    /// Waits until somebody asks for the end.
    pub async fn wait_for_quit(&self) {
        self.quit.notified().await;
    }

    /// Makes readiness fail, or not any more.
    pub fn fail_health(&self, failed: bool) {
        self.failed.set(failed);
    }

    /// Ready once there is an identity and every data thread listens for what it must.
    pub fn readiness(&self) -> Readiness {
        if self.state() != Lifecycle::Running {
            return Readiness::Draining;
        }
        if !self.shared.settings.standalone && self.shared.identity.load().is_none() {
            return Readiness::Initializing("no certificate yet");
        }
        let complete = match self.complete.get() {
            Some(generation) => generation,
            None => {
                let config = self.shared.config.load();
                if !config.initialized {
                    return Readiness::Initializing("listeners have not arrived yet");
                }
                self.complete.set(Some(config.generation));
                config.generation
            }
        };
        if self.shared.applied.iter().any(|applied| applied.load(Ordering::Acquire) < complete) {
            return Readiness::Initializing("listeners are not bound yet");
        }
        if self.failed.get() { Readiness::Failed } else { Readiness::Ready }
    }
}
