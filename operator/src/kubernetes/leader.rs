//! Which replica writes: the one that holds the Lease `weft-leader` of the operator's namespace.
//!
//! A leader that cannot renew its lease stops leading before another one may start. At the end it gives the lease up.

use std::time::{Duration, Instant};

use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Cluster, MANAGED_BY,
    lease::{self, Observer, Step},
};

const NAME: &str = "weft-leader";
/// How often the lease is looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// One look takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Without a renewal for this long the lease may be another's before there is the next look at it: that one may begin a
/// period later and take all its time.
const DEADLINE: Duration = lease::DURATION.saturating_sub(PERIOD.saturating_add(PATIENCE));

/// Takes part in the election until the signal; says whether this replica leads.
pub async fn run(cluster: Cluster, leading: watch::Sender<bool>, shutdown: CancellationToken) {
    let mut candidate = Candidate {
        leases: Api::namespaced(cluster.client, &cluster.namespace),
        me: cluster.pod,
        observer: Observer::default(),
    };
    let mut renewed = Instant::now();
    loop {
        let started = Instant::now();
        let attempt = tokio::select! {
            attempt = timeout(PATIENCE, candidate.attempt()) => attempt,
            () = shutdown.cancelled() => break,
        };
        match attempt {
            Ok(Ok(true)) => {
                renewed = started;
                if !leading.send_replace(true) {
                    tracing::info!(lease = NAME, "leading");
                }
            }
            Ok(Ok(false)) => {
                if leading.send_replace(false) {
                    tracing::info!(lease = NAME, "another replica leads");
                }
            }
            Ok(Err(error)) => tracing::debug!(lease = NAME, %error, "cannot be renewed"),
            Err(_) => tracing::debug!(lease = NAME, "cannot be renewed: no answer"),
        }
        if renewed.elapsed() >= DEADLINE && leading.send_replace(false) {
            tracing::warn!(lease = NAME, "not leading any more: the lease could not be renewed");
        }
        tokio::select! {
            () = sleep(PERIOD) => {}
            () = shutdown.cancelled() => break,
        }
    }
    if leading.send_replace(false) {
        match timeout(PATIENCE, candidate.release()).await {
            Ok(Ok(())) => tracing::info!(lease = NAME, "given up"),
            Ok(Err(error)) => tracing::warn!(lease = NAME, %error, "cannot be given up"),
            Err(_) => tracing::warn!(lease = NAME, "cannot be given up: no answer"),
        }
    }
}

struct Candidate {
    leases: Api<Lease>,
    me: String,
    observer: Observer,
}

impl Candidate {
    /// Takes or renews the lease if that is possible; says whether it is ours.
    async fn attempt(&mut self) -> kube::Result<bool> {
        let there = self.leases.get_opt(NAME).await?;
        let spec = there.as_ref().and_then(|lease| lease.spec.as_ref());
        let empty = Default::default();
        // A lease without a spec is nobody's.
        let spec = there.as_ref().map(|_| spec.unwrap_or(&empty));
        let Step::Take(spec) = self.observer.step(spec, &self.me, Timestamp::now(), Instant::now())
        else {
            return Ok(false);
        };
        let options = PostParams::default();
        let written = match there {
            Some(mut lease) => {
                lease.spec = Some(*spec);
                self.leases.replace(NAME, &options, &lease).await
            }
            None => {
                let labels = [MANAGED_BY].map(|(k, v)| (k.to_owned(), v.to_owned()));
                let metadata = ObjectMeta {
                    name: Some(NAME.to_owned()),
                    labels: Some(labels.into()),
                    ..ObjectMeta::default()
                };
                self.leases.create(&options, &Lease { metadata, spec: Some(*spec) }).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            // Another one was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn release(&self) -> kube::Result<()> {
        let Some(mut lease) = self.leases.get_opt(NAME).await? else { return Ok(()) };
        let Some(spec) = &lease.spec else { return Ok(()) };
        if spec.holder_identity.as_deref() != Some(&*self.me) {
            return Ok(());
        }
        lease.spec = Some(lease::released(spec, Timestamp::now()));
        self.leases.replace(NAME, &PostParams::default(), &lease).await.map(drop)
    }
}

/// Runs a task whenever this replica leads, each time from its start. One that ends by itself has nothing left to do.
pub async fn while_leading<F: Future<Output = ()>>(
    mut leading: watch::Receiver<bool>,
    task: impl Fn() -> F,
) {
    while leading.wait_for(|leads| *leads).await.is_ok() {
        let task = async {
            task().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = task => {}
            _ = leading.wait_for(|leads| !*leads) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_runs_once_each_time_that_this_replica_leads() {
        let (leads, leading) = watch::channel(false);
        let runs = Cell::new(0);
        let task = || async { runs.set(runs.get() + 1) };
        let changes = async {
            for expected in [1, 2] {
                leads.send_replace(true);
                sleep(Duration::from_secs(1)).await;
                assert_eq!(runs.get(), expected);
                leads.send_replace(false);
                sleep(Duration::from_secs(1)).await;
            }
            drop(leads);
        };
        tokio::join!(while_leading(leading, task), changes);
        assert_eq!(runs.get(), 2);
    }

    #[test]
    fn a_leader_stops_before_another_one_may_start() {
        assert!(DEADLINE + PERIOD + PATIENCE <= lease::DURATION);
        assert!(DEADLINE > PERIOD + PATIENCE, "one look without an answer is no reason to stop");
    }
}
