//! Configurations by hand.

use super::*;

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
        server_name: HeaderValue::from_static("istio-envoy"),
        server_header: ServerHeader::Overwrite,
        use_remote_address: false,
        xff_trusted_hops: 0,
        generate_request_id: true,
        preserve_request_id: false,
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
        proxy_protocol: None,
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
        health_check: None,
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
        initialized: true,
        listeners: listeners.into_iter().map(|l| (l.name.clone(), on_demand(l))).collect(),
        clusters: clusters.into_iter().map(|c| (c.name.clone(), Arc::new(c))).collect(),
        routes: Default::default(),
        virtual_hosts: Default::default(),
    }
}
