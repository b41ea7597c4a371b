//! The EnvoyFilter patches that Weft gives effect to: local rate limits (`istio-behaviours` 1.7).
//!
//! A patch's value is Envoy's configuration as JSON. It is recognised in both of its usual wrappings and read into plain
//! values; whatever else a patch says has no effect, and [`PatchEffect::None`] says why.

use serde_json::{Map, Value};

use super::{ApplyTo, EnvoyConfigObjectPatch, PatchContext, PatchOperation};
use crate::{Duration, message::message, path::Path, shape::Shape};

/// The filter's name.
const FILTER: &str = "envoy.filters.http.local_ratelimit";
/// The filter's configuration.
const CONFIG_TYPE: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
/// Configuration without a compiled type.
const TYPED_STRUCTS: [&str; 2] = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// What a patch does in Weft.
#[derive(Clone, Debug, PartialEq)]
pub enum PatchEffect {
    /// Limits the requests that workloads answer, on the ports that the patch's match names. Without a bucket it only
    /// prepares for limits of routes.
    LocalRateLimit(Box<LocalRateLimit>),
    /// Limits the requests of inbound routes, on the virtual hosts (`inbound|http|PORT`) that the patch's match names. Takes
    /// the place of a limit of the port.
    RouteLocalRateLimit(Box<LocalRateLimit>),
    /// Nothing, and why.
    None(String),
}

message! {
    /// A limit on requests, counted by each proxy for itself.
    pub struct LocalRateLimit {
        /// Prefix of its statistics.
        pub stat_prefix: String,
        /// The status of refused requests. Unset is 429.
        pub status: Option<RateLimitStatus>,
        /// How many requests pass. Unset is no limit.
        pub token_bucket: Option<TokenBucket>,
        /// The share of requests that is looked at. Unset is all of them: a limit that somebody wrote down is meant.
        pub filter_enabled: Option<RuntimeFraction>,
        /// The share of requests beyond the limit that is refused. Unset is all of them.
        pub filter_enforced: Option<RuntimeFraction>,
        /// Headers for answers to refused requests.
        pub response_headers_to_add: Vec<HeaderValueOption>,
        /// Counts each client connection for itself.
        pub local_rate_limit_per_downstream_connection: bool,
        /// Without effect: limits by properties of the request.
        pub descriptors: Vec<Map<String, Value>>,
        /// Without effect: how properties of the request are found.
        pub rate_limits: Vec<Map<String, Value>>,
        /// Without effect: headers for requests beyond a limit that is not enforced.
        pub request_headers_to_add_when_not_enforced: Vec<HeaderValueOption>,
        /// Without effect.
        pub stage: u32,
        /// Without effect: `OFF` or `DRAFT_VERSION_03`.
        pub enable_x_ratelimit_headers: String,
        /// Without effect.
        pub vh_rate_limits: String,
        /// Without effect.
        pub always_consume_default_token_bucket: Option<bool>,
        /// Refused gRPC requests get the status RESOURCE_EXHAUSTED in place of UNAVAILABLE.
        pub rate_limited_as_resource_exhausted: bool,
        /// Without effect.
        pub max_dynamic_descriptors: Option<u32>,
        /// Without effect.
        pub local_cluster_rate_limit: Option<Map<String, Value>>,
    }
}

message! {
    /// A status.
    #[derive(Copy, Eq)]
    pub struct RateLimitStatus {
        /// Its number.
        #[schemars(range(min = 200, max = 599))]
        pub code: u32,
    }
}

message! {
    /// A bucket from which each request takes a token.
    #[derive(Copy, Eq)]
    #[schemars(extend("required" = ["maxTokens", "fillInterval"]))]
    pub struct TokenBucket {
        /// How many tokens it holds, and has at first.
        #[schemars(range(min = 1))]
        pub max_tokens: u32,
        /// How many are put in at a time. Unset is 1.
        pub tokens_per_fill: Option<u32>,
        /// How often tokens are put in.
        pub fill_interval: Duration,
    }
}

