//! The command line of `weft-sample`.

use std::net::{IpAddr, SocketAddr};

use clap::Parser;

use crate::role::Role;

/// A small shop in one binary: run it once per service.
///
/// Upstream calls honour `http_proxy` and `no_proxy`. Without them services are looked up by DNS.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "weft-sample",
    version,
    after_help = "Requests can ask for trouble:\n  \
      ?delay=500ms ?fail=503 ?fail=reset ?fail_rate=10 (percent) ?size=BYTES\n  \
      x-sample-delay: user-service=2s    x-sample-fail: payment-service=503 (forwarded to upstreams)\n\n\
      GET  /_sample/counters             what arrived so far\n\
      POST /_sample/fail?status=503&next=5   fail the next 5 requests (or rate=10: that many percent)\n\
      POST /_sample/reset                forget both\n\
      GET  /_sample/ready                200, counted nowhere: for probes\n  \
      GET  /ws                           WebSocket echo\n\n\
      On the tunnel's address: CONNECT and absolute URIs are called as this application would call them;\n  \
      POST /load {\"uri\": ..., \"rate\": 20}    call it so many times a second; DELETE /load ends that with a report\n  \
      POST /burst {\"method\": ..., \"uri\": ..., \"headers\": [], \"count\": 100, \"at_once\": 5}"
)]
pub struct Settings {
    /// The service to be.
    #[arg(value_enum, env = "SAMPLE_ROLE")]
    pub role: Role,
    /// Address to listen on.
    #[arg(long, env = "SAMPLE_ADDRESS", default_value = "127.0.0.1")]
    pub address: IpAddr,
    /// Version to report.
    #[arg(long, env = "SAMPLE_VERSION", default_value = "v1")]
    pub app_version: String,
    /// Pod name to report; the role when not given.
    #[arg(long, env = "SAMPLE_POD")]
    pub pod: Option<String>,
    /// HTTP/1.1 and HTTP/2 without TLS.
    #[arg(long, default_value_t = 8080)]
    pub http_port: u16,
    /// gRPC.
    #[arg(long, default_value_t = 9090)]
    pub grpc_port: u16,
    /// TCP: sends back what it gets.
    #[arg(long, default_value_t = 9000)]
    pub echo_port: u16,
    /// TCP: speaks first, then sends back what it gets.
    #[arg(long, default_value_t = 9001)]
    pub greet_port: u16,
    /// Lends the application's client to whoever reaches this address, which should be a loopback one: an explicit
    /// HTTP proxy, and a generator of load.
    #[arg(long, env = "SAMPLE_TUNNEL")]
    pub tunnel: Option<SocketAddr>,
    /// Look at every packet of the pod's interfaces (not the loopback's) for this text; needs CAP_NET_RAW.
    /// GET /_sample/wiretap tells how many there were.
    #[arg(long, env = "SAMPLE_WIRETAP")]
    pub wiretap: Option<String>,
    /// Port of the services' HTTP endpoints.
    #[arg(long, default_value_t = 80)]
    pub upstream_http_port: u16,
    /// Port of the services' gRPC endpoints.
    #[arg(long, default_value_t = 9090)]
    pub upstream_grpc_port: u16,
}

impl Settings {
    /// The pod name to report.
    pub fn pod_name(&self) -> String {
        self.pod.clone().unwrap_or_else(|| self.role.to_string())
    }
}
