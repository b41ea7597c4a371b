//! What the tests of the data path share: configurations by hand, a proxy on a port of its own, backends and clients.

use std::{
    cell::Cell,
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use ::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use weft_api::identity::SpiffeId;

use super::{connection, destination::Destination, thread::Thread};
use crate::{
    config::{
        OnDemand, ProxyConfig,
        cluster::{
            CircuitBreakers, Cluster, Discovery, Endpoint, Endpoints, LbPolicy, TransportSocket,
            UpstreamProtocol,
        },
        filter::FilterOverrides,
        http::{
            ClientCertDetails, CodecType, ForwardClientCert, HttpConnectionManager,
            PathNormalization, RouteSource, ServerHeader,
        },
        listener::{
            FilterChain, FilterChainMatch, Listener, TcpProxy, Terminal, TrafficDirection,
            TransportMatch,
        },
        matcher::StringMatcher,
        route::{
            Forward, ForwardTarget, PathMatch, RetryOn, RetryPolicy, Route, RouteAction,
            RouteConfig, RouteMatch, VirtualHost, VirtualHosts,
        },
        tls::{DownstreamTls, TlsSource, TlsVersions, UpstreamTls},
    },
    identity::Identity,
    net::cluster::{ClusterState, EndpointState},
    settings::Settings,
    shared::{ControlSide, Shared},
};

/// Runs a test on a runtime as a data thread has it, for at most half a minute.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs")
    })
}

/// A route to somewhere else.
pub fn to(target: ForwardTarget) -> Forward {
    Forward {
        target,
        timeout: None,
        idle_timeout: None,
        retry: None,
        prefix_rewrite: None,
        regex_rewrite: None,
        host_rewrite: None,
        hash: Vec::new(),
        mirrors: Vec::new(),
        cors: None,
        upgrades: Vec::new(),
        cluster_not_found: StatusCode::SERVICE_UNAVAILABLE,
        max_grpc_timeout: None,
    }
}

/// A route to a cluster.
pub fn to_cluster(name: &str) -> Forward {
    to(ForwardTarget::Cluster(name.into()))
}

/// A route for everything below a prefix.
pub fn route(prefix: &str, action: RouteAction) -> Route {
    Route {
        name: "default".into(),
        matches: RouteMatch {
            path: PathMatch::Prefix { value: prefix.into(), ignore_case: false },
            headers: Vec::new(),
            query: Vec::new(),
            grpc: false,
            fraction: None,
        },
        action,
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        filters: FilterOverrides::default(),
        config: None,
    }
}

/// A virtual host with these routes.
pub fn host(routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: "host".into(),
        domains: vec!["*".into()],
        routes: routes.into_iter().map(Arc::new).collect(),
        include_request_attempt_count: true,
        ..VirtualHost::default()
    }
}

/// A route configuration whose one virtual host takes every authority.
pub fn routes(host: VirtualHost) -> RouteConfig {
    RouteConfig {
        name: "routes".into(),
        hosts: VirtualHosts { any: Some(Arc::new(host)), ..VirtualHosts::default() },
        ..RouteConfig::default()
    }
}

/// Retries of everything, at once.
pub fn retries(retries: u32) -> RetryPolicy {
    RetryPolicy {
        on: RetryOn { server_error: true, ..RetryOn::default() },
        retries,
        per_try_timeout: None,
        statuses: Vec::new(),
        avoid_previous_hosts: true,
        host_selection_attempts: 5,
        backoff_base: Duration::from_millis(1),
        backoff_max: Duration::from_millis(10),
    }
}

