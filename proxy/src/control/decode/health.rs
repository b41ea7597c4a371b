//! Active health checks of clusters.

use std::{ops::Range, time::Duration};

use http::{HeaderMap, Method};
use weft_api::xds::envoy::{
    config::core::v3::{
        HealthCheck as PbCheck, RequestMethod,
        header_value_option::HeaderAppendAction,
        health_check::{
            HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, payload::Payload as PbPayload,
        },
    },
    r#type::v3::{CodecClientType, Int64Range},
};

use super::{
    header,
    invalid::{At, Invalid, each, refuse, refuse_all},
    value::{duration, duration_or, port},
};
use crate::config::health::{HealthCheck, HttpProbe, Probe};

const NO_TRAFFIC: Duration = Duration::from_secs(60);

/// `envoy.config.core.v3.HealthCheck` of a cluster of this name.
pub fn health_check(check: &PbCheck, cluster: &str) -> Result<HealthCheck, Invalid> {
    refuse_all(&[
        (check.interval_jitter_percent != 0, "interval_jitter_percent"),
        (!check.event_log_path.is_empty(), "event_log_path"),
        (!check.event_logger.is_empty(), "event_logger"),
        (check.event_service.is_some(), "event_service"),
        (check.tls_options.is_some(), "tls_options"),
        (check.transport_socket_match_criteria.is_some(), "transport_socket_match_criteria"),
    ])?;
    let required = |value: Option<&_>, field: &str| {
        value.map(duration).ok_or_else(|| Invalid::missing(field))?.at(field).and_then(|value| {
            let positive = !value.is_zero();
            positive.then_some(value).ok_or_else(|| Invalid::value("0s", "more").within(field))
        })
    };
    let threshold = |value: Option<u32>, field: &str| {
        value.map(|value| value.max(1)).ok_or_else(|| Invalid::missing(field))
    };
    let interval = required(check.interval.as_ref(), "interval")?;
    let or = |value: Option<&_>, field: &str, default: Duration| duration_or(value, field, default);
    let unhealthy_interval = or(check.unhealthy_interval.as_ref(), "unhealthy_interval", interval)?;
    let no_traffic_interval =
        or(check.no_traffic_interval.as_ref(), "no_traffic_interval", NO_TRAFFIC)?;
    Ok(HealthCheck {
        timeout: required(check.timeout.as_ref(), "timeout")?,
        interval,
        interval_jitter: or(check.interval_jitter.as_ref(), "interval_jitter", Duration::ZERO)?,
        initial_jitter: or(check.initial_jitter.as_ref(), "initial_jitter", Duration::ZERO)?,
        no_traffic_interval,
        no_traffic_healthy_interval: or(
            check.no_traffic_healthy_interval.as_ref(),
            "no_traffic_healthy_interval",
            no_traffic_interval,
        )?,
        unhealthy_interval,
        unhealthy_edge_interval: or(
            check.unhealthy_edge_interval.as_ref(),
            "unhealthy_edge_interval",
            unhealthy_interval,
        )?,
        healthy_edge_interval: or(
            check.healthy_edge_interval.as_ref(),
            "healthy_edge_interval",
            interval,
        )?,
        unhealthy_threshold: threshold(
            check.unhealthy_threshold.map(|value| value.value),
            "unhealthy_threshold",
        )?,
        healthy_threshold: threshold(
            check.healthy_threshold.map(|value| value.value),
            "healthy_threshold",
        )?,
        port: check.alt_port.map(|value| port(value.value)).transpose().at("alt_port")?,
        probe: probe(check.health_checker.as_ref(), cluster)?,
    })
}

fn probe(checker: Option<&HealthChecker>, cluster: &str) -> Result<Probe, Invalid> {
    match checker {
        Some(HealthChecker::HttpHealthCheck(check)) => {
            let probe = http(check, cluster).at("http_health_check")?;
            Ok(Probe::Http(Box::new(probe)))
        }
        Some(HealthChecker::TcpHealthCheck(check)) => tcp(check).at("tcp_health_check"),
        Some(HealthChecker::GrpcHealthCheck(_)) => Err(Invalid::unsupported("grpc_health_check")),
        Some(HealthChecker::CustomHealthCheck(_)) => {
            Err(Invalid::unsupported("custom_health_check"))
        }
        None => Err(Invalid::missing("health_checker")),
    }
}

