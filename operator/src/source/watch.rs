//! Follows a folder: a thread that scans when something in it changed, and now and then all the same.
//!
//! The watch of the file system is a hint only. Events may be lost or refused (limits, network file systems); the
//! periodic scan repairs what they lost.

use std::{
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc as channel;

use super::{Batch, folder::Folder};

/// Events that follow each other closely are one change.
const QUIET: Duration = Duration::from_millis(30);
/// But a change is not put off for longer than this.
const MAX_WAIT: Duration = Duration::from_millis(300);
/// How often the folder is scanned without a reason.
const RESCAN: Duration = Duration::from_secs(10);
/// How often when the file system cannot be watched.
const RESCAN_BLIND: Duration = Duration::from_secs(1);

/// Follows a folder until the receiver is dropped. The first batch is what is there.
///
/// # Errors
/// When no thread can be started.
pub fn follow(mut folder: Folder) -> std::io::Result<channel::Receiver<Batch>> {
    let (batches, receiver) = channel::channel(16);
    let (hints, hinted) = mpsc::sync_channel(1);
    thread::Builder::new().name("source".into()).spawn(move || {
        // Before the first scan: what changes during it is seen by the next one.
        let watcher = watch(folder.root(), hints.clone());
        let rescan = if watcher.is_some() { RESCAN } else { RESCAN_BLIND };
        loop {
            let scan = folder.scan(SystemTime::now());
            if let Some(batch) = scan.batch
                && batches.blocking_send(batch).is_err()
            {
                break;
            }
            if batches.is_closed() {
                break;
            }
            // Also looks whether somebody is still interested.
            wait(&hinted, scan.again.unwrap_or(rescan));
        }
        // Until here there is a sender, so that waiting without a watch does not spin.
        drop((watcher, hints));
    })?;
    Ok(receiver)
}

fn watch(root: &Path, hints: SyncSender<()>) -> Option<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too, and what we do all the time.
        let reading = event
            .as_ref()
            .is_ok_and(|e| matches!(e.kind, EventKind::Access(access) if !written(access)));
        if !reading && let Err(TrySendError::Disconnected(())) = hints.try_send(()) {
            tracing::trace!("an event after the end");
        }
    })
    .and_then(|mut watcher| watcher.watch(root, RecursiveMode::Recursive).map(|()| watcher));
    match &mut watcher {
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(folder = %root.display(), %error, "cannot watch, looking every second instead");
        }
    }
    watcher.ok()
}

fn written(access: notify::event::AccessKind) -> bool {
    use notify::event::{AccessKind, AccessMode};
    access == AccessKind::Close(AccessMode::Write)
}

/// Waits for a hint and then for quiet, or for the time to pass.
fn wait(hinted: &Receiver<()>, timeout: Duration) {
    if hinted.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
        return;
    }
    let start = Instant::now();
    while start.elapsed() < MAX_WAIT && hinted.recv_timeout(QUIET).is_ok() {}
}
