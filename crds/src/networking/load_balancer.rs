//! Which endpoint of a host is chosen (`istio-behaviours` 1.2).

use std::collections::BTreeMap;

use crate::{
    Duration,
    message::{enumeration, message},
};

message! {
    /// Which endpoint is chosen.
    #[schemars(extend("x-weft-one-of" = [["simple", "consistentHash"]]))]
    pub struct LoadBalancerSettings {
        /// By count or chance.
        pub simple: SimpleLb,
        /// By a property of the request, so that like goes to like.
        pub consistent_hash: Option<ConsistentHashLb>,
        /// Preference for near endpoints, in place of the mesh's setting.
        pub locality_lb_setting: Option<LocalityLbSetting>,
        /// Preference for endpoints of the client's zone, as far as they have room.
        pub zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// Deprecated: as `warmup.duration`.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub warmup_duration_secs: Option<Duration>,
        /// New endpoints get their full share only after a while.
        pub warmup: Option<WarmupConfiguration>,
    }
}

enumeration! {
    /// A way to choose without looking at the request.
    pub enum SimpleLb {
        /// The default: as LEAST_REQUEST.
        Unspecified = "UNSPECIFIED",
        /// Deprecated: as LEAST_REQUEST.
        LeastConn = "LEAST_CONN",
        /// At random.
        Random = "RANDOM",
        /// The address that the client called, whatever the endpoints are.
        Passthrough = "PASSTHROUGH",
        /// In turn.
        RoundRobin = "ROUND_ROBIN",
        /// The one with fewer active requests out of two at random.
        LeastRequest = "LEAST_REQUEST",
    }
}

message! {
    /// Choice by a property of the request.
    #[derive(Eq)]
    #[schemars(extend("x-weft-one-of" = [
        ["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"],
        ["ringHash", "maglev"],
    ]))]
    pub struct ConsistentHashLb {
        /// A header's value.
        pub http_header_name: Option<String>,
        /// A cookie's value; the cookie is made where there is none.
        pub http_cookie: Option<HttpCookie>,
        /// The client's address.
        pub use_source_ip: Option<bool>,
        /// A query parameter's value.
        pub http_query_parameter_name: Option<String>,
        /// Chooses on a ring.
        pub ring_hash: Option<RingHash>,
        /// Chooses in a table.
        pub maglev: Option<Maglev>,
        /// Deprecated: as `ringHash.minimumRingSize`.
        pub minimum_ring_size: u64,
    }
}

message! {
    /// A cookie that keeps a client at an endpoint.
    #[derive(Eq)]
    #[schemars(extend("required" = ["name"]))]
    pub struct HttpCookie {
        /// Its name.
        #[schemars(length(min = 1))]
        pub name: String,
        /// The path that it is for.
        pub path: String,
        /// How long it lives. Zero is the browser's session; unset never makes a cookie, it is only read.
        pub ttl: Option<Duration>,
        /// More attributes for a cookie that is made.
        pub attributes: Vec<HttpCookieAttribute>,
    }
}

message! {
    /// An attribute of a cookie.
    #[derive(Eq)]
    #[schemars(extend("required" = ["name"]))]
    pub struct HttpCookieAttribute {
        /// Its name.
        #[schemars(length(min = 1))]
        pub name: String,
        /// Its value.
        pub value: String,
    }
}

message! {
    /// A ring of hashes.
    #[derive(Eq)]
    pub struct RingHash {
        /// The least size of the ring. 0 means 1024.
        pub minimum_ring_size: u64,
    }
}

message! {
    /// A Maglev table.
    #[derive(Eq)]
    pub struct Maglev {
        /// The size of the table, a prime. 0 means 65537.
        pub table_size: u64,
    }
}

message! {
    /// Preference for near endpoints.
    #[derive(Eq)]
    pub struct LocalityLbSetting {
        /// Where traffic from a locality goes. Excludes localities that are not named.
        pub distribute: Vec<LocalityDistribute>,
        /// Where traffic goes when a region's endpoints fail.
        pub failover: Vec<LocalityFailover>,
        /// Labels in order of importance: the more of the first ones an endpoint shares with the client, the sooner it is
        /// used. `label=value` compares with a value in place of the client's.
        pub failover_priority: Vec<String>,
        /// Switches the preference on or off. Unset follows the mesh.
        pub enabled: Option<bool>,
    }
}

message! {
    /// Where traffic from a locality goes.
    #[derive(Eq)]
    pub struct LocalityDistribute {
        /// The client's locality: `region/zone/subzone`, with `*` for the rest.
        pub from: String,
        /// The endpoints' localities with their shares, 100 in all.
        pub to: BTreeMap<String, u32>,
    }
}

message! {
    /// Where traffic goes when a region's endpoints fail.
    #[derive(Eq)]
    pub struct LocalityFailover {
        /// The failing region.
        pub from: String,
        /// The region in its place.
        pub to: String,
    }
}

message! {
    /// Preference for endpoints of the client's zone.
    #[derive(Eq)]
    pub struct ZoneAwareLbSetting {
        /// Switches the preference on.
        pub enabled: Option<bool>,
        /// Where traffic goes when a region's endpoints fail.
        pub failover: Vec<LocalityFailover>,
        /// Labels in order of importance; see `localityLbSetting.failoverPriority`.
        pub failover_priority: Vec<String>,
        /// With fewer endpoints than this there is no preference. Unset is 6.
        pub min_cluster_size: Option<u64>,
    }
}

message! {
    /// New endpoints get their full share only after a while.
    #[schemars(extend("required" = ["duration"]))]
    pub struct WarmupConfiguration {
        /// How long.
        #[schemars(extend("x-weft-least" = "1ms"))]
        pub duration: Option<Duration>,
        /// The share at the beginning, in per cent. Unset is 10.
        pub minimum_percent: Option<f64>,
        /// How the share grows: 1 (also if unset) in proportion to time, more slower at first.
        pub aggression: Option<f64>,
    }
}