message! {
    /// A share that Envoy could override at run time; here it is fixed.
    #[derive(Eq)]
    pub struct RuntimeFraction {
        /// The key of the override; means nothing here.
        pub runtime_key: String,
        /// The share.
        pub default_value: FractionalPercent,
    }
}

message! {
    /// A share as a fraction.
    #[derive(Eq)]
    pub struct FractionalPercent {
        /// Above the line.
        pub numerator: u32,
        /// Below the line: `HUNDRED` (also if empty), `TEN_THOUSAND` or `MILLION`.
        pub denominator: String,
    }
}

impl RuntimeFraction {
    /// The share in per cent, at most 100.
    pub fn percent(&self) -> f64 {
        let scale = match self.default_value.denominator.as_str() {
            "TEN_THOUSAND" => 100.0,
            "MILLION" => 10_000.0,
            _ => 1.0,
        };
        (f64::from(self.default_value.numerator) / scale).min(100.0)
    }
}

message! {
    /// A header and how it is added.
    #[derive(Eq)]
    pub struct HeaderValueOption {
        /// The header.
        pub header: HeaderValue,
        /// Deprecated: whether it is added to headers of that name (also if unset) or takes their place.
        pub append: Option<bool>,
        /// Whether it is added to headers of that name (also if empty) or takes their place.
        pub append_action: String,
        /// Whether it is kept without a value.
        pub keep_empty_value: bool,
    }
}

impl HeaderValueOption {
    /// Whether it takes the place of headers of that name.
    pub fn replaces(&self) -> bool {
        self.append == Some(false) || self.append_action == "OVERWRITE_IF_EXISTS_OR_ADD"
    }
}

message! {
    /// A header.
    #[derive(Eq)]
    pub struct HeaderValue {
        /// Its name.
        pub key: String,
        /// Its value.
        pub value: String,
    }
}

impl LocalRateLimit {
    /// Fields that are set and have no effect, with the reason.
    pub fn without_effect(&self) -> Vec<(&'static str, &'static str)> {
        const BY_PROPERTY: &str =
            "has no effect in Weft: limits by properties of requests are not supported";
        const NONE: &str = "has no effect in Weft";
        let fields = [
            ("descriptors", self.descriptors.is_empty(), BY_PROPERTY),
            ("rate_limits", self.rate_limits.is_empty(), BY_PROPERTY),
            (
                "request_headers_to_add_when_not_enforced",
                self.request_headers_to_add_when_not_enforced.is_empty(),
                NONE,
            ),
            (
                "enable_x_ratelimit_headers",
                matches!(self.enable_x_ratelimit_headers.as_str(), "" | "OFF"),
                NONE,
            ),
            ("local_cluster_rate_limit", self.local_cluster_rate_limit.is_none(), NONE),
            (
                "local_rate_limit_per_downstream_connection",
                !self.local_rate_limit_per_downstream_connection,
                NONE,
            ),
        ];
        let set = fields.into_iter().filter(|(_, unset, _)| !unset);
        set.map(|(field, _, reason)| (field, reason)).collect()
    }
}

impl EnvoyConfigObjectPatch {
    /// What the patch does in Weft.
    pub fn effect(&self) -> PatchEffect {
        self.recognise().unwrap_or_else(PatchEffect::None)
    }

