//! The port for the API server: HTTPS, then whatever webhooks there are.
//!
//! The certificate is the authority's, renewed with that of the port for proxies. Callers are bounded in number and in
//! the time that they may take; who is in the middle of a request when the operator stops gets its answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::tls::TlsStore;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// The API server gives up on a webhook after 30 seconds at most.
const DRAIN: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 1000;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the signal, then lets requests end.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<TlsStore>,
    webhooks: Router,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            tracing::warn!(%peer, MAX_CONNECTIONS, "connection refused: too many");
            continue;
        };
        let (watcher, tls, webhooks) = (graceful.watcher(), tls.clone(), webhooks.clone());
        tokio::spawn(async move {
            let Some(stream) = handshake(&tls, stream, peer).await else { return };
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            server.http2().timer(TokioTimer::new()).keep_alive_interval(HEADER_TIMEOUT);
            let service = TowerToHyperService::new(webhooks);
            let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
            let connection = watcher.watch(connection);
            if let Err(error) = held(permit, connection).await {
                tracing::debug!(%peer, %error, "connection ended");
            }
        });
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("closing webhook connections that did not end");
    }
}

async fn held<T>(_permit: OwnedSemaphorePermit, connection: impl Future<Output = T>) -> T {
    connection.await
}

async fn handshake(
    tls: &TlsStore,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    let acceptor = TlsAcceptor::from(tls.webhooks());
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::info!(%peer, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::info!(%peer, "TLS handshake took too long");
            None
        }
    }
}
