//! Administration: questions about the proxy, answered on the control thread (Envoy's paths and forms).

use std::{cell::RefCell, fmt::Write as _, rc::Rc};

use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use http_body_util::Full;
use regex::RegexBuilder;
use serde_json::{Value, json};

use super::{
    ads::AdsStatus,
    lifecycle::{LifecycleControl, Readiness},
    store::Store,
};
use crate::{
    logging::LogHandle,
    shared::{Lifecycle, STARTED, Shared},
};

mod certs;
mod clusters;
mod config_dump;
mod dump;
mod query;
pub mod server;

use query::Query;

/// Which of the proxy's own ports was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// 15000: everything.
    Admin,
    /// 15020: readiness and metrics.
    Status,
    /// 15021: readiness.
    Health,
    /// 15090: metrics.
    Metrics,
}

/// Answers.
pub struct Admin {
    shared: Shared,
    store: Rc<RefCell<Store>>,
    ads: Rc<RefCell<AdsStatus>>,
    lifecycle: Rc<LifecycleControl>,
    log: LogHandle,
}

pub(super) type Answer = Response<Full<Bytes>>;

const HELP: &str = "\
admin commands are:
  /: this page
  /certs: the workload's certificate and whom it trusts
  /clusters: clusters and their endpoints (?format=json)
  /config_dump: the configuration that the proxy holds (?resource=dynamic_listeners|dynamic_route_configs|dynamic_active_clusters|dynamic_endpoint_configs)
  /drain_listeners (POST): no new connections; those that are there are told to go away
  /healthcheck/fail (POST): readiness fails
  /healthcheck/ok (POST): readiness is itself again
  /help: this page
  /listeners: listeners and their addresses (?format=json)
  /logging (POST): log levels (?level=debug, ?level=warn,weft_proxy=debug)
  /quitquitquit (POST): drain, then end
  /ready: 200 when the proxy is ready
  /server_info: version, state, uptime, node
  /stats: counters and gauges (?filter=REGEX, ?format=json|prometheus)
  /stats/prometheus: metrics in Prometheus' format
  /subscriptions: every name that the proxy has asked for, with version and refusal
";

impl Admin {
    /// Administration of this process.
    pub fn new(
        shared: Shared,
        store: Rc<RefCell<Store>>,
        ads: Rc<RefCell<AdsStatus>>,
        lifecycle: Rc<LifecycleControl>,
        log: LogHandle,
    ) -> Self {
        Self { shared, store, ads, lifecycle, log }
    }

    /// Answers a request that came to one of the ports.
    pub fn answer<B>(&self, role: Role, request: &Request<B>) -> Answer {
        let path = request.uri().path();
        let query = Query::new(request.uri().query().unwrap_or_default());
        match (role, path) {
            (Role::Status | Role::Health, "/healthz/ready") => self.ready(),
            (Role::Status | Role::Metrics, "/stats/prometheus") => self.prometheus(),
            (Role::Status, "/metrics") => self.prometheus(),
            (Role::Admin, _) => self.admin(request.method(), path, &query),
            _ => text(StatusCode::NOT_FOUND, "not found\n".to_owned()),
        }
    }

