//! The servers of one process: HTTP, gRPC, and two TCP ports, drained together.

mod grpc;
mod http;
mod tcp;
mod tunnel;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::{conn::auto, graceful::GracefulShutdown};
use tokio::{net::TcpListener, sync::watch};
use tonic::transport::Channel;

use crate::{
    client::{Dialer, http_client},
    control::Control,
    settings::Settings,
    wiretap::Wiretap,
};

/// How long answers that are under way may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// What the handlers of all protocols share.
pub(crate) struct App {
    settings: Settings,
    control: Control,
    dialer: Dialer,
    client: Client<Dialer, Full<Bytes>>,
    /// Opened by the first call and kept.
    payment: OnceLock<Channel>,
    wiretap: Option<Arc<Wiretap>>,
}

async fn listen(settings: &Settings, port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::new(settings.address, port);
    match bind(address).await {
        // A machine without IPv6.
        Err(_) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            bind((Ipv4Addr::UNSPECIFIED, port).into()).await
        }
        bound => bound,
    }
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
}

/// Serves until `stop` turns true, then lets answers under way finish.
///
/// # Errors
/// When a port cannot be bound.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> io::Result<()> {
    let http = listen(&settings, settings.http_port).await?;
    let grpc = listen(&settings, settings.grpc_port).await?;
    let echo = listen(&settings, settings.echo_port).await?;
    let greet = listen(&settings, settings.greet_port).await?;
    let tunnel = match settings.tunnel {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let wiretap = settings.wiretap.as_deref().map(Wiretap::start).transpose()?;
    let greeting = format!("220 {} {} ready\r\n", settings.role, settings.app_version);
    let dialer = Dialer::from_env();
    let client = http_client(dialer.clone(), true);
    tracing::info!(role = %settings.role, version = settings.app_version, address = %settings.address, "listening");
    let app = Arc::new(App {
        settings,
        control: Control::default(),
        dialer,
        client,
        payment: OnceLock::new(),
        wiretap,
    });

    let mut tcp = vec![
        tokio::spawn(tcp::serve(echo, String::new())),
        tokio::spawn(tcp::serve(greet, greeting)),
    ];
    tcp.extend(tunnel.map(|listener| tokio::spawn(tunnel::serve(listener))));
    let grpc = tokio::spawn(grpc::serve(grpc, Arc::clone(&app), stop.clone()));
    serve_http(http, app, stop).await;
    for task in tcp {
        task.abort();
    }
    // The gRPC server saw the same signal; whatever is left after the drain time is cut off.
    let _ = tokio::time::timeout(DRAIN, grpc).await;
    Ok(())
}

async fn serve_http(listener: TcpListener, app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let server = auto::Builder::new(TokioExecutor::new());
    let stopped = stop.wait_for(|stop| *stop);
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors or the like: wait instead of spinning.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        app.control.connected();
        let _ = stream.set_nodelay(true);
        // The connection's own end is inside the server; its options are reached by a second handle.
        let handle = match stream.as_fd().try_clone_to_owned() {
            Ok(handle) => handle,
            Err(error) => {
                tracing::warn!(%error, "connection closed");
                continue;
            }
        };
        let service = http::service(Arc::clone(&app), peer, handle);
        let connection =
            server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
}
