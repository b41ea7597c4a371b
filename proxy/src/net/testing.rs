//! Servers and clusters for the tests of this folder, over real sockets in the test's own thread.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Notify,
    task::spawn_local,
};

use crate::{
    config::{
        ProxyConfig,
        cluster::{Cluster, Endpoint, Endpoints, TransportSocket, UpstreamProtocol},
        tls::{DownstreamTls, UpstreamTls},
    },
    identity::Identity,
    net::{
        body::RequestBody,
        cluster::tests::{cluster, endpoint_of},
        pool::ResponseBody,
        tls::{self, TlsContexts},
        upstreams::{ClusterRuntime, PickContext, Picked, UpstreamError, Upstreams},
    },
};

pub use crate::data::testing::nobody;

pub type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;
pub type Handler = Rc<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Reply>>>>;

pub fn reply(status: u16, text: &'static str) -> Reply {
    let body = Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync();
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(status).unwrap();
    reply
}

/// A server in the test's thread.
pub struct Server {
    pub address: SocketAddr,
    pub connections: Rc<Cell<usize>>,
    pub open: Rc<Cell<usize>>,
    /// Tells every connection to shut down gracefully.
    pub drain: Rc<Notify>,
    changed: Rc<Notify>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Speaks {
    Http1,
    Http2 { streams: u32 },
}

impl Server {
    pub async fn start<F>(
        speaks: Speaks,
        handler: impl Fn(Request<Incoming>) -> F + 'static,
    ) -> Self
    where
        F: Future<Output = Reply> + 'static,
    {
        let handler: Handler = Rc::new(move |request| Box::pin(handler(request)));
        Self::listen(move |io, drain| serve(io, speaks, handler.clone(), drain)).await
    }

    /// A server that terminates TLS with the identity of the contexts.
    pub async fn start_tls(speaks: Speaks, contexts: TlsContexts, tls: Arc<DownstreamTls>) -> Self {
        let contexts = Rc::new(contexts);
        let handler: Handler = Rc::new(|_| Box::pin(async { reply(200, "secret") }));
        Self::listen(move |io, drain| {
            let (contexts, tls, handler) = (contexts.clone(), tls.clone(), handler.clone());
            async move {
                let tls = contexts.server(&tls).unwrap();
                if let Ok((io, _)) = tls::accept(&tls, io, Duration::from_secs(5)).await {
                    serve(io, speaks, handler, drain).await;
                }
            }
        })
        .await
    }

    pub async fn listen<F>(
        connection: impl Fn(tokio::net::TcpStream, Rc<Notify>) -> F + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            connections: Rc::default(),
            open: Rc::default(),
            drain: Rc::default(),
            changed: Rc::default(),
        };
        let (connections, open) = (server.connections.clone(), server.open.clone());
        let (drain, changed) = (server.drain.clone(), server.changed.clone());
        spawn_local(async move {
            loop {
                let (io, _) = listener.accept().await.unwrap();
                connections.set(connections.get() + 1);
                open.set(open.get() + 1);
                changed.notify_waiters();
                let (open, changed) = (open.clone(), changed.clone());
                let ended = connection(io, drain.clone());
                spawn_local(async move {
                    ended.await;
                    open.set(open.get() - 1);
                    changed.notify_waiters();
                });
            }
        });
        server
    }

    pub async fn until_open(&self, wanted: usize) {
        loop {
            let changed = self.changed.notified();
            if self.open.get() == wanted {
                return;
            }
            changed.await;
        }
    }
}

pub async fn serve<IO: AsyncRead + AsyncWrite + Unpin + 'static>(
    io: IO,
    speaks: Speaks,
    handler: Handler,
    drain: Rc<Notify>,
) {
    let service = service_fn(move |request| {
        let reply = handler(request);
        async move { Ok::<_, Infallible>(reply.await) }
    });
    match speaks {
        Speaks::Http1 => {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(io), service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                () = drain.notified() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
        Speaks::Http2 { streams } => {
            let connection = http2::Builder::new(Local)
                .max_concurrent_streams(streams)
                .serve_connection(TokioIo::new(io), service);
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                () = drain.notified() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
    }
}

#[derive(Clone, Copy)]
pub struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

/// A thread's clusters, with one cluster.
pub struct Test {
    pub upstreams: Rc<Upstreams>,
    pub cluster: RefCell<Arc<Cluster>>,
}

impl Test {
    pub fn new(addresses: &[SocketAddr], change: impl FnOnce(&mut Cluster)) -> Self {
        Self::with_identity(addresses, Arc::default(), change)
    }

    pub fn with_identity(
        addresses: &[SocketAddr],
        identity: Arc<ArcSwapOption<Identity>>,
        change: impl FnOnce(&mut Cluster),
    ) -> Self {
        let mut cluster = cluster(Vec::new());
        cluster.endpoints = endpoints(addresses, None);
        change(&mut cluster);
        Self { upstreams: Upstreams::new(identity), cluster: RefCell::new(Arc::new(cluster)) }
    }

    pub fn config(&self) -> ProxyConfig {
        let mut config = ProxyConfig::default();
        let cluster = self.cluster.borrow().clone();
        config.clusters.insert(cluster.name.clone(), cluster);
        config
    }

    pub fn change(&self, change: impl FnOnce(&mut Cluster)) {
        let mut cluster = Cluster::clone(&self.cluster.borrow());
        change(&mut cluster);
        self.cluster.replace(Arc::new(cluster));
        self.upstreams.reconcile(&self.config());
    }

    pub fn runtime(&self) -> Rc<ClusterRuntime> {
        let name = self.cluster.borrow().name.clone();
        self.upstreams.get(&self.config(), &name).unwrap()
    }

    pub fn pick(&self) -> Picked {
        self.runtime().pick(&PickContext::default()).unwrap()
    }

    pub async fn send(&self) -> Result<Response<ResponseBody>, UpstreamError> {
        self.pick().request(request(RequestBody::Empty)).await
    }

    /// Sends a request and reads the whole response.
    pub async fn get(&self) -> Result<(u16, Bytes), UpstreamError> {
        let response = self.send().await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await.unwrap().to_bytes()))
    }
}

pub fn endpoints(addresses: &[SocketAddr], transport: Option<usize>) -> Arc<Endpoints> {
    let endpoint = |address: &SocketAddr| {
        Arc::new(Endpoint { address: *address, transport, ..endpoint_of(0, 1) })
    };
    Arc::new(Endpoints { all: addresses.iter().map(endpoint).collect() })
}

pub fn request(body: RequestBody) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.uri_mut() = "http://orders.default.svc.cluster.local:80/a?b=c".parse().unwrap();
    request
}

pub fn over_tls(cluster: &mut Cluster, addresses: &[SocketAddr], tls: Arc<UpstreamTls>) {
    cluster.transports =
        vec![TransportSocket { name: "tlsMode-istio".into(), matches: Vec::new(), tls: Some(tls) }];
    cluster.endpoints = endpoints(addresses, Some(0));
}

pub fn speak_http2(cluster: &mut Cluster) {
    cluster.protocol = UpstreamProtocol::Http2;
}
