//! Fault injection.

use weft_api::xds::envoy::{
    extensions::filters::{
        common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier},
        http::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType},
    },
    r#type::v3::FractionalPercent,
};

use super::{
    invalid::{At, Invalid, each, refuse_all},
    matcher,
    value::{duration, fraction},
};
use crate::config::filter::{Abort, Fault, Fraction};

/// `envoy.extensions.filters.http.fault.v3.HTTPFault`; `None` when it does nothing.
pub fn fault(config: &HttpFault) -> Result<Option<Fault>, Invalid> {
    refuse_all(&[
        (!config.upstream_cluster.is_empty(), "upstream_cluster"),
        (!config.downstream_nodes.is_empty(), "downstream_nodes"),
        (config.max_active_faults.is_some(), "max_active_faults"),
        (config.response_rate_limit.is_some(), "response_rate_limit"),
    ])?;
    if config.delay.is_none() && config.abort.is_none() {
        return Ok(None);
    }
    Ok(Some(Fault {
        delay: config.delay.as_ref().map(delay).transpose().at("delay")?,
        abort: config.abort.as_ref().map(abort).transpose().at("abort")?,
        headers: each(&config.headers, "headers", matcher::header)?,
    }))
}

/// Without a percentage, Envoy injects nothing.
fn share(percentage: Option<&FractionalPercent>) -> Result<Fraction, Invalid> {
    percentage.map_or(Ok(Fraction(0)), fraction).at("percentage")
}

fn delay(delay: &FaultDelay) -> Result<(std::time::Duration, Fraction), Invalid> {
    let how_long = match &delay.fault_delay_secifier {
        Some(FaultDelaySecifier::FixedDelay(fixed)) => duration(fixed).at("fixed_delay")?,
        Some(FaultDelaySecifier::HeaderDelay(_)) => {
            return Err(Invalid::unsupported("header_delay"));
        }
        None => return Err(Invalid::missing("fixed_delay")),
    };
    Ok((how_long, share(delay.percentage.as_ref())?))
}

fn abort(abort: &FaultAbort) -> Result<(Abort, Fraction), Invalid> {
    let how = match &abort.error_type {
        Some(ErrorType::HttpStatus(status)) => Abort::Http(
            u16::try_from(*status)
                .ok()
                .filter(|status| (200..600).contains(status))
                .ok_or_else(|| Invalid::value(status.to_string(), "a status of 200 to 599"))
                .at("http_status")?,
        ),
        Some(ErrorType::GrpcStatus(status)) => Abort::Grpc(*status),
        Some(ErrorType::HeaderAbort(_)) => return Err(Invalid::unsupported("header_abort")),
        None => return Err(Invalid::missing("error_type")),
    };
    Ok((how, share(abort.percentage.as_ref())?))
}
