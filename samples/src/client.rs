//! HTTP and gRPC clients as an ordinary application has them: they call services by name and go through the
//! proxy that `http_proxy` names, in absolute form for HTTP and by `CONNECT` for gRPC.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hickory_resolver::TokioResolver;
use http::Uri;
use http_body_util::Full;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::{
        legacy::{
            Client,
            connect::{Connected, Connection, proxy::Tunnel},
        },
        proxy::matcher::Matcher,
    },
    rt::{TokioExecutor, TokioIo},
};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

/// Opens TCP connections, to the proxy where one applies.
#[derive(Clone, Debug)]
pub struct Dialer {
    proxy: Arc<Matcher>,
}

/// A connection that tells the HTTP client whether its peer is a proxy.
#[derive(Debug)]
pub struct Dialed {
    stream: TokioIo<TcpStream>,
    proxied: bool,
}

impl Dialer {
    /// Uses `http_proxy` and `no_proxy` of the environment.
    pub fn from_env() -> Self {
        Self { proxy: Arc::new(Matcher::from_env()) }
    }

    /// Sends everything to this proxy.
    pub fn through(proxy: &str) -> Self {
        Self { proxy: Arc::new(Matcher::builder().http(format!("http://{proxy}")).build()) }
    }

    /// Uses no proxy, whatever the environment says.
    pub fn direct() -> Self {
        Self { proxy: Arc::new(Matcher::builder().build()) }
    }

    fn proxy_for(&self, target: &Uri) -> Option<Uri> {
        self.proxy.intercept(target).map(|intercept| intercept.uri().clone())
    }
}

async fn dial(target: &Uri) -> io::Result<TcpStream> {
    let host = target.host().ok_or_else(|| io::Error::other("no host to connect to"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    connect(host, target.port_u16().unwrap_or(80)).await
}

/// Opens a TCP connection to a name or an address.
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses: Vec<IpAddr> = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => resolver()?.lookup_ip(host).await.map_err(io::Error::other)?.iter().collect(),
    };
    let addresses: Vec<SocketAddr> =
        addresses.into_iter().map(|address| (address, port).into()).collect();
    let stream = TcpStream::connect(&addresses[..]).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Looks names up as `resolv.conf` says. Not by the C library, which a static binary cannot fully have; nothing is
/// remembered, so that a name is found as soon as it is there.
fn resolver() -> io::Result<&'static TokioResolver> {
    static RESOLVER: OnceLock<TokioResolver> = OnceLock::new();
    if let Some(resolver) = RESOLVER.get() {
        return Ok(resolver);
    }
    let mut builder = TokioResolver::builder_tokio().map_err(io::Error::other)?;
    builder.options_mut().cache_size = 0;
    let resolver = builder.build().map_err(io::Error::other)?;
    Ok(RESOLVER.get_or_init(|| resolver))
}

impl Service<Uri> for Dialer {
    type Response = Dialed;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Dialed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let proxy = self.proxy_for(&target);
        Box::pin(async move {
            let stream = TokioIo::new(dial(proxy.as_ref().unwrap_or(&target)).await?);
            Ok(Dialed { stream, proxied: proxy.is_some() })
        })
    }
}

impl Connection for Dialed {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl Read for Dialed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Dialed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A pooled HTTP/1.1 client. `retry` says whether a request that found its pooled connection closed is sent
/// again, as most clients do.
pub fn http_client(dialer: Dialer, retry: bool) -> Client<Dialer, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).retry_canceled_requests(retry).build(dialer)
}

/// A gRPC channel to `http://SERVICE:PORT`, through a `CONNECT` tunnel where a proxy applies. It connects on the
/// first call.
pub fn grpc_channel(dialer: &Dialer, target: &Uri) -> Channel {
    let endpoint = Endpoint::from(target.clone());
    match dialer.proxy_for(target) {
        Some(proxy) => endpoint.connect_with_connector_lazy(Tunnel::new(proxy, Direct)),
        None => endpoint.connect_lazy(),
    }
}

/// Opens TCP connections to exactly what it is told.
#[derive(Clone, Copy, Debug)]
struct Direct;

impl Service<Uri> for Direct {
    type Response = Dialed;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Dialed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        Box::pin(async move {
            Ok(Dialed { stream: TokioIo::new(dial(&target).await?), proxied: false })
        })
    }
}
