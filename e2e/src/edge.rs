//! A proxy that runs by a bootstrap file, without a mesh, in front of a server in this process.
//!
//! What it serves is what an untrusted client sees: HTTP/1 and HTTP/2 told apart, HTTP/2 alone, and both behind TLS.

use std::{convert::Infallible, net::SocketAddr, path::Path};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    block::Block,
    memory::{self, Memory},
    process::{Invocation, Process},
    programs::Programs,
    wait,
};

/// What the server answers, but for `/large`: that is 1 MiB.
pub const ANSWER: &[u8] = b"the server's answer\n";

/// The proxy, its server, and what they need.
#[derive(Debug)]
pub struct Edge {
    /// HTTP/1, or HTTP/2 with prior knowledge.
    pub any: SocketAddr,
    /// HTTP/2 with prior knowledge alone.
    pub http2: SocketAddr,
    /// Both, by ALPN.
    pub tls: SocketAddr,
    process: Process,
    server: JoinHandle<()>,
    folder: TempDir,
    _block: Block,
}

impl Edge {
    /// Starts both and waits until the proxy listens. `manager`: further fields of every connection manager, in YAML.
    ///
    /// # Errors
    /// When something cannot be started.
    pub async fn start(manager: &str) -> anyhow::Result<Self> {
        raise_descriptor_limit()?;
        let block = Block::any()?;
        let address = block.address(0, 1);
        let [any, http2, tls] = [8001, 8002, 8003].map(|port| SocketAddr::from((address, port)));
        let folder = tempfile::tempdir()?;
        certificate(folder.path())?;
        let listener = TcpListener::bind((block.address(0, 2), 8080)).await?;
        let upstream = listener.local_addr()?;
        let server = tokio::spawn(serve(listener));
        let listeners = [
            http_listener(any, "AUTO", manager, None),
            http_listener(http2, "HTTP2", manager, None),
            http_listener(tls, "AUTO", manager, Some(folder.path())),
        ];
        let file = folder.path().join("proxy.yaml");
        std::fs::write(&file, bootstrap(&listeners, upstream))?;
        let process = Process::start(
            &Programs::find()?,
            folder.path(),
            &Invocation {
                name: "proxy".into(),
                program: "weft-proxy".into(),
                arguments: ["--config", &file.display().to_string(), "--concurrency", "1"]
                    .map(String::from)
                    .into(),
                environment: Vec::new(),
            },
        )?;
        for address in [any, http2, tls] {
            wait::until_ok("the proxy should listen", async || {
                TcpStream::connect(address).await.map(drop).context(process.log())
            })
            .await?;
        }
        Ok(Self { any, http2, tls, process, server, folder, _block: block })
    }

    /// Where files may be put.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the proxy holds.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        memory::of(self.process.id()).with_context(|| self.process.log())
    }

    /// What the proxy has written.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Hundreds of clients and their server are all in this process; the usual soft limit is 1,024.
fn raise_descriptor_limit() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context("open files")
}

/// Answers each request when it has read all of it.
async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let answer = service_fn(async |request: http::Request<Incoming>| {
                let answer = match request.uri().path() {
                    "/large" => Bytes::from(vec![b'x'; 1024 * 1024]),
                    _ => Bytes::from_static(ANSWER),
                };
                // What breaks off has nobody who waits for the answer.
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Full::new(answer)))
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn certificate(folder: &Path) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".into()])?.self_signed(&key)?;
    std::fs::write(folder.join("certificate.pem"), certificate.pem())?;
    std::fs::write(folder.join("key.pem"), key.serialize_pem())?;
    Ok(())
}

fn http_listener(address: SocketAddr, codec: &str, manager: &str, tls: Option<&Path>) -> String {
    let (ip, port) = (address.ip(), address.port());
    let socket = tls.map_or_else(String::new, |folder| {
        let folder = folder.display();
        format!(
            r#"
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                alpn_protocols: [h2, http/1.1]
                tls_certificates:
                  - certificate_chain: {{ filename: {folder}/certificate.pem }}
                    private_key: {{ filename: {folder}/key.pem }}"#
        )
    });
    format!(
        r#"
    - name: listener_{port}
      address:
        socket_address: {{ address: {ip}, port_value: {port} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: listener_{port}
                codec_type: {codec}
                {manager}
                route_config:
                  name: all
                  virtual_hosts:
                    - name: any
                      domains: ["*"]
                      routes:
                        - match: {{ prefix: "/" }}
                          route: {{ cluster: server, timeout: 0s }}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router{socket}"#
    )
}

fn bootstrap(listeners: &[String], server: SocketAddr) -> String {
    let (ip, port) = (server.ip(), server.port());
    format!(
        r"static_resources:
  listeners:{}
  clusters:
    - name: server
      type: STATIC
      connect_timeout: 10s
      load_assignment:
        cluster_name: server
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: {{ address: {ip}, port_value: {port} }}
",
        listeners.concat()
    )
}
