//! Active health checks (`envoy.config.core.v3.HealthCheck`): how endpoints are asked whether they can take requests.

use std::{ops::Range, time::Duration};

use http::{HeaderMap, Method};

/// How often an endpoint is asked, and how many answers change what is thought of it.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// Time for an answer.
    pub timeout: Duration,
    /// Time between two questions.
    pub interval: Duration,
    /// Up to so much is added to each interval.
    pub interval_jitter: Duration,
    /// Up to so much is waited before the first question.
    pub initial_jitter: Duration,
    /// Between two questions while the cluster has had no connection yet, and the endpoint is not healthy.
    pub no_traffic_interval: Duration,
    /// The same while it is healthy.
    pub no_traffic_healthy_interval: Duration,
    /// Between two questions while it is not healthy.
    pub unhealthy_interval: Duration,
    /// After it has become unhealthy.
    pub unhealthy_edge_interval: Duration,
    /// After it has become healthy.
    pub healthy_edge_interval: Duration,
    /// So many failures in a row make it unhealthy. An answer with another status does so at once.
    pub unhealthy_threshold: u32,
    /// So many successes in a row make it healthy; the first one of all does so at once.
    pub healthy_threshold: u32,
    /// Where to ask, when not where requests go.
    pub port: Option<u16>,
    /// What to ask.
    pub probe: Probe,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Probe {
    /// An HTTP request.
    Http(Box<HttpProbe>),
    /// A connection.
    Tcp {
        /// Sent first.
        send: Vec<u8>,
        /// Must come back, in this order; what is between does not matter.
        receive: Vec<Vec<u8>>,
    },
}

/// An HTTP request, and the answers that are good.
#[derive(Clone, Debug)]
pub struct HttpProbe {
    /// The method.
    pub method: Method,
    /// The `host` header; the cluster's name where there is none.
    pub host: Box<str>,
    /// Path and query.
    pub path: Box<str>,
    /// More headers.
    pub headers: HeaderMap,
    /// Statuses of a healthy endpoint.
    pub expected: Vec<Range<u16>>,
    /// Statuses that count as a failure among others, and not as the endpoint's word.
    pub retriable: Vec<Range<u16>>,
    /// HTTP/2 is spoken.
    pub http2: bool,
}