/// A connection manager with these routes.
pub fn manager(routes: RouteConfig) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: "test".into(),
        direction: TrafficDirection::Outbound,
        codec: CodecType::Auto,
        routes: RouteSource::Inline(Arc::new(routes)),
        filters: Vec::new(),
        access_logs: Vec::new(),
        idle_timeout: None,
        stream_idle_timeout: None,
        request_headers_timeout: None,
        request_timeout: None,
        max_connection_duration: None,
        drain_timeout: Duration::from_secs(1),
        max_request_headers_bytes: 65_536,
        max_request_headers: 100,
        accept_http_10: true,
        server_name: "istio-envoy".into(),
        server_header: ServerHeader::Overwrite,
        use_remote_address: false,
        xff_trusted_hops: 0,
        generate_request_id: true,
        forward_client_cert: ForwardClientCert::Sanitize,
        client_cert_details: ClientCertDetails::default(),
        path: PathNormalization { normalize: true, ..PathNormalization::default() },
        upgrades: vec!["websocket".into(), "connect".into()],
        max_concurrent_streams: None,
    }
}

/// A filter chain that takes everything.
pub fn chain(terminal: Terminal) -> FilterChain {
    FilterChain {
        name: "chain".into(),
        matches: FilterChainMatch::default(),
        tls: None,
        handshake_timeout: None,
        rbac: Vec::new(),
        terminal,
    }
}

/// A chain of bytes to a cluster.
pub fn tcp_chain(cluster: &str) -> FilterChain {
    chain(Terminal::Tcp(Arc::new(TcpProxy {
        stat_prefix: "tcp".into(),
        clusters: vec![(cluster.into(), 1)],
        idle_timeout: None,
        max_connect_attempts: 1,
        access_logs: Vec::new(),
    })))
}

/// A listener with these chains, which looks at no bytes.
pub fn listener(name: &str, chains: Vec<FilterChain>) -> Listener {
    Listener {
        name: name.into(),
        binds: Vec::new(),
        direction: TrafficDirection::Outbound,
        inspect_tls: false,
        inspect_http: false,
        inspect_timeout: Some(Duration::from_secs(5)),
        continue_on_timeout: false,
        chains: chains.into_iter().map(Arc::new).collect(),
        default_chain: None,
        access_logs: Vec::new(),
    }
}

/// A cluster of HTTP/1 endpoints.
pub fn cluster(name: &str, addresses: &[SocketAddr]) -> Cluster {
    let endpoint = |address: &SocketAddr| {
        Arc::new(Endpoint {
            address: *address,
            hostname: None,
            priority: 0,
            weight: 1,
            healthy: true,
            transport: None,
            locality: Default::default(),
            workload: None,
            state: Arc::<EndpointState>::default(),
        })
    };
    Cluster {
        name: name.into(),
        discovery: Discovery::Told,
        lb: LbPolicy::RoundRobin,
        connect_timeout: Duration::from_secs(5),
        protocol: UpstreamProtocol::Http1,
        max_requests_per_connection: 0,
        idle_timeout: Some(Duration::from_secs(3_600)),
        max_connection_duration: None,
        max_concurrent_streams: 100,
        http2_keepalive: None,
        tcp_keepalive: None,
        limits: CircuitBreakers::default(),
        outlier: None,
        panic_threshold: 0,
        transports: Vec::new(),
        bind_source: Box::default(),
        service: None,
        endpoints: Arc::new(Endpoints { all: addresses.iter().map(endpoint).collect() }),
        state: Arc::<ClusterState>::default(),
    }
}

/// Something that was asked for by name.
pub fn on_demand<T>(value: T) -> Option<OnDemand<T>> {
    Some(OnDemand { value: Arc::new(value), last_used: Arc::new(AtomicU32::new(0)) })
}

/// A configuration with `http_proxy` as its one listener.
pub fn config(manager: HttpConnectionManager, clusters: Vec<Cluster>) -> ProxyConfig {
    let chain = chain(Terminal::Http(Arc::new(manager)));
    config_of(vec![listener("http_proxy", vec![chain])], clusters)
}

