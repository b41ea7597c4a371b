//! The administration port: health, metrics, and what the operator makes of the mesh, as JSON.
//!
//! Reads the latest [`View`] and the registry of connected proxies; changes nothing. Plain HTTP, meant for loopback
//! and for the cluster's own monitoring.

mod connected;
mod mesh;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use weft_xds::Connections;

use crate::{
    exposition,
    kubernetes::injector::Problems,
    mesh::{LatestView, View},
    source::{Report, Severity},
};

/// Stopping does not wait longer for those who still ask.
const DRAIN: Duration = Duration::from_secs(2);

const HELP: &str = "\
/healthz                    200 while all parts of the process run
/ready                      200 when proxies are served
/metrics                    Prometheus' text format
/debug/syncz                connected proxies: what each type was sent and acknowledged (also /debug/adsz)
/debug/config_dump?proxyID= what one proxy was sent, by node id or POD.NAMESPACE
/debug/registryz            services
/debug/endpointz            endpoints of services
/debug/configz              routes, rules and policies with their conditions
/debug/status               conditions of resources, problems of files and of the injector's settings
";

/// What the port shows.
#[derive(Clone)]
pub struct Admin(Arc<Inner>);

/// Where what is shown comes from.
pub struct Inner {
    /// The mesh, once the source was read.
    pub view: LatestView,
    /// The proxies.
    pub connections: Connections,
    /// The metrics.
    pub registry: Registry,
    /// The trust domain of certificates. Set when proxies are served.
    pub trust_domain: Arc<OnceLock<Arc<str>>>,
    /// The state of the source, where there is something to say before it was read.
    pub report: Option<watch::Receiver<Arc<Report>>>,
    /// What is wrong with the injector's settings.
    pub injector: watch::Receiver<Problems>,
    /// Cancelled when nobody should come any more.
    pub stopping: CancellationToken,
}

impl Admin {
    /// Everything that is shown.
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    fn view(&self) -> Option<Arc<View>> {
        self.0.view.borrow().clone()
    }

    fn show(&self, make: impl FnOnce(&View) -> Value) -> Response {
        match self.view() {
            Some(view) => Json(make(&view)).into_response(),
            None => self.not_ready(),
        }
    }

    fn not_ready(&self) -> Response {
        let mut reason = "the source was not read yet\n".to_owned();
        if let Some(report) = &self.0.report {
            let report = report.borrow();
            let problems = report.problems.iter().filter(|p| p.severity == Severity::Error);
            problems.for_each(|problem| reason.extend([problem.message.as_str(), "\n"]));
        }
        unavailable(reason)
    }
}

fn unavailable(reason: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}

/// Serves until the signal.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: CancellationToken) {
    let stopped = shutdown.clone();
    let server = axum::serve(listener, router(admin))
        .with_graceful_shutdown(async move { stopped.cancelled().await })
        .into_future();
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        result = server => {
            if let Err(error) = result {
                tracing::error!(%error, "the administration port failed");
            }
        }
        () = deadline => {}
    }
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/", get(async || HELP))
        .route("/help", get(async || HELP))
        .route("/healthz", get(healthz))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/debug/syncz", get(syncz))
        .route("/debug/adsz", get(syncz))
        .route("/debug/config_dump", get(config_dump))
        .route("/debug/registryz", get(registryz))
        .route("/debug/endpointz", get(endpointz))
        .route("/debug/configz", get(configz))
        .route("/debug/status", get(status))
        .with_state(admin)
}

/// The index's owner ends after everything else: when it has ended before, what proxies are told stays as it is for ever, and
/// only another process can help.
async fn healthz(State(admin): State<Admin>) -> Response {
    if admin.0.view.has_changed().is_err() && !admin.0.stopping.is_cancelled() {
        return unavailable("the index does not run any more\n".to_owned());
    }
    "ok\n".into_response()
}

async fn ready(State(admin): State<Admin>) -> Response {
    match (admin.view(), admin.0.trust_domain.get()) {
        _ if admin.0.stopping.is_cancelled() => unavailable("stopping\n".to_owned()),
        (Some(_), Some(_)) => "ready\n".into_response(),
        (Some(_), None) => {
            let mut reason = "authority or settings are not known yet\n".to_owned();
            let problems = admin.0.injector.borrow();
            problems.iter().for_each(|problem| reason.extend([problem.as_str(), "\n"]));
            unavailable(reason)
        }
        (None, _) => admin.not_ready(),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let text = exposition::text(&admin.0.registry);
    ([(CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response()
}

async fn syncz(State(admin): State<Admin>) -> Json<Value> {
    Json(connected::syncz(&admin.0.connections))
}

#[derive(Deserialize)]
struct ConfigDumpQuery {
    #[serde(rename = "proxyID")]
    proxy: Option<String>,
}

async fn config_dump(State(admin): State<Admin>, Query(query): Query<ConfigDumpQuery>) -> Response {
    let Some(proxy) = query.proxy else {
        return (StatusCode::BAD_REQUEST, "which proxy? ?proxyID=POD.NAMESPACE\n").into_response();
    };
    match connected::config_dump(&admin.0.connections, &proxy) {
        Some(dump) => Json(dump).into_response(),
        None => (StatusCode::NOT_FOUND, format!("{proxy:?} is not connected\n")).into_response(),
    }
}

async fn registryz(State(admin): State<Admin>) -> Response {
    admin.show(|view| mesh::services(&view.snapshot))
}

async fn endpointz(State(admin): State<Admin>) -> Response {
    admin.show(|view| mesh::endpoints(&view.snapshot))
}

async fn configz(State(admin): State<Admin>) -> Response {
    admin.show(mesh::resources)
}

async fn status(State(admin): State<Admin>) -> Response {
    if admin.view().is_none()
        && let Some(report) = &admin.0.report
    {
        return Json(json!({ "source": **report.borrow() })).into_response();
    }
    let trust_domain = admin.0.trust_domain.get().cloned();
    admin.show(|view| {
        json!({
            "version": view.snapshot.version,
            "trustDomain": trust_domain.as_deref(),
            "meshTrustDomain": *view.snapshot.mesh.trust_domain,
            "source": *view.report,
            "injector": **admin.0.injector.borrow(),
            "resources": mesh::conditions(view),
        })
    })
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    fn admin(view: LatestView, injector: Problems) -> Admin {
        Admin::new(Inner {
            view,
            connections: Connections::default(),
            registry: Registry::default(),
            trust_domain: Arc::default(),
            report: None,
            injector: watch::Sender::new(injector).subscribe(),
            stopping: CancellationToken::new(),
        })
    }

    async fn text(response: Response) -> (u16, String) {
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Its thread owns the sender of views: a panic there drops it.
    #[tokio::test]
    async fn an_operator_whose_index_has_ended_is_to_be_restarted() {
        let (sender, view) = watch::channel(None);
        let admin = admin(view, Problems::default());
        let healthz = async || text(healthz(State(admin.clone())).await).await;
        assert_eq!(healthz().await.0, 200);
        drop(sender);
        assert_eq!(healthz().await, (503, "the index does not run any more\n".to_owned()));
        admin.0.stopping.cancel();
        assert_eq!(healthz().await.0, 200, "it ends last when all of it ends");
    }
}
