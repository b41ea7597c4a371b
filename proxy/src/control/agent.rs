//! What the proxy does for its pod on port 15020: the application's probes and metrics, draining, and the end.
//!
//! Works from the start, before any configuration has come. Paths are those of Istio's agent.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use tokio::time::timeout;

use super::lifecycle::LifecycleControl;
use crate::{settings::Settings, shared::Lifecycle};

mod call;
mod grpc;
mod probe;
mod redirect;
mod scrape;

use call::Caller;
pub use probe::{ProbeError, Probes};
use scrape::Scrape;

type Answer = Response<Full<Bytes>>;

/// How long a probe takes when nothing says so.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the application's metrics may take.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers for a pod.
#[derive(Debug)]
pub struct Agent {
    probes: Probes,
    scrape: Option<Scrape>,
    caller: Caller,
    lifecycle: Rc<LifecycleControl>,
}

/// What the injector has written cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The probes.
    #[error("environment: ISTIO_KUBE_APP_PROBERS")]
    Probes(#[from] ProbeError),
}

impl Agent {
    /// For these settings.
    ///
    /// # Errors
    /// What the injector has written is not valid.
    pub fn new(settings: &Settings, lifecycle: Rc<LifecycleControl>) -> Result<Self, AgentError> {
        let pod = settings.pod.as_deref();
        let probes = pod.and_then(|pod| pod.probers.as_deref());
        let scrape = pod.and_then(|pod| pod.scrape.as_deref());
        Ok(Self {
            probes: probes.map(Probes::read).transpose()?.unwrap_or_default(),
            scrape: scrape.and_then(application_metrics),
            caller: Caller::new(settings.pod_address, settings.is_captured()),
            lifecycle,
        })
    }

    /// Answers what is the agent's; `None`: it is not.
    pub async fn answer<B>(&self, peer: SocketAddr, request: &Request<B>) -> Option<Answer> {
        let path = request.uri().path();
        match path {
            "/quitquitquit" => Some(self.told(peer, request.method(), || self.lifecycle.quit())),
            "/drain" => Some(self.told(peer, request.method(), || {
                self.lifecycle.advance(Lifecycle::Leaving);
            })),
            _ if path.starts_with("/app-health/") || path.starts_with("/app-lifecycle/") => {
                Some(self.probe(path, request).await)
            }
            _ => None,
        }
    }

    /// The application's own metrics, to stand after the proxy's. Nothing when there are none, or they do not come.
    pub async fn application_metrics(&self) -> Bytes {
        let Some(scrape) = &self.scrape else { return Bytes::new() };
        match timeout(SCRAPE_TIMEOUT, scrape.fetch(&self.caller)).await {
            Ok(Ok(metrics)) => metrics,
            Ok(Err(error)) => {
                tracing::warn!(error = %super::certificates::with_causes(&error), "no metrics from the application");
                Bytes::new()
            }
            Err(_) => {
                tracing::warn!("the application's metrics took too long");
                Bytes::new()
            }
        }
    }

    /// Does what only the pod itself may ask for.
    fn told(&self, peer: SocketAddr, method: &Method, act: impl FnOnce()) -> Answer {
        if !peer.ip().to_canonical().is_loopback() {
            return text(StatusCode::FORBIDDEN, "only from the pod itself\n");
        }
        if method != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "needs POST\n");
        }
        act();
        text(StatusCode::OK, "OK\n")
    }

    async fn probe<B>(&self, path: &str, request: &Request<B>) -> Answer {
        let Some(probe) = self.probes.get(path) else {
            return text(StatusCode::NOT_FOUND, "the pod has no such probe\n");
        };
        let limit = probe.timeout.unwrap_or(PROBE_TIMEOUT);
        match timeout(limit, probe.run(&self.caller, request.headers())).await {
            Ok(Ok(status)) => text(status, ""),
            Ok(Err(error)) => {
                let cause = super::certificates::with_causes(&error);
                tracing::debug!(path, error = cause, "probe failed");
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("{cause}\n"))
            }
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the probe timed out\n"),
        }
    }
}

/// Where the application's metrics are. Annotations that make no sense cost the application its metrics and nothing else:
/// they were Prometheus' before they were ours.
fn application_metrics(annotations: &str) -> Option<Scrape> {
    Scrape::read(annotations).unwrap_or_else(|error| {
        let error = super::certificates::with_causes(&error);
        tracing::warn!(error, "no metrics from the application: its annotations prometheus.io/...");
        None
    })
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; charset=UTF-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests;
