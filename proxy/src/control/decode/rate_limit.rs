//! Local rate limits, typed or as the `TypedStruct` that EnvoyFilters write, and their buckets.
//!
//! A bucket outlives an update that leaves its settings alone: it is found again by its resource, its settings and
//! its place among the resource's buckets with the same settings.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Weak, atomic::AtomicU64},
    time::{Duration, Instant},
};

use weft_api::xds::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit as PbLimit;

use super::{
    Context, header,
    invalid::{At, Invalid, refuse_all},
    value::{duration, number, runtime_fraction},
};
use crate::config::filter::{Fraction, LocalRateLimit, TokenBucket};

/// Shortest fill interval, as Envoy has it.
const MIN_FILL_INTERVAL: Duration = Duration::from_millis(50);

/// Where a bucket belongs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BucketKey {
    resource: Box<str>,
    max_tokens: u32,
    tokens_per_fill: u32,
    fill_interval: Duration,
    /// Which of the equal ones.
    ordinal: u32,
}

/// The buckets in use.
#[derive(Debug, Default)]
pub struct TokenBuckets {
    buckets: RefCell<HashMap<BucketKey, Weak<TokenBucket>>>,
}

impl TokenBuckets {
    /// The bucket of this place, or a new full one.
    pub fn get(&self, key: BucketKey) -> Arc<TokenBucket> {
        let mut buckets = self.buckets.borrow_mut();
        if let Some(bucket) = buckets.get(&key).and_then(Weak::upgrade) {
            return bucket;
        }
        buckets.retain(|_, bucket| bucket.strong_count() > 0);
        let bucket = Arc::new(TokenBucket {
            max_tokens: key.max_tokens,
            tokens_per_fill: key.tokens_per_fill,
            fill_interval: key.fill_interval,
            state: AtomicU64::new(u64::from(key.max_tokens)),
            since: Instant::now(),
        });
        buckets.insert(key, Arc::downgrade(&bucket));
        bucket
    }
}

/// `envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit`.
pub fn local_rate_limit(
    context: &Context<'_>,
    config: &PbLimit,
) -> Result<LocalRateLimit, Invalid> {
    refuse_all(&[
        (!config.descriptors.is_empty(), "descriptors"),
        (!config.rate_limits.is_empty(), "rate_limits"),
        (config.enable_x_ratelimit_headers != 0, "enable_x_ratelimit_headers"),
        (config.enable_retry_after_header, "enable_retry_after_header"),
        (
            config.local_rate_limit_per_downstream_connection,
            "local_rate_limit_per_downstream_connection",
        ),
        (config.local_cluster_rate_limit.is_some(), "local_cluster_rate_limit"),
        (
            !config.request_headers_to_add_when_not_enforced.is_empty(),
            "request_headers_to_add_when_not_enforced",
        ),
    ])?;
    let status = config.status.as_ref().map_or(429, |status| status.code);
    let status = u16::try_from(status).ok().filter(|code| (400..600).contains(code)).unwrap_or(429);
    let limit = |bucket, enabled, enforced| -> Result<LocalRateLimit, Invalid> {
        Ok(LocalRateLimit {
            stat_prefix: config.stat_prefix.as_str().into(),
            bucket,
            enabled,
            enforced,
            status,
            response_headers: header::mutations(
                &config.response_headers_to_add,
                "response_headers_to_add",
                &[],
                "",
            )?,
            rate_limited_as_resource_exhausted: config.rate_limited_as_resource_exhausted,
        })
    };
    let Some(bucket) = &config.token_bucket else {
        // Without a bucket the filter only marks the place where routes put theirs.
        let bucket = context.bucket(1, 1, Duration::from_secs(1));
        return limit(bucket, Fraction(0), Fraction(0));
    };
    let fill_interval = bucket
        .fill_interval
        .as_ref()
        .map_or_else(|| Err(Invalid::missing("fill_interval")), duration)
        .at("token_bucket")?;
    if fill_interval < MIN_FILL_INTERVAL {
        return Err(Invalid::value(format!("{fill_interval:?}"), "50ms or longer"))
            .at("token_bucket.fill_interval");
    }
    let tokens_per_fill = number(bucket.tokens_per_fill.as_ref(), 1);
    if bucket.max_tokens == 0 || tokens_per_fill == 0 {
        return Err(Invalid::value("0", "a number of tokens")).at("token_bucket");
    }
    // Envoy's default of both is nobody.
    let enabled =
        runtime_fraction(config.filter_enabled.as_ref(), Fraction(0)).at("filter_enabled")?;
    let enforced =
        runtime_fraction(config.filter_enforced.as_ref(), Fraction(0)).at("filter_enforced")?;
    limit(context.bucket(bucket.max_tokens, tokens_per_fill, fill_interval), enabled, enforced)
}

impl Context<'_> {
    /// The next bucket of the resource that is being decoded.
    fn bucket(
        &self,
        max_tokens: u32,
        tokens_per_fill: u32,
        fill_interval: Duration,
    ) -> Arc<TokenBucket> {
        let mut key = BucketKey {
            resource: self.resource.into(),
            max_tokens,
            tokens_per_fill,
            fill_interval,
            ordinal: 0,
        };
        let mut seen = self.seen_buckets.borrow_mut();
        let next = seen.entry(key.clone()).or_insert(0);
        key.ordinal = *next;
        *next += 1;
        self.buckets.get(key)
    }
}
