//! What a route says of filters: faults and cross-origin policy (`istio-behaviours`, items 20 and 22).

use std::collections::HashMap;

use weft_api::xds::{
    envoy::extensions::filters::{
        common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier},
        http::{
            cors::v3::CorsPolicy as PbCors,
            fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType},
        },
    },
    google::protobuf::Any,
};
use weft_crds::{
    StringMatch, grpc_status,
    networking::{CorsPolicy, HttpFaultInjection, HttpRoute, UnmatchedPreflights},
};

use crate::{
    build::{
        http::{CORS, FAULT},
        matcher,
        message::{boolean, duration, percent, runtime_percent},
    },
    wire,
};
use weft_api::xds::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};

/// The settings of filters by filter name.
pub(super) fn of_rule(rule: &HttpRoute) -> HashMap<String, Any> {
    let fault = rule.fault.as_ref().and_then(fault).map(|fault| (FAULT, wire::pack(&fault)));
    let cors = rule.cors_policy.as_ref().map(|policy| (CORS, wire::pack(&cors(policy))));
    fault.into_iter().chain(cors).map(|(name, config)| (name.to_owned(), config)).collect()
}

fn fault(fault: &HttpFaultInjection) -> Option<HttpFault> {
    let delay = fault.delay.as_ref().and_then(|delay| {
        let fixed = delay.fixed_delay.filter(|delay| !delay.is_zero())?;
        (delay.share() > 0.0).then(|| FaultDelay {
            percentage: Some(percent(delay.share())),
            fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(duration(fixed.0))),
        })
    });
    let abort = fault.abort.as_ref().and_then(|abort| {
        let http = abort.http_status.map(ErrorType::HttpStatus);
        let grpc = || abort.grpc_status.as_deref().and_then(grpc_status).map(ErrorType::GrpcStatus);
        let error = http.or_else(grpc)?;
        (abort.share() > 0.0).then(|| FaultAbort {
            percentage: Some(percent(abort.share())),
            error_type: Some(error),
            ..FaultAbort::default()
        })
    });
    (delay.is_some() || abort.is_some()).then(|| HttpFault { delay, abort, ..HttpFault::default() })
}

fn cors(policy: &CorsPolicy) -> PbCors {
    let origin = |wanted: &StringMatch| -> Option<StringMatcher> {
        Some(matcher::string(match wanted {
            StringMatch::Unset => return None,
            StringMatch::Exact(text) if text == "*" => {
                MatchPattern::SafeRegex(matcher::regex(".*"))
            }
            StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
            StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
            StringMatch::Regex(text) => MatchPattern::SafeRegex(matcher::regex(text)),
        }))
    };
    let deprecated = policy.allow_origin.iter().cloned().map(StringMatch::Exact);
    let origins = policy.allow_origins.iter().cloned().chain(deprecated);
    let forwards = policy.unmatched_preflights != UnmatchedPreflights::Ignore;
    PbCors {
        allow_origin_string_match: origins.filter_map(|wanted| origin(&wanted)).collect(),
        allow_methods: policy.allow_methods.join(","),
        allow_headers: policy.allow_headers.join(","),
        expose_headers: policy.expose_headers.join(","),
        max_age: policy.max_age.map(|age| age.0.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: policy.allow_credentials.map(boolean),
        filter_enabled: Some(runtime_percent(100.0)),
        forward_not_matching_preflights: Some(boolean(forwards)),
        ..PbCors::default()
    }
}