    fn admin(&self, method: &Method, path: &str, query: &Query<'_>) -> Answer {
        let changes = matches!(
            path,
            "/drain_listeners" | "/healthcheck/fail" | "/healthcheck/ok" | "/quitquitquit"
        ) || (path == "/logging" && query.get("level").is_some());
        if changes && method != Method::POST {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("{path} needs POST\n"));
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return answer;
        }
        match path {
            "/" | "/help" => ok(HELP.to_owned()),
            "/server_info" => self.server_info(),
            "/ready" | "/healthz/ready" => self.ready(),
            "/stats" => self.stats(query),
            "/stats/prometheus" => self.prometheus(),
            "/clusters" => self.clusters(query),
            "/listeners" => self.listeners(query),
            "/config_dump" => self.config_dump(query),
            "/subscriptions" => json_answer(&config_dump::subscriptions(&self.store.borrow())),
            "/certs" => json_answer(&certs::certs(self.shared.identity.load().as_deref())),
            "/logging" => self.logging(query),
            "/drain_listeners" => {
                self.lifecycle.advance(Lifecycle::Draining);
                ok("OK\n".to_owned())
            }
            "/healthcheck/fail" => {
                self.lifecycle.fail_health(true);
                ok("OK\n".to_owned())
            }
            "/healthcheck/ok" => {
                self.lifecycle.fail_health(false);
                ok("OK\n".to_owned())
            }
            "/quitquitquit" => {
                self.lifecycle.quit();
                ok("OK\n".to_owned())
            }
            _ => text(StatusCode::NOT_FOUND, format!("invalid path; {HELP}")),
        }
    }

    fn ready(&self) -> Answer {
        match self.lifecycle.readiness() {
            Readiness::Ready => ok("LIVE\n".to_owned()),
            Readiness::Initializing(why) => {
                text(StatusCode::SERVICE_UNAVAILABLE, format!("INITIALIZING: {why}\n"))
            }
            Readiness::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "DRAINING\n".to_owned()),
            Readiness::Failed => {
                text(StatusCode::SERVICE_UNAVAILABLE, "health check is made to fail\n".to_owned())
            }
        }
    }

    fn server_info(&self) -> Answer {
        let settings = &self.shared.settings;
        let state = match self.lifecycle.readiness() {
            Readiness::Ready | Readiness::Failed => "LIVE",
            Readiness::Initializing(_) => "INITIALIZING",
            Readiness::Draining => "DRAINING",
        };
        let uptime = format!("{}s", STARTED.elapsed().as_secs());
        json_answer(&json!({
            "version": concat!("weft-proxy/", env!("CARGO_PKG_VERSION")),
            "state": state,
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "hot_restart_version": "disabled",
            "command_line_options": {
                "concurrency": settings.concurrency,
                "drain_time": format!("{}s", settings.drain_duration.as_secs()),
                "service_cluster": settings.service_cluster(),
                "service_node": settings.node_id(&self.shared.node),
                "log_level": self.log.current(),
            },
            "node": match settings.standalone {
                true => json!({"id": settings.pod_name, "cluster": settings.workload_name}),
                false => config_dump::node(&self.shared.node),
            },
        }))
    }

    /// The stream's own numbers, which the metrics registry does not know.
    fn control_plane(&self) -> [(&'static str, u64); 4] {
        let ads = self.ads.borrow();
        [
            ("control_plane.connected_state", u64::from(ads.connected)),
            ("control_plane.streams", ads.streams),
            ("control_plane.responses", ads.responses),
            ("control_plane.responses_refused", ads.refused),
        ]
    }

    fn stats(&self, query: &Query<'_>) -> Answer {
        if query.get("format").as_deref() == Some("prometheus") {
            return self.prometheus();
        }
        let filter = match query.get("filter") {
            None => None,
            Some(pattern) => match RegexBuilder::new(&pattern).size_limit(1 << 18).build() {
                Ok(regex) => Some(regex),
                Err(error) => {
                    return text(StatusCode::BAD_REQUEST, format!("invalid filter: {error}\n"));
                }
            },
        };
        let wanted = |name: &str| filter.as_ref().is_none_or(|regex| regex.is_match(name));
        let config = self.shared.config.load();
        let mut lines = self.shared.stats.render_text(&config, wanted);
        for (name, value) in self.control_plane() {
            if wanted(name) {
                let _ = writeln!(lines, "{name}: {value}");
            }
        }
        if query.get("format").as_deref() == Some("json") {
            let stats: Vec<Value> = lines
                .lines()
                .filter_map(|line| line.rsplit_once(": "))
                .map(|(name, value)| {
                    let value = value.parse::<i64>().map_or_else(|_| json!(value), |v| json!(v));
                    json!({"name": name, "value": value})
                })
                .collect();
            return json_answer(&json!({"stats": stats}));
        }
        ok(lines)
    }

    fn prometheus(&self) -> Answer {
        let config = self.shared.config.load();
        let mut lines = self.shared.stats.render_prometheus(&config);
        for (name, value) in self.control_plane() {
            let name = name.replace('.', "_");
            let kind = if name.ends_with("state") { "gauge" } else { "counter" };
            let _ = writeln!(lines, "# TYPE envoy_{name} {kind}\nenvoy_{name}{{}} {value}");
        }
        let mut answer = ok(lines);
        answer.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; version=0.0.4; charset=UTF-8"),
        );
        answer
    }

    fn clusters(&self, query: &Query<'_>) -> Answer {
        let config = self.shared.config.load();
        let added_via_api = !self.shared.settings.standalone;
        if query.get("format").as_deref() == Some("json") {
            json_answer(&clusters::json(&config, added_via_api))
        } else {
            ok(clusters::text(&config, added_via_api))
        }
    }

    fn listeners(&self, query: &Query<'_>) -> Answer {
        let addresses = config_dump::listener_addresses(&self.shared);
        if query.get("format").as_deref() == Some("json") {
            let statuses: Vec<Value> = addresses
                .iter()
                .map(|(name, address)| {
                    json!({"name": name, "local_address": dump::socket_address(*address)})
                })
                .collect();
            return json_answer(&json!({"listener_statuses": statuses}));
        }
        let mut lines = String::new();
        for (name, address) in addresses {
            let _ = writeln!(lines, "{name}::{address}");
        }
        ok(lines)
    }

    fn config_dump(&self, query: &Query<'_>) -> Answer {
        let store = self.store.borrow();
        match config_dump::config_dump(&self.shared, &store, query.get("resource").as_deref()) {
            Some(dump) => json_answer(&dump),
            None => text(StatusCode::NOT_FOUND, "no such resource in the dump\n".to_owned()),
        }
    }

    fn logging(&self, query: &Query<'_>) -> Answer {
        if let Some(level) = query.get("level")
            && let Err(error) = self.log.set(&level)
        {
            return text(StatusCode::BAD_REQUEST, format!("{error}\n"));
        }
        ok(format!("active loggers:\n  weft-proxy: {}\n", self.log.current()))
    }
}

fn text(status: StatusCode, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    response
}

fn ok(body: String) -> Answer {
    text(StatusCode::OK, body)
}

fn json_answer(value: &Value) -> Answer {
    let mut body = serde_json::to_string_pretty(value).unwrap_or_default();
    body.push('\n');
    let mut response = ok(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests;