/// A configuration of listeners and clusters.
pub fn config_of(listeners: Vec<Listener>, clusters: Vec<Cluster>) -> ProxyConfig {
    ProxyConfig {
        generation: 1,
        listeners: listeners.into_iter().map(|l| (l.name.clone(), on_demand(l))).collect(),
        clusters: clusters.into_iter().map(|c| (c.name.clone(), Arc::new(c))).collect(),
        routes: HashMap::new(),
        virtual_hosts: HashMap::new(),
    }
}

/// A proxy: one data thread's state, and what the control thread would have.
pub struct Proxy {
    pub thread: Rc<Thread>,
    pub shared: Arc<Shared>,
    pub control: ControlSide,
}

impl Proxy {
    /// With this configuration in effect.
    pub fn new(config: ProxyConfig) -> Self {
        Self::with_settings(config, Settings::test())
    }

    /// With these settings.
    pub fn with_settings(config: ProxyConfig, settings: Settings) -> Self {
        let (shared, control) = Shared::new(settings);
        shared.config.store(Arc::new(config));
        let shared = Arc::new(shared);
        Self { thread: Thread::new(0, shared.clone()), shared, control }
    }

    /// Puts another configuration in effect.
    pub fn swap(&self, mut config: ProxyConfig) {
        config.generation = self.shared.config.load().generation + 1;
        let generation = config.generation;
        self.shared.config.store(Arc::new(config));
        self.thread.upstreams.reconcile(&self.thread.config());
        let _ = self.control.config_changed.send(generation);
    }

    /// Accepts connections that want to go there, on a port of their own.
    pub async fn listen(&self, destination: Destination) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let thread = self.thread.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (thread, destination) = (thread.clone(), destination.clone());
                let guard = thread.track();
                tokio::task::spawn_local(async move {
                    connection::accepted(&thread, stream, peer, destination).await;
                    drop(guard);
                });
            }
        });
        address
    }

    /// Accepts connections to the explicit proxy.
    pub async fn http(&self) -> SocketAddr {
        self.listen(Destination::HttpProxy).await
    }
}

/// A body of a backend's response.
pub type BackendBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// A response with a text.
pub fn text(status: u16, body: impl Into<Bytes>) -> Response<BackendBody> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// An HTTP server, HTTP/1 and HTTP/2, whose answers the closure makes.
pub async fn backend<F, R>(answer: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + 'static,
    R: Future<Output = Response<BackendBody>> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Rc::new(answer);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| {
                    let answered = answer(request);
                    async move { Ok::<_, std::convert::Infallible>(answered.await) }
                });
                let mut first = [0; 3];
                let size = stream.peek(&mut first).await.unwrap_or(0);
                let io = TokioIo::new(stream);
                if &first[..size] == b"PRI" {
                    let http2 = hyper::server::conn::http2::Builder::new(Local);
                    let _ = http2.serve_connection(io, service).await;
                } else {
                    let http1 = hyper::server::conn::http1::Builder::new();
                    let _ = http1.serve_connection(io, service).with_upgrades().await;
                }
            });
        }
    });
    address
}

/// A server of bytes: the closure has each connection.
pub async fn raw_backend<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(serve(stream));
        }
    });
    address
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Runs hyper's tasks here.
#[derive(Clone, Copy)]
pub struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// A response that was read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Status and body.
    pub fn summary(&self) -> (u16, &str) {
        (self.status, &self.body)
    }
}

/// An HTTP/1 client on one connection.
pub struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects.
    pub async fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, driver) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(driver.with_upgrades());
        Self { sender }
    }

    /// Sends a request and reads the response.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
        self.sender.ready().await?;
        read(self.sender.send_request(request).await?).await
    }

    /// Sends a GET with these headers.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(get(path, headers)).await.unwrap()
    }

    /// Waits until the server has closed the connection.
    pub async fn closed(&self) {
        until(|| self.sender.is_closed()).await;
    }
}

/// A GET request for the host `shop`.
pub fn get(path: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    request("GET", path, headers, "")
}

