//! The administration port: health, metrics, and what the operator makes of the mesh, as JSON.
//!
//! Reads the latest [`View`] and the registry of connected proxies; changes nothing. Plain HTTP, meant for loopback
//! and for the cluster's own monitoring.

mod connected;
mod mesh;

use std::{sync::Arc, time::Duration};

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
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weft_xds::Connections;

use crate::{
    exposition,
    mesh::{LatestView, View},
};

/// Stopping does not wait longer for those who still ask.
const DRAIN: Duration = Duration::from_secs(2);

const HELP: &str = "\
/healthz                    200 while the process runs
/ready                      200 when proxies are served
/metrics                    Prometheus' text format
/debug/syncz                connected proxies: what each type was sent and acknowledged (also /debug/adsz)
/debug/config_dump?proxyID= what one proxy was sent, by node id or POD.NAMESPACE
/debug/registryz            services
/debug/endpointz            endpoints of services
/debug/configz              routes, rules and policies with their conditions
/debug/status               conditions of resources and problems of files
";

/// What the port shows.
#[derive(Clone)]
pub struct Admin(Arc<Inner>);

struct Inner {
    view: LatestView,
    connections: Connections,
    registry: Registry,
    trust_domain: Arc<str>,
}

impl Admin {
    /// Everything that is shown.
    pub fn new(
        view: LatestView,
        connections: Connections,
        registry: Registry,
        trust_domain: Arc<str>,
    ) -> Self {
        Self(Arc::new(Inner { view, connections, registry, trust_domain }))
    }

    fn view(&self) -> Option<Arc<View>> {
        self.0.view.load_full()
    }

    fn show(&self, make: impl FnOnce(&View) -> Value) -> Response {
        match self.view() {
            Some(view) => Json(make(&view)).into_response(),
            None => not_ready(),
        }
    }
}

fn not_ready() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the source was not read yet\n").into_response()
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
        .route("/healthz", get(async || "ok\n"))
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

async fn ready(State(admin): State<Admin>) -> Response {
    match admin.view() {
        Some(_) => "ready\n".into_response(),
        None => not_ready(),
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
    let trust_domain = admin.0.trust_domain.clone();
    admin.show(|view| {
        json!({
            "version": view.snapshot.version,
            "trustDomain": *trust_domain,
            "meshTrustDomain": *view.snapshot.mesh.trust_domain,
            "source": *view.report,
            "resources": mesh::conditions(view),
        })
    })
}
