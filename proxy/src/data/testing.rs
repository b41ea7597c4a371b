//! What the tests of the data path share: configurations by hand, a proxy on a port of its own, backends and clients.

use super::{
    connection::{self, Ends},
    destination::Destination,
    thread::Thread,
};
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
use ::http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::{
    cell::Cell,
    future::Future,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_api::identity::SpiffeId;

mod clients;
mod configs;
pub mod frames;
mod mesh;
mod servers;

pub use clients::*;
pub use configs::*;
pub use mesh::*;
pub use servers::*;

/// Runs a test on a runtime as a data thread has it, for at most a minute.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test hangs")
    })
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
        self.listen_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), destination)
    }

    /// Accepts connections that want to go there.
    pub fn listen_on(&self, listener: TcpListener, destination: Destination) -> SocketAddr {
        let local = listener.local_addr().unwrap();
        socket2::SockRef::from(&listener).set_tcp_nodelay(true).unwrap();
        let thread = self.thread.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let ends = Ends { local, peer, destination: destination.clone() };
                let thread = thread.clone();
                let guard = thread.track();
                tokio::task::spawn_local(async move {
                    connection::accepted(&thread, stream, ends).await;
                    drop(guard);
                });
            }
        });
        local
    }

    /// Accepts connections to the explicit proxy.
    pub async fn http(&self) -> SocketAddr {
        self.listen(Destination::HttpProxy).await
    }
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