/// A request for the host `shop`.
pub fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "shop");
    for (name, value) in headers {
        request = request.header(*name, HeaderValue::from_str(value).unwrap());
    }
    request.body(Full::new(body.into())).unwrap()
}

/// Reads a response whole.
pub async fn read(response: Response<Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    let body = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}

/// One GET on a connection of its own.
pub async fn fetch(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    Client::new(address).await.get(path, headers).await
}

/// Sends bytes and reads until the server closes the connection.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses early may reset the connection.
    let _ = stream.write_all(bytes).await;
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Counts calls.
#[derive(Clone, Default)]
pub struct Calls(Rc<Cell<u32>>);

impl Calls {
    /// One more; says which it is, from 1.
    pub fn next(&self) -> u32 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }

    /// How many.
    pub fn get(&self) -> u32 {
        self.0.get()
    }
}

/// Waits until a condition holds.
pub async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A mesh's authority.
pub struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    /// A new one.
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Self(rcgen::CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A workload's certificate.
    pub fn identity(&self, service_account: &str, generation: u64) -> Identity {
        let id = SpiffeId::new("cluster.local", "default", service_account);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(id.to_string().try_into().unwrap())];
        let certificate = params.signed_by(&key, &*self.0).unwrap();
        let now = std::time::SystemTime::now();
        Identity {
            generation,
            id,
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            roots: vec![CertificateDer::from(self.0.der().to_vec())],
            serial: "1".into(),
            not_before: now,
            not_after: now + Duration::from_secs(3_600),
        }
    }
}

fn protocols(list: &[&str]) -> Vec<Box<[u8]>> {
    list.iter().map(|protocol| protocol.as_bytes().into()).collect()
}

/// What a server in the mesh asks of its clients.
pub fn downstream_tls(alpn: &[&str]) -> Arc<DownstreamTls> {
    Arc::new(DownstreamTls {
        identity: TlsSource::Mesh,
        trust: Some(TlsSource::Mesh),
        require_client_certificate: true,
        subject_alt_names: Vec::new(),
        alpn: protocols(alpn),
        versions: TlsVersions::Tls13,
    })
}

/// A cluster whose endpoints are spoken to in the mesh's TLS, and must be this service account.
pub fn meshed(mut cluster: Cluster, service_account: &str, alpn: &[&str]) -> Cluster {
    let expected = SpiffeId::new("cluster.local", "default", service_account).to_string();
    cluster.transports = vec![TransportSocket {
        name: "tlsMode-istio".into(),
        matches: Vec::new(),
        tls: Some(Arc::new(UpstreamTls {
            identity: Some(TlsSource::Mesh),
            trust: Some(TlsSource::Mesh),
            subject_alt_names: vec![StringMatcher::Exact {
                value: expected.into(),
                ignore_case: false,
            }],
            sni: "outbound_.80_._.order.default.svc.cluster.local".into(),
            auto_sni: false,
            alpn: protocols(alpn),
            versions: TlsVersions::Tls13,
        })),
    }];
    let endpoint = |old: &Arc<Endpoint>| {
        Arc::new(Endpoint {
            address: old.address,
            hostname: None,
            priority: 0,
            weight: 1,
            healthy: true,
            transport: Some(0),
            locality: Default::default(),
            workload: None,
            state: old.state.clone(),
        })
    };
    cluster.endpoints =
        Arc::new(Endpoints { all: cluster.endpoints.all.iter().map(endpoint).collect() });
    cluster
}

/// The chain of a port that takes what the mesh's clients send over TLS.
pub fn mutual_tls(mut chain: FilterChain, alpn: &[&str]) -> FilterChain {
    let offered = ["istio-http/1.0", "istio-http/1.1", "istio-h2", "istio", "istio-peer-exchange"];
    chain.matches.transport = Some(TransportMatch::Tls);
    chain.matches.application_protocols = protocols(&offered);
    chain.tls = Some(downstream_tls(alpn));
    chain
}
