//! Envoy's counters of what the data path does, found by prefix once and kept.

use ::http::StatusCode;

use crate::{
    http::{rate_limit::Limited, rbac::Verdict},
    stats::{Counter, Gauge, GaugeGuard, ThreadStats},
};

/// What an HTTP connection manager counts: `http.<prefix>.`.
#[derive(Debug)]
pub struct HttpCounters {
    connections: Counter,
    open: Gauge,
    requests: Counter,
    protocol_errors: Counter,
    /// By the first digit of the status, from 1.
    classes: [Counter; 5],
    /// What its policies said.
    pub rbac: RbacCounters,
}

impl HttpCounters {
    /// Under this prefix.
    pub fn new(stats: &ThreadStats, prefix: &str) -> Self {
        let counter = |name: &str| stats.counter(&format!("http.{prefix}.{name}"));
        Self {
            connections: counter("downstream_cx_total"),
            open: stats.gauge(&format!("http.{prefix}.downstream_cx_active")),
            requests: counter("downstream_rq_total"),
            protocol_errors: counter("downstream_cx_protocol_error"),
            classes: [1, 2, 3, 4, 5].map(|class| counter(&format!("downstream_rq_{class}xx"))),
            rbac: RbacCounters::new(stats, &format!("http.{prefix}.")),
        }
    }

    /// Counts a connection, and that it is open until the guard is dropped.
    pub fn connection(&self) -> GaugeGuard {
        self.connections.inc();
        self.open.hold()
    }

    /// Counts that a client broke the protocol.
    pub fn protocol_error(&self) {
        self.protocol_errors.inc();
    }

    /// Counts a response, or a request that got none.
    pub fn response(&self, status: Option<StatusCode>) {
        self.requests.inc();
        let class = status.and_then(|status| usize::from(status.as_u16() / 100).checked_sub(1));
        if let Some(counter) = class.and_then(|class| self.classes.get(class)) {
            counter.inc();
        }
    }
}

/// What a bound listener counts: `listener.<name>.`.
#[derive(Debug)]
pub struct ListenerCounters {
    connections: Counter,
    open: Gauge,
    unmatched: Counter,
    handshakes: Counter,
    failed_handshakes: Counter,
}

impl ListenerCounters {
    /// Of a listener.
    pub fn new(stats: &ThreadStats, name: &str) -> Self {
        let counter = |what: &str| stats.counter(&format!("listener.{name}.{what}"));
        Self {
            connections: counter("downstream_cx_total"),
            open: stats.gauge(&format!("listener.{name}.downstream_cx_active")),
            unmatched: counter("no_filter_chain_match"),
            handshakes: counter("ssl.handshake"),
            failed_handshakes: counter("ssl.connection_error"),
        }
    }

    /// Counts a connection, and that it is open until the guard is dropped.
    pub fn connection(&self) -> GaugeGuard {
        self.connections.inc();
        self.open.hold()
    }

    /// No filter chain takes a connection.
    pub fn unmatched(&self) {
        self.unmatched.inc();
    }

    /// A TLS handshake has ended.
    pub fn handshake(&self, done: bool) {
        if done { self.handshakes.inc() } else { self.failed_handshakes.inc() }
    }
}

/// What policies said: `<prefix>rbac.`.
#[derive(Debug)]
pub struct RbacCounters {
    allowed: Counter,
    denied: Counter,
    shadow_allowed: Counter,
    shadow_denied: Counter,
}

impl RbacCounters {
    /// Under this prefix, which ends in a dot or is empty.
    pub fn new(stats: &ThreadStats, prefix: &str) -> Self {
        let counter = |name: &str| stats.counter(&format!("{prefix}rbac.{name}"));
        Self {
            allowed: counter("allowed"),
            denied: counter("denied"),
            shadow_allowed: counter("shadow_allowed"),
            shadow_denied: counter("shadow_denied"),
        }
    }

    /// Counts what the rules said, and what those said that are only tried.
    pub fn count(&self, verdict: &Verdict<'_>, shadow: Option<&Verdict<'_>>) {
        match verdict {
            Verdict::Allowed => self.allowed.inc(),
            Verdict::Denied(_) => self.denied.inc(),
        }
        match shadow {
            Some(Verdict::Allowed) => self.shadow_allowed.inc(),
            Some(Verdict::Denied(_)) => self.shadow_denied.inc(),
            None => {}
        }
    }
}

/// What a local rate limit counts: `<prefix>.http_local_rate_limit.`.
#[derive(Debug)]
pub struct RateLimitCounters {
    enabled: Counter,
    ok: Counter,
    limited: Counter,
    enforced: Counter,
}

impl RateLimitCounters {
    /// Under this prefix.
    pub fn new(stats: &ThreadStats, prefix: &str) -> Self {
        let counter = |name: &str| stats.counter(&format!("{prefix}.http_local_rate_limit.{name}"));
        Self {
            enabled: counter("enabled"),
            ok: counter("ok"),
            limited: counter("rate_limited"),
            enforced: counter("enforced"),
        }
    }

    /// Counts what became of a request.
    pub fn count(&self, limited: Limited) {
        if limited == Limited::Disabled {
            return;
        }
        self.enabled.inc();
        match limited {
            Limited::Disabled => {}
            Limited::Within => self.ok.inc(),
            Limited::NotEnforced => self.limited.inc(),
            Limited::Refused => {
                self.limited.inc();
                self.enforced.inc();
            }
        }
    }
}