fn http(check: &HttpHealthCheck, cluster: &str) -> Result<HttpProbe, Invalid> {
    refuse_all(&[
        (check.send.is_some(), "send"),
        (!check.receive.is_empty(), "receive"),
        (!check.request_headers_to_remove.is_empty(), "request_headers_to_remove"),
        (check.service_name_matcher.is_some(), "service_name_matcher"),
    ])?;
    if !check.path.starts_with('/') {
        return Err(Invalid::value(&check.path, "a path")).at("path");
    }
    let host = if check.host.is_empty() { cluster } else { &check.host };
    header::value(host).at("host")?;
    let mut headers = HeaderMap::new();
    for (index, option) in check.request_headers_to_add.iter().enumerate() {
        let add = |headers: &mut HeaderMap| {
            let field = option.header.as_ref().ok_or_else(|| Invalid::missing("header"))?;
            let name = header::name(&field.key).at("header.key")?;
            let value = header::value(&field.value).at("header.value")?;
            match HeaderAppendAction::try_from(option.append_action) {
                Ok(HeaderAppendAction::AppendIfExistsOrAdd) => {
                    headers.append(name, value);
                }
                Ok(HeaderAppendAction::OverwriteIfExistsOrAdd) => {
                    headers.insert(name, value);
                }
                _ => return Err(Invalid::unsupported("append_action")),
            }
            Ok(())
        };
        add(&mut headers).at_index("request_headers_to_add", index)?;
    }
    let mut expected = statuses(&check.expected_statuses, "expected_statuses")?;
    if expected.is_empty() {
        expected.push(200..201);
    }
    Ok(HttpProbe {
        method: match RequestMethod::try_from(check.method) {
            Ok(RequestMethod::MethodUnspecified | RequestMethod::Get) => Method::GET,
            Ok(RequestMethod::Head) => Method::HEAD,
            Ok(RequestMethod::Options) => Method::OPTIONS,
            _ => return Err(Invalid::unsupported("method")),
        },
        host: host.into(),
        path: check.path.as_str().into(),
        headers,
        expected,
        retriable: statuses(&check.retriable_statuses, "retriable_statuses")?,
        http2: match CodecClientType::try_from(check.codec_client_type) {
            Ok(CodecClientType::Http1) => false,
            Ok(CodecClientType::Http2) => true,
            _ => return Err(Invalid::unsupported("codec_client_type")),
        },
    })
}

fn statuses(ranges: &[Int64Range], field: &str) -> Result<Vec<Range<u16>>, Invalid> {
    each(ranges, field, |range| {
        let bounds = (u16::try_from(range.start), u16::try_from(range.end));
        match bounds {
            (Ok(start), Ok(end)) if 100 <= start && start < end && end <= 600 => Ok(start..end),
            _ => Err(Invalid::value(
                format!("{}..{}", range.start, range.end),
                "a range of statuses from 100 to 600",
            )),
        }
    })
}

fn tcp(check: &TcpHealthCheck) -> Result<Probe, Invalid> {
    refuse(check.proxy_protocol_config.is_some(), "proxy_protocol_config")?;
    let send = check.send.as_ref().map_or(Ok(Vec::new()), payload).at("send")?;
    Ok(Probe::Tcp { send, receive: each(&check.receive, "receive", payload)? })
}

/// Text is in hexadecimal digits.
fn payload(payload: &Payload) -> Result<Vec<u8>, Invalid> {
    match &payload.payload {
        Some(PbPayload::Binary(bytes)) => Ok(bytes.clone()),
        Some(PbPayload::Text(text)) => hexadecimal(text)
            .ok_or_else(|| Invalid::value(text, "bytes in hexadecimal digits").within("text")),
        None => Err(Invalid::missing("text")),
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0 && !digits.is_empty())?;
    Some(
        digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect(),
    )
}