    fn recognise(&self) -> Result<PatchEffect, String> {
        let patch = self.patch.as_ref().ok_or("it has no patch")?;
        let context = self.matches.as_ref().map_or(PatchContext::Any, |m| m.context);
        if !matches!(context, PatchContext::Any | PatchContext::SidecarInbound) {
            return Err(format!("context {context} is not supported, only SIDECAR_INBOUND"));
        }
        match self.apply_to {
            ApplyTo::HttpFilter => {
                if !matches!(
                    patch.operation,
                    PatchOperation::InsertBefore
                        | PatchOperation::InsertFirst
                        | PatchOperation::InsertAfter
                        | PatchOperation::Add
                ) {
                    return Err(format!(
                        "operation {} is not supported for HTTP_FILTER",
                        patch.operation
                    ));
                }
                let name = patch.value.get("name").and_then(Value::as_str).unwrap_or_default();
                if name != FILTER {
                    return Err(format!(
                        "of HTTP filters only {FILTER} is supported, not {name:?}"
                    ));
                }
                let config = field(&patch.value, "typed_config", "typedConfig");
                let config = config.ok_or("the filter has no typed_config")?;
                local_rate_limit(config).map(|limit| PatchEffect::LocalRateLimit(Box::new(limit)))
            }
            ApplyTo::HttpRoute => {
                if patch.operation != PatchOperation::Merge {
                    return Err(format!(
                        "operation {} is not supported for HTTP_ROUTE",
                        patch.operation
                    ));
                }
                let filters =
                    field(&patch.value, "typed_per_filter_config", "typedPerFilterConfig");
                let config = filters.and_then(|filters| filters.get(FILTER));
                let config = config.ok_or_else(|| {
                    format!("of routes only typed_per_filter_config of {FILTER} is supported")
                })?;
                local_rate_limit(config)
                    .map(|limit| PatchEffect::RouteLocalRateLimit(Box::new(limit)))
            }
            other => Err(format!("patches of {other} are not supported")),
        }
    }
}

fn field<'a>(object: &'a Map<String, Value>, snake: &str, camel: &str) -> Option<&'a Value> {
    object.get(snake).or_else(|| object.get(camel))
}

/// Reads the filter's configuration, wrapped or not.
fn local_rate_limit(config: &Value) -> Result<LocalRateLimit, String> {
    let object = config.as_object().ok_or("the filter's configuration is not an object")?;
    let type_of = |key: &str| {
        let url = object.get(key).and_then(Value::as_str).unwrap_or_default();
        url.rsplit('/').next().unwrap_or_default()
    };
    let (config_type, mut fields) = if TYPED_STRUCTS.contains(&type_of("@type")) {
        let key = if object.contains_key("type_url") { "type_url" } else { "typeUrl" };
        let value = object.get("value").and_then(Value::as_object).cloned().unwrap_or_default();
        (type_of(key), value)
    } else {
        (type_of("@type"), object.clone())
    };
    if config_type != CONFIG_TYPE {
        return Err(format!(
            "the filter's configuration is of type {config_type:?}, not {CONFIG_TYPE}"
        ));
    }
    fields.remove("@type");
    number_status(&mut fields);
    let mut problems = Vec::new();
    let path = Path::root("value");
    let read = shape().read(Value::Object(fields), &path, &mut problems);
    if let Some(problem) = problems.first() {
        return Err(format!("its configuration is not understood: {problem}"));
    }
    let limit: LocalRateLimit = serde_json::from_value(read).map_err(|e| e.to_string())?;
    if limit.token_bucket.is_some_and(|bucket| bucket.fill_interval.is_zero()) {
        return Err("its token_bucket has no fill_interval".into());
    }
    Ok(limit)
}

/// Envoy's status is an enum, so that its JSON can have a name in place of the number.
fn number_status(fields: &mut Map<String, Value>) {
    const NAMES: [(&str, u32); 10] = [
        ("OK", 200),
        ("BadRequest", 400),
        ("Unauthorized", 401),
        ("PaymentRequired", 402),
        ("Forbidden", 403),
        ("NotFound", 404),
        ("Conflict", 409),
        ("TooManyRequests", 429),
        ("InternalServerError", 500),
        ("ServiceUnavailable", 503),
    ];
    let Some(code) = fields.get_mut("status").and_then(|status| status.get_mut("code")) else {
        return;
    };
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *code == *name) {
        *code = (*number).into();
    }
}

fn shape() -> &'static Shape {
    static SHAPE: std::sync::OnceLock<Shape> = std::sync::OnceLock::new();
    SHAPE.get_or_init(Shape::of::<LocalRateLimit>)
}
