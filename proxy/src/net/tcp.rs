//! TCP proxying: from an accepted connection to an endpoint of a cluster, byte by byte.
//!
//! Called by the data threads for filter chains that end in a TCP proxy. With ALPN `istio-peer-exchange` the peers tell
//! each other who they are before the first byte. Counts Istio's `istio_tcp_*`; the caller writes the access log from
//! the [`TcpOutcome`]. Source: Envoy, "TCP proxy".

use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::Instant,
};
use weft_api::identity::SpiffeId;

use super::{
    flags::ResponseFlags,
    peer::{self, OwnMetadata, PEER_EXCHANGE},
    pool::connect::{Connection, ConnectionInfo},
    tls::PeerInfo,
    upstreams::{ErrorKind, PickContext, Picked, UpstreamError, Upstreams},
};
use crate::{
    config::{
        ProxyConfig,
        cluster::{Cluster, WorkloadInfo},
        listener::{TcpProxy, TrafficDirection},
    },
    stats::{Reporter, SecurityPolicy, TcpTraffic, ThreadStats, TrafficLabels, service_of},
};

mod copy;

use copy::End;

/// Time for the metadata exchange.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(5);

/// What proxying a connection needs.
#[derive(Clone, Debug)]
pub struct TcpContext<'a> {
    /// The filter.
    pub proxy: &'a TcpProxy,
    /// The configuration in effect; let go of when the connection has found its way.
    pub config: Arc<ProxyConfig>,
    /// The thread's clusters.
    pub upstreams: &'a Upstreams,
    /// The thread's metrics.
    pub stats: &'a ThreadStats,
    /// What this workload says of itself.
    pub own: &'a OwnMetadata,
    /// The listener's direction.
    pub direction: TrafficDirection,
    /// Where the client wanted to go, for clusters that take it.
    pub destination: Option<SocketAddr>,
    /// The client, when the connection is TLS that was terminated here.
    pub client: Option<&'a PeerInfo>,
}

/// What became of a connection.
#[derive(Debug, Default)]
pub struct TcpOutcome {
    /// What went wrong.
    pub flags: ResponseFlags,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// How long it lasted.
    pub duration: Duration,
    /// The cluster that was chosen.
    pub cluster: Option<Arc<str>>,
    /// The endpoint that was tried last, or connected to.
    pub endpoint: Option<SocketAddr>,
    /// The connection to it.
    pub upstream: Option<Arc<ConnectionInfo>>,
    /// Why the endpoint could not be connected to.
    pub failure: String,
}

/// Proxies a connection until it ends. Dropping the future closes both sides.
pub async fn proxy<IO: AsyncRead + AsyncWrite + Unpin>(
    mut io: IO,
    context: TcpContext<'_>,
) -> TcpOutcome {
    let began = Instant::now();
    let mut outcome = TcpOutcome::default();
    let idle = context.proxy.idle_timeout.filter(|idle| !idle.is_zero());
    if let Some(opened) = open(&mut io, context, &mut outcome).await {
        relay(&mut io, opened, idle, &mut outcome).await;
    }
    outcome.duration = began.elapsed();
    outcome
}

/// The other side, and what is counted. What was needed to find it is not held while bytes are copied: it would keep
/// old configuration alive.
struct Opened {
    upstream: Connection,
    traffic: TcpTraffic,
    /// Bytes that were read from the client already.
    leftover: Bytes,
}

async fn open<IO: AsyncRead + AsyncWrite + Unpin>(
    io: &mut IO,
    context: TcpContext<'_>,
    outcome: &mut TcpOutcome,
) -> Option<Opened> {
    let exchanges = context.client.is_some_and(|c| c.alpn.as_deref() == Some(PEER_EXCHANGE));
    let mut accepted = peer::Accepted::default();
    if exchanges {
        match peer::accept_exchange(io, context.own, EXCHANGE_LIMIT).await {
            Ok(told) => accepted = told,
            Err(error) => {
                tracing::debug!(%error, "metadata exchange with the client failed");
                outcome.flags.insert(ResponseFlags::DPE);
                return None;
            }
        }
    }
    let Some(cluster) = choose(context.proxy) else {
        outcome.flags.insert(ResponseFlags::NC);
        return None;
    };
    outcome.cluster = Some(cluster.clone());
    let Some((picked, mut upstream)) = connect(&context, cluster, outcome).await else {
        count_failure(&context, cluster, accepted.peer, outcome.flags);
        return None;
    };
    outcome.upstream = Some(upstream.info.clone());
    let mut server = picked.endpoint().workload.clone();
    if upstream.info.alpn() == Some(PEER_EXCHANGE) {
        match peer::connect_exchange(&mut upstream.io, context.own, EXCHANGE_LIMIT).await {
            Ok(told) => server = Some(told),
            Err(error) => {
                tracing::debug!(%error, "metadata exchange with the endpoint failed");
                outcome.flags.insert(ResponseFlags::UPE);
                count_failure(&context, cluster, accepted.peer, outcome.flags);
                return None;
            }
        }
    }
    let labels = labels(&context, picked.cluster(), accepted.peer, server, Some(&upstream.info));
    let traffic = context.stats.traffic(&labels).tcp();
    Some(Opened { upstream, traffic, leftover: accepted.leftover })
}

