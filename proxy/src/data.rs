//! The data threads: each a `current_thread` runtime with its own sockets, connections and counters.
//!
//! [`run`] is what a thread does from its start to the end of the process. Reads the configuration and the lifecycle of
//! [`Shared`]; nothing here takes a lock that another thread can hold.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    http::access_log::writer,
    settings::Subscribed,
    shared::{Lifecycle, Shared},
};

pub mod bell;
pub mod bind;
#[cfg(test)]
mod captured;
pub mod chain;
pub mod client_hello;
pub mod connection;
pub mod counters;
pub mod destination;
#[cfg(test)]
mod edge;
pub mod proxy_protocol;
pub mod sniff;
pub mod stream;
pub mod tcp;
#[cfg(test)]
pub(crate) mod testing;
pub mod thread;

use bind::Binds;
use thread::Thread;

/// How long to wait before an address that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a thread that ends waits for its access log lines to be written.
const LOG_FLUSH: Duration = Duration::from_secs(2);

/// Why a data thread cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// No runtime.
    #[error("cannot make the data thread's runtime")]
    Runtime(#[source] io::Error),
}

/// Runs a data thread until the process drains and its last connection has gone, or until the process stops.
///
/// # Errors
/// The runtime cannot be made.
pub fn run(index: usize, shared: Arc<Shared>) -> Result<(), DataError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(DataError::Runtime)?;
    runtime.block_on(serve(index, shared));
    // Whatever is left of connections ends with the runtime, and says so in the access logs.
    drop(runtime);
    writer::process().flush(LOG_FLUSH);
    Ok(())
}

async fn serve(index: usize, shared: Arc<Shared>) {
    let thread = Thread::new(index, shared.clone());
    let mut lifecycle = shared.lifecycle.clone();
    let mut changes = shared.config_changed.clone();
    let mut binds = Binds::new(thread.clone());
    while *lifecycle.borrow_and_update() < Lifecycle::Draining {
        changes.mark_unchanged();
        let config = thread.config();
        let failures = binds.apply(bind::wanted(&config, &shared.named_services));
        let complete = failures.is_empty();
        // One Gateway that cannot be served must not keep the others from being ready.
        let serves = complete || (shared.settings.listeners() == Subscribed::All && binds.any());
        if let Some(told) = shared.bind_failures.get(index) {
            told.store(Arc::new(failures));
        }
        thread.upstreams.reconcile(&config);
        if serves && let Some(applied) = shared.applied.get(index) {
            applied.store(config.generation, Ordering::Release);
        }
        let again =
            async { if complete { std::future::pending().await } else { sleep(RETRY).await } };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            changed = lifecycle.changed() => if changed.is_err() { break },
            () = again => {}
        }
    }
    tracing::info!(thread = index, "draining");
    let stopped = lifecycle.wait_for(|now| *now == Lifecycle::Stopping);
    let idle = async {
        binds.close().await;
        thread.until_idle().await;
    };
    tokio::select! {
        () = idle => {}
        _ = stopped => {}
    }
}

#[cfg(test)]
mod tests;
