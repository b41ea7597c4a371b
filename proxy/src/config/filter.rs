//! HTTP filters: what listeners configure and what routes override (`typed_per_filter_config`).

use std::{sync::Arc, time::Duration};

use super::{matcher::HeaderMatcher, rbac::Rbac, route::HeaderMutation};

/// A configured HTTP filter, in the order of the chain.
#[derive(Clone, Debug)]
pub enum HttpFilter {
    /// `envoy.filters.http.rbac`.
    Rbac(Arc<Rbac>),
    /// `envoy.filters.http.local_ratelimit`.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `envoy.filters.http.fault`; the listener's own settings are usually empty and the route's count.
    Fault(Option<Arc<Fault>>),
    /// `envoy.filters.http.cors`; the route's policy counts.
    Cors,
}

/// What a route, virtual host or weighted cluster says of filters; `None` leaves the listener's settings.
#[derive(Clone, Debug, Default)]
pub struct FilterOverrides {
    /// Local rate limit.
    pub local_rate_limit: Option<Arc<LocalRateLimit>>,
    /// Fault injection.
    pub fault: Option<Arc<Fault>>,
    /// RBAC: `Some(None)` switches it off.
    pub rbac: Option<Option<Arc<Rbac>>>,
}

/// A fraction, in parts of a million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction(pub u32);

impl Fraction {
    /// Everything.
    pub const ALL: Self = Self(1_000_000);

    /// Draws: true for this share of the calls.
    pub fn hit(self) -> bool {
        self.0 > 0 && (self.0 >= 1_000_000 || fastrand::u32(0..1_000_000) < self.0)
    }
}

/// `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`. The bucket is shared by all data threads.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// For statistics.
    pub stat_prefix: Box<str>,
    /// The bucket; kept across configuration updates that leave its settings alone.
    pub bucket: Arc<TokenBucket>,
    /// Share of the requests that are counted.
    pub enabled: Fraction,
    /// Share of the requests over the limit that are refused.
    pub enforced: Fraction,
    /// The status of a refusal, usually 429.
    pub status: u16,
    /// Headers of a refusal.
    pub response_headers: Vec<HeaderMutation>,
    /// gRPC requests are refused with RESOURCE_EXHAUSTED instead of UNAVAILABLE.
    pub rate_limited_as_resource_exhausted: bool,
}

/// A token bucket's settings and state. The state is one atomic word; see `http::rate_limit`.
#[derive(Debug)]
pub struct TokenBucket {
    /// Most tokens it holds.
    pub max_tokens: u32,
    /// Tokens that each interval adds.
    pub tokens_per_fill: u32,
    /// The interval.
    pub fill_interval: Duration,
    /// Tokens left (low 32 bits) and number of the interval that they were last filled in (high 32 bits).
    pub state: std::sync::atomic::AtomicU64,
    /// The first interval's beginning.
    pub since: std::time::Instant,
}

/// `envoy.extensions.filters.http.fault.v3.HTTPFault`.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Delay: how long and how often.
    pub delay: Option<(Duration, Fraction)>,
    /// Abort: how and how often.
    pub abort: Option<(Abort, Fraction)>,
    /// Only requests with these headers.
    pub headers: Vec<HeaderMatcher>,
}

/// What an aborted request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u32),
}
