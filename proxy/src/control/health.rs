//! Active health checks: endpoints of clusters that say so are asked on the control thread, whatever they are told by.
//!
//! Follows the configuration in effect; writes the verdict into [`EndpointState`], where the data threads' balancers see
//! it. An endpoint that has not been asked yet counts as unhealthy, as with Envoy.

use std::{collections::HashMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::task::{JoinHandle, spawn_local};

use crate::{
    config::{ProxyConfig, health::HealthCheck, tls::UpstreamTls},
    net::{
        cluster::{ClusterState, EndpointState, Health, count},
        tls::TlsContexts,
    },
    shared::Shared,
};

mod probe;

use probe::Verdict;

/// An endpoint that is asked.
#[derive(Clone, Debug)]
struct Target {
    cluster: Arc<ClusterState>,
    endpoint: Arc<EndpointState>,
    address: SocketAddr,
    tls: Option<Arc<UpstreamTls>>,
    check: Arc<HealthCheck>,
}

/// A target's task, which ends with it.
struct Asked {
    check: Arc<HealthCheck>,
    task: JoinHandle<()>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Asks whoever has to be asked, for ever.
pub async fn run(shared: Shared) {
    let tls = Rc::new(TlsContexts::new(shared.identity.clone()));
    let mut changes = shared.config_changed.clone();
    let mut asked: HashMap<(Arc<str>, SocketAddr), Asked> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let mut wanted = targets(&shared.config.load());
        asked.retain(|key, asked| {
            wanted.get(key).is_some_and(|target| Arc::ptr_eq(&target.check, &asked.check))
        });
        wanted.retain(|key, _| !asked.contains_key(key));
        for (key, target) in wanted {
            let check = target.check.clone();
            let task = spawn_local(ask(key.0.clone(), target, tls.clone()));
            asked.insert(key, Asked { check, task });
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn targets(config: &ProxyConfig) -> HashMap<(Arc<str>, SocketAddr), Target> {
    let mut targets = HashMap::new();
    for (name, cluster) in &config.clusters {
        let Some(check) = &cluster.health_check else { continue };
        for endpoint in &cluster.endpoints.all {
            let transport = endpoint.transport.and_then(|index| cluster.transports.get(index));
            let mut address = endpoint.address;
            address.set_port(check.port.unwrap_or(address.port()));
            let target = Target {
                cluster: cluster.state.clone(),
                endpoint: endpoint.state.clone(),
                address,
                tls: transport.and_then(|transport| transport.tls.clone()),
                check: check.clone(),
            };
            targets.insert((name.clone(), endpoint.address), target);
        }
    }
    targets
}

/// What is thought of an endpoint, and the answers in a row that speak against it.
#[derive(Debug, Default)]
struct Opinion {
    contrary: u32,
}

impl Opinion {
    /// What is thought after another answer.
    fn after(&mut self, now: Health, verdict: Verdict, check: &HealthCheck) -> Health {
        let (contrary, enough) = match (now, verdict) {
            (Health::Healthy, Verdict::Good) | (Health::Failed, Verdict::Bad | Verdict::None) => {
                (false, 0)
            }
            // The first answer of all decides.
            (Health::Unknown, _) => (true, 1),
            (Health::Failed, Verdict::Good) => (true, check.healthy_threshold),
            (Health::Healthy, Verdict::Bad) => (true, 1),
            (Health::Healthy, Verdict::None) => (true, check.unhealthy_threshold),
        };
        self.contrary = if contrary { self.contrary + 1 } else { 0 };
        if !contrary || self.contrary < enough {
            return now;
        }
        self.contrary = 0;
        if verdict == Verdict::Good { Health::Healthy } else { Health::Failed }
    }
}

/// How long to wait for the next question.
fn pause(check: &HealthCheck, health: Health, changed: bool, traffic: bool) -> Duration {
    let interval = match (health, traffic, changed) {
        (Health::Healthy, false, _) => check.no_traffic_healthy_interval,
        (_, false, _) => check.no_traffic_interval,
        (Health::Healthy, true, true) => check.healthy_edge_interval,
        (Health::Healthy, true, false) => check.interval,
        (_, true, true) => check.unhealthy_edge_interval,
        (_, true, false) => check.unhealthy_interval,
    };
    interval + check.interval_jitter.mul_f64(fastrand::f64())
}

async fn ask(cluster: Arc<str>, target: Target, tls: Rc<TlsContexts>) {
    let Target { cluster: state, endpoint, address, check, .. } = &target;
    tokio::time::sleep(check.initial_jitter.mul_f64(fastrand::f64())).await;
    let mut opinion = Opinion::default();
    loop {
        count(&state.totals.health_check_attempt);
        let answer = probe::ask(*address, target.tls.as_ref(), &tls, check).await;
        let verdict = match &answer {
            Ok(()) => Verdict::Good,
            Err(error) => error.verdict(),
        };
        count(match verdict {
            Verdict::Good => &state.totals.health_check_success,
            Verdict::Bad | Verdict::None => &state.totals.health_check_failure,
        });
        if verdict == Verdict::None {
            count(&state.totals.health_check_network_failure);
        }
        let before = endpoint.health();
        let after = opinion.after(before, verdict, check);
        if after != before {
            endpoint.set_health(after, state);
            let why = answer.err().map(|error| error.to_string());
            tracing::info!(%cluster, %address, health = ?after, why, "health of an endpoint");
        }
        let traffic = state.totals.has_had_connections();
        tokio::time::sleep(pause(check, after, after != before, traffic)).await;
    }
}

#[cfg(test)]
mod tests;