async fn relay<IO: AsyncRead + AsyncWrite + Unpin>(
    io: &mut IO,
    opened: Opened,
    idle: Option<Duration>,
    outcome: &mut TcpOutcome,
) {
    let Opened { mut upstream, traffic, leftover } = opened;
    if !leftover.is_empty() && upstream.io.write_all(&leftover).await.is_err() {
        outcome.flags.insert(ResponseFlags::UC);
        traffic.flags(outcome.flags);
        return;
    }
    let early = leftover.len() as u64;
    let counted = Cell::new((0, 0));
    let end = copy::copy(io, &mut upstream.io, idle, |received, sent| {
        let (old_received, old_sent) = counted.replace((received, sent));
        traffic.bytes(received - old_received, sent - old_sent);
    })
    .await;
    traffic.bytes(early, 0);
    let (received, sent) = counted.get();
    (outcome.received, outcome.sent) = (received + early, sent);
    match end {
        End::Closed => {}
        End::Idle => outcome.flags.insert(ResponseFlags::SI),
        End::Downstream => outcome.flags.insert(ResponseFlags::DC),
        End::Upstream(error) => {
            tracing::debug!(%error, endpoint = %upstream.info.remote, "endpoint's connection broke");
            outcome.flags.insert(ResponseFlags::UC);
        }
    }
    traffic.flags(outcome.flags);
}

/// A cluster of the filter, by weight.
fn choose(proxy: &TcpProxy) -> Option<&Arc<str>> {
    if let [(only, _)] = proxy.clusters.as_slice() {
        return Some(only);
    }
    let total: u64 = proxy.clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut at = if total == 0 { return None } else { fastrand::u64(0..total) };
    for (name, weight) in &proxy.clusters {
        match at.checked_sub(u64::from(*weight)) {
            Some(rest) => at = rest,
            None => return Some(name),
        }
    }
    None
}

/// Connects to an endpoint, in as many attempts as the filter allows.
async fn connect(
    context: &TcpContext<'_>,
    cluster: &str,
    outcome: &mut TcpOutcome,
) -> Option<(Picked, Connection)> {
    let mut tried = Vec::new();
    for _ in 0..context.proxy.max_connect_attempts.max(1) {
        let Some(runtime) = context.upstreams.get(&context.config, cluster) else {
            outcome.flags.insert(ResponseFlags::NC);
            return None;
        };
        let pick = PickContext {
            destination: context.destination,
            exclude: &tried,
            ..PickContext::default()
        };
        let Ok(picked) = runtime.pick(&pick) else {
            outcome.flags.insert(ResponseFlags::UH);
            return None;
        };
        outcome.endpoint = Some(picked.address());
        match picked.connect().await {
            Ok(connection) => {
                outcome.flags.remove(ResponseFlags::UF);
                return Some((picked, connection));
            }
            Err(error) => {
                note(&error, &picked, outcome);
                if error.kind == ErrorKind::Overflow {
                    return None;
                }
            }
        }
        tried.push(picked.address());
    }
    outcome.flags.insert(ResponseFlags::URX);
    None
}

fn note(error: &UpstreamError, picked: &Picked, outcome: &mut TcpOutcome) {
    outcome.flags.insert(error.flag());
    outcome.failure = error.transport_failure();
    tracing::debug!(
        endpoint = %picked.address(), cluster = %picked.cluster().name,
        failure = outcome.failure, "endpoint not connected to"
    );
}

/// A connection that came to nothing is opened and closed, with its flags.
fn count_failure(
    context: &TcpContext<'_>,
    cluster: &str,
    client: Option<Arc<WorkloadInfo>>,
    flags: ResponseFlags,
) {
    let Some(cluster) = context.config.clusters.get(cluster) else { return };
    let labels = labels(context, cluster, client, None, None);
    let traffic: Rc<_> = context.stats.traffic(&labels);
    traffic.tcp_failed(flags);
}

fn labels(
    context: &TcpContext<'_>,
    cluster: &Cluster,
    client: Option<Arc<WorkloadInfo>>,
    server: Option<Arc<WorkloadInfo>>,
    upstream: Option<&ConnectionInfo>,
) -> TrafficLabels {
    let principal = |id: Option<&SpiffeId>| -> Arc<str> {
        id.map(|id| id.to_string().into()).unwrap_or_default()
    };
    let service = service_of(cluster, "");
    match context.direction {
        TrafficDirection::Inbound => {
            let verified = context.client.filter(|client| client.verified);
            TrafficLabels {
                reporter: Reporter::Destination,
                source: client.unwrap_or_default(),
                source_principal: principal(
                    verified.and_then(|client| client.certificate.identity.as_ref()),
                ),
                destination: context.own.workload.clone(),
                destination_principal: verified
                    .and_then(|client| client.local_identity.clone())
                    .unwrap_or_default(),
                service,
                security: match verified {
                    Some(_) => SecurityPolicy::MutualTls,
                    None => SecurityPolicy::None,
                },
            }
        }
        TrafficDirection::Outbound => {
            let peer = upstream.filter(|info| info.is_mutual_tls()).and_then(|i| i.peer.as_ref());
            TrafficLabels {
                reporter: Reporter::Source,
                source: context.own.workload.clone(),
                source_principal: peer
                    .and_then(|peer| peer.local_identity.clone())
                    .unwrap_or_default(),
                destination: server.unwrap_or_default(),
                destination_principal: principal(
                    peer.and_then(|peer| peer.certificate.identity.as_ref()),
                ),
                service,
                security: SecurityPolicy::Unknown,
            }
        }
    }
}

#[cfg(test)]
mod tests;
