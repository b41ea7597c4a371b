//! Envoy's format strings, `%COMMAND(ARGUMENT):LENGTH%`, parsed into operations.

use http::HeaderName;

use super::invalid::{Invalid, Reason};
use crate::config::access_log::{Command, Format, FormatPart};

/// Parses a format. `%%` is a percent sign.
pub fn parse(text: &str) -> Result<Format, Invalid> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('%') {
        literal.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        if let Some(tail) = rest.strip_prefix('%') {
            literal.push('%');
            rest = tail;
            continue;
        }
        let (operator, tail) = operator(rest)?;
        rest = tail;
        if !literal.is_empty() {
            parts.push(FormatPart::Literal(std::mem::take(&mut literal).into()));
        }
        parts.push(operator);
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(FormatPart::Literal(literal.into()));
    }
    Ok(Format { parts })
}

/// Reads `NAME(ARGUMENT):LENGTH%`, and gives what follows it.
fn operator(text: &str) -> Result<(FormatPart, &str), Invalid> {
    let unfinished = || Invalid::value(format!("%{text}"), "a finished %COMMAND%");
    let name_end = text.find(['(', ':', '%']).ok_or_else(unfinished)?;
    let name = &text[..name_end];
    let mut rest = &text[name_end..];
    let mut argument = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let end = inner.find(')').ok_or_else(unfinished)?;
        argument = Some(&inner[..end]);
        rest = &inner[end + 1..];
    }
    let mut max = None;
    if let Some(length) = rest.strip_prefix(':') {
        let end = length.find('%').ok_or_else(unfinished)?;
        let digits = &length[..end];
        max = Some(digits.parse().map_err(|_| Invalid::value(digits, "a length"))?);
        rest = &length[end..];
    }
    let rest = rest.strip_prefix('%').ok_or_else(unfinished)?;
    Ok((FormatPart::Command { command: command(name, argument)?, max }, rest))
}

fn command(name: &str, argument: Option<&str>) -> Result<Command, Invalid> {
    if let Some(argument) = argument {
        return match name {
            "REQ" => {
                let (name, otherwise) = alternatives(argument)?;
                Ok(Command::RequestHeader { name, otherwise })
            }
            "RESP" => {
                let (name, otherwise) = alternatives(argument)?;
                Ok(Command::ResponseHeader { name, otherwise })
            }
            "TRAILER" => match alternatives(argument)? {
                (name, None) => Ok(Command::Trailer { name }),
                _ => Err(unknown(name, Some(argument))),
            },
            _ => Err(unknown(name, Some(argument))),
        };
    }
    plain(name).ok_or_else(|| unknown(name, None))
}

/// Commands without an argument.
fn plain(name: &str) -> Option<Command> {
    Some(match name {
        "START_TIME" => Command::StartTime,
        "PROTOCOL" => Command::Protocol,
        "RESPONSE_CODE" => Command::ResponseCode,
        "RESPONSE_FLAGS" => Command::ResponseFlags,
        "RESPONSE_CODE_DETAILS" => Command::ResponseCodeDetails,
        "CONNECTION_TERMINATION_DETAILS" => Command::ConnectionTerminationDetails,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Command::UpstreamTransportFailureReason,
        "BYTES_RECEIVED" => Command::BytesReceived,
        "BYTES_SENT" => Command::BytesSent,
        "DURATION" => Command::Duration,
        "REQUEST_DURATION" => Command::RequestDuration,
        "RESPONSE_DURATION" => Command::ResponseDuration,
        "UPSTREAM_HOST" => Command::UpstreamHost,
        "UPSTREAM_CLUSTER" => Command::UpstreamCluster,
        "UPSTREAM_CLUSTER_RAW" => Command::UpstreamClusterRaw,
        "UPSTREAM_LOCAL_ADDRESS" => Command::UpstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS" => Command::DownstreamLocalAddress,
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Command::DownstreamLocalAddressWithoutPort,
        "DOWNSTREAM_REMOTE_ADDRESS" => Command::DownstreamRemoteAddress,
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Command::DownstreamRemoteAddressWithoutPort,
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Command::DownstreamDirectRemoteAddress,
        "DOWNSTREAM_PEER_URI_SAN" => Command::DownstreamPeerUriSan,
        "DOWNSTREAM_LOCAL_URI_SAN" => Command::DownstreamLocalUriSan,
        "REQUESTED_SERVER_NAME" => Command::RequestedServerName,
        "ROUTE_NAME" => Command::RouteName,
        "HOSTNAME" => Command::Hostname,
        _ => return None,
    })
}

fn unknown(name: &str, argument: Option<&str>) -> Invalid {
    let command = match argument {
        Some(argument) => format!("%{name}({argument})%"),
        None => format!("%{name}%"),
    };
    Invalid { path: String::new(), reason: Reason::UnsupportedValue(command) }
}

/// `NAME?OTHERWISE`, lower-cased; pseudo headers may be named.
fn alternatives(argument: &str) -> Result<(Box<str>, Option<Box<str>>), Invalid> {
    let name = |text: &str| -> Result<Box<str>, Invalid> {
        let lower = text.to_ascii_lowercase();
        let field = lower.strip_prefix(':').unwrap_or(&lower);
        HeaderName::from_bytes(field.as_bytes())
            .map_err(|_| Invalid::value(text, "a header name"))?;
        Ok(lower.into())
    };
    match argument.split_once('?') {
        None => Ok((name(argument)?, None)),
        Some((first, second)) => Ok((name(first)?, Some(name(second)?))),
    }
}
