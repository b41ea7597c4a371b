//! The port for proxies: TLS, then HTTP/2 with every gRPC service of the operator.
//!
//! Peers are bounded in number, in time (handshake, keepalive, the life of their certificate) and in what they send.
//! The identity of a peer's certificate goes with each request as [`PeerIdentity`]; what a service allows without
//! one is its own business.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use time::OffsetDateTime;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::Routes, transport::server::TcpConnectInfo};
use tower::Service;
use weft_xds::PeerIdentity;

use crate::tls::{TlsStore, peer_identity};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Peers that did not say who they are come for a certificate and go.
const ANONYMOUS_LIFETIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEADER_LIST: u32 = 64 << 10;
const MAX_STREAMS: u32 = 32;
/// Accepting fails when file descriptors have run out: others must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Counts of connections.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    open: Gauge,
    refused: Counter,
    failed: Counter,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("weft_connections", "Connections of proxies", metrics.open.clone());
        registry.register(
            "weft_connections_refused",
            "Connections beyond the limit",
            metrics.refused.clone(),
        );
        registry.register(
            "weft_handshakes_failed",
            "TLS handshakes that failed, and certificates that name nobody",
            metrics.failed.clone(),
        );
        metrics
    }
}

/// What is served, and to whom.
pub struct Server {
    /// The socket.
    pub listener: TcpListener,
    /// TLS for new connections.
    pub tls: Arc<TlsStore>,
    /// The services.
    pub routes: Routes,
    /// The mesh's trust domain.
    pub trust_domain: Arc<str>,
    /// Connections at once.
    pub max_connections: usize,
    /// Time that connections get to end after the signal.
    pub drain_timeout: Duration,
    /// Counts.
    pub metrics: Metrics,
}

/// What every connection needs.
struct Shared {
    tls: Arc<TlsStore>,
    routes: Routes,
    trust_domain: Arc<str>,
    metrics: Metrics,
    shutdown: CancellationToken,
}

impl Server {
    /// Serves until the signal, then lets connections end for a while, and closes the rest.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listener, tls, routes, trust_domain, max_connections, drain_timeout, metrics } =
            self;
        let permits = Arc::new(Semaphore::new(max_connections));
        let routes = routes.prepare();
        let shared =
            Arc::new(Shared { tls, routes, trust_domain, metrics, shutdown: shutdown.clone() });
        let connections = TaskTracker::new();
        let force = CancellationToken::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Ok(permit) = permits.clone().try_acquire_owned() else {
                        shared.metrics.refused.inc();
                        tracing::warn!(%peer, max_connections, "connection refused: too many");
                        continue;
                    };
                    let connection = connection(shared.clone(), stream, peer, permit);
                    let force = force.clone();
                    connections.spawn(async move {
                        tokio::select! {
                            () = connection => {}
                            () = force.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        connections.close();
        if timeout(drain_timeout, connections.wait()).await.is_err() {
            tracing::warn!(left = connections.len(), "closing connections that did not end");
            force.cancel();
            connections.wait().await;
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
) {
    let local = stream.local_addr().ok();
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    let acceptor = TlsAcceptor::from(shared.tls.config());
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            shared.metrics.failed.inc();
            tracing::info!(%peer, %error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            shared.metrics.failed.inc();
            tracing::info!(%peer, "TLS handshake took too long");
            return;
        }
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let identity = match certificate.map(|c| peer_identity(c, &shared.trust_domain)).transpose() {
        Ok(identity) => identity,
        Err(error) => {
            shared.metrics.failed.inc();
            tracing::warn!(%peer, error = &error as &dyn std::error::Error, "connection refused");
            return;
        }
    };
    let lifetime = match &identity {
        None => ANONYMOUS_LIFETIME,
        Some((_, not_after)) => {
            Duration::try_from(*not_after - OffsetDateTime::now_utc()).unwrap_or_default()
        }
    };
    let info = TcpConnectInfo { local_addr: local, remote_addr: Some(peer) };
    let identity = identity.map(|(identity, _)| PeerIdentity(identity));
    shared.metrics.open.inc();
    serve(&shared, stream, info, identity, lifetime).await;
    shared.metrics.open.dec();
}

async fn serve(
    shared: &Shared,
    stream: TlsStream<TcpStream>,
    info: TcpConnectInfo,
    identity: Option<PeerIdentity>,
    lifetime: Duration,
) {
    let peer = info.remote_addr;
    let routes = shared.routes.clone();
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(info.clone());
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
        let mut routes = routes.clone();
        async move { Ok::<_, Infallible>(routes.call(request).await.unwrap_or_else(|e| match e {})) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A peer's word is good for as long as its certificate; it comes back with the next one.
    let end = Instant::now().checked_add(lifetime);
    let expired = async move {
        match end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = expired => {
            tracing::debug!(?peer, "closed at the end of its time");
            return;
        }
        () = shared.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(?peer, %error, "connection ended");
    }
}
