//! Access log lines, and values with `%COMMAND%`s elsewhere (headers): formats filled in from what is known of a stream.
//!
//! The formats were parsed once into operations by the configuration. Lines go to the `Writer` of the process.
//! Source: Envoy's "Access logging" and Istio's default formats.

use std::{
    borrow::Cow,
    fmt::Write,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::http::HeaderMap;
use time::{OffsetDateTime, macros::format_description};

use super::head::{Head, joined};
use crate::{
    config::access_log::{AccessLog, Command, Format, FormatPart, LogFormat},
    net::flags::ResponseFlags,
};

pub mod writer;

/// What is known of a request or connection when its line is written. What is not known is `None`.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When it began.
    pub start: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// Until the request had come in whole.
    pub request_duration: Option<Duration>,
    /// Until the response's first byte came from upstream.
    pub response_duration: Option<Duration>,
    /// `HTTP/1.1` and so on; `None` for bytes.
    pub protocol: Option<&'a str>,
    /// The request, as it went upstream.
    pub head: Option<&'a Head>,
    /// The status; `None`: no response began.
    pub status: Option<u16>,
    /// The response's headers.
    pub response: Option<&'a HeaderMap>,
    /// The response's trailers.
    pub trailers: Option<&'a HeaderMap>,
    /// What went wrong.
    pub flags: ResponseFlags,
    /// Why there was this status.
    pub details: Option<&'a str>,
    /// Why the connection was closed.
    pub termination_details: Option<&'a str>,
    /// Why the upstream connection failed.
    pub upstream_failure: Option<&'a str>,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// The endpoint.
    pub upstream_host: Option<SocketAddr>,
    /// The cluster.
    pub upstream_cluster: Option<&'a str>,
    /// Our end of the upstream connection.
    pub upstream_local: Option<SocketAddr>,
    /// Our end of the client's connection.
    pub downstream_local: Option<SocketAddr>,
    /// The client, after `x-forwarded-for`.
    pub downstream_remote: Option<SocketAddr>,
    /// The TCP peer.
    pub downstream_direct_remote: Option<SocketAddr>,
    /// URI SANs of the client's certificate.
    pub peer_uri_sans: &'a [String],
    /// URI SAN of our certificate.
    pub local_uri_san: Option<&'a str>,
    /// SNI.
    pub server_name: Option<&'a str>,
    /// The route's name.
    pub route_name: Option<&'a str>,
}

impl Entry<'_> {
    /// An entry of which nothing is known but its beginning.
    pub fn new(start: SystemTime) -> Self {
        Self {
            start,
            duration: Duration::ZERO,
            request_duration: None,
            response_duration: None,
            protocol: None,
            head: None,
            status: None,
            response: None,
            trailers: None,
            flags: ResponseFlags::NONE,
            details: None,
            termination_details: None,
            upstream_failure: None,
            received: 0,
            sent: 0,
            upstream_host: None,
            upstream_cluster: None,
            upstream_local: None,
            downstream_local: None,
            downstream_remote: None,
            downstream_direct_remote: None,
            peer_uri_sans: &[],
            local_uri_san: None,
            server_name: None,
            route_name: None,
        }
    }

    /// The value of a command.
    fn value(&self, command: &Command) -> Option<Value<'_>> {
        let text = |text: &'static str| Some(Value::Text(Cow::Borrowed(text)));
        let number = |number: u64| Some(Value::Number(number));
        match command {
            Command::StartTime => Some(Value::owned(timestamp(self.start))),
            Command::RequestHeader { name, otherwise } => {
                self.request_header(name, otherwise.as_deref())
            }
            Command::ResponseHeader { name, otherwise } => {
                let headers = self.response?;
                joined(headers, name)
                    .or_else(|| joined(headers, otherwise.as_deref()?))
                    .map(Value::Text)
            }
            Command::Trailer { name } => joined(self.trailers?, name).map(Value::Text),
            Command::Protocol => self.protocol.map(Value::borrowed),
            // Envoy writes 0 where no response began.
            Command::ResponseCode => number(self.status.unwrap_or_default().into()),
            Command::ResponseFlags if self.flags.is_empty() => text("-"),
            Command::ResponseFlags => Some(Value::owned(self.flags.to_string())),
            Command::ResponseCodeDetails => self.details.map(Value::borrowed),
            Command::ConnectionTerminationDetails => self.termination_details.map(Value::borrowed),
            Command::UpstreamTransportFailureReason => self.upstream_failure.map(Value::borrowed),
            Command::BytesReceived => number(self.received),
            Command::BytesSent => number(self.sent),
            Command::Duration => number(millis(self.duration)),
            Command::RequestDuration => self.request_duration.map(millis).and_then(number),
            Command::ResponseDuration => self.response_duration.map(millis).and_then(number),
            Command::UpstreamHost => address(self.upstream_host),
            Command::UpstreamCluster | Command::UpstreamClusterRaw => {
                self.upstream_cluster.map(Value::borrowed)
            }
            Command::UpstreamLocalAddress => address(self.upstream_local),
            Command::DownstreamLocalAddress => address(self.downstream_local),
            Command::DownstreamRemoteAddress => address(self.downstream_remote),
            Command::DownstreamDirectRemoteAddress => address(self.downstream_direct_remote),
            Command::DownstreamLocalAddressWithoutPort => ip(self.downstream_local),
            Command::DownstreamRemoteAddressWithoutPort => ip(self.downstream_remote),
            Command::DownstreamPeerUriSan => {
                (!self.peer_uri_sans.is_empty()).then(|| Value::owned(self.peer_uri_sans.join(",")))
            }
            Command::DownstreamLocalUriSan => self.local_uri_san.map(Value::borrowed),
            Command::RequestedServerName => {
                self.server_name.filter(|name| !name.is_empty()).map(Value::borrowed)
            }
            Command::RouteName => {
                self.route_name.filter(|name| !name.is_empty()).map(Value::borrowed)
            }
            Command::Hostname => Some(Value::borrowed(hostname())),
        }
    }

    fn request_header(&self, name: &str, otherwise: Option<&str>) -> Option<Value<'_>> {
        let head = self.head?;
        head.value(name).or_else(|| head.value(otherwise?)).map(Value::Text)
    }
}

/// A command's value.
enum Value<'a> {
    Text(Cow<'a, str>),
    Number(u64),
}

impl<'a> Value<'a> {
    fn owned(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }

    fn borrowed(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    fn push_to(&self, out: &mut String, max: Option<usize>) {
        let start = out.len();
        match self {
            Self::Text(text) => out.push_str(text),
            Self::Number(number) => {
                // Writing to a string does not fail.
                let _ = write!(out, "{number}");
            }
        }
        if let Some(max) = max
            && out.len() - start > max
        {
            let mut end = start + max;
            while !out.is_char_boundary(end) {
                end -= 1;
            }
            out.truncate(end);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn address(address: Option<SocketAddr>) -> Option<Value<'static>> {
    address.map(|address| Value::owned(address.to_string()))
}

fn ip(address: Option<SocketAddr>) -> Option<Value<'static>> {
    address.map(|address| Value::owned(address.ip().to_string()))
}

fn hostname() -> &'static str {
    static NAME: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        name.trim().to_owned()
    });
    &NAME
}

/// RFC 3339 in UTC with milliseconds, as Envoy writes it.
fn timestamp(time: SystemTime) -> String {
    let format =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    OffsetDateTime::from(time).format(&format).unwrap_or_default()
}

/// A format with its commands filled in; absent values are `absent`.
pub fn render(format: &Format, entry: &Entry<'_>, absent: &str) -> String {
    let mut out = String::new();
    push(format, entry, absent, &mut out);
    out
}

fn push(format: &Format, entry: &Entry<'_>, absent: &str, out: &mut String) {
    for part in &format.parts {
        match part {
            FormatPart::Literal(text) => out.push_str(text),
            FormatPart::Command { command, max } => match entry.value(command) {
                Some(value) => value.push_to(out, *max),
                None => out.push_str(absent),
            },
        }
    }
}

/// Whether the log wants a stream with these flags.
pub fn wants(log: &AccessLog, flags: ResponseFlags) -> bool {
    log.only_flags.is_empty() || log.only_flags.iter().any(|name| flags.has_name(name))
}

/// Writes a line to each log that wants one.
pub fn write(logs: &[Arc<AccessLog>], entry: &Entry<'_>) {
    for log in logs {
        if wants(log, entry.flags) {
            writer::process().write(&log.path, line(&log.format, entry));
        }
    }
}

/// A whole line with its newline.
pub fn line(format: &LogFormat, entry: &Entry<'_>) -> String {
    let mut out = String::with_capacity(512);
    match format {
        LogFormat::Text(format) => {
            push(format, entry, "-", &mut out);
            if !out.ends_with('\n') {
                out.push('\n');
            }
        }
        LogFormat::Json(fields) => {
            out.push('{');
            for (number, (key, format)) in fields.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                push_json_string(&mut out, key);
                out.push(':');
                push_json_value(format, entry, &mut out);
            }
            out.push_str("}\n");
        }
    }
    out
}

/// A single command keeps its type (numbers, null); anything else is a string.
fn push_json_value(format: &Format, entry: &Entry<'_>, out: &mut String) {
    if let [FormatPart::Command { command, max }] = &*format.parts {
        match entry.value(command) {
            None => out.push_str("null"),
            Some(number @ Value::Number(_)) => number.push_to(out, None),
            Some(text) => {
                let mut plain = String::new();
                text.push_to(&mut plain, *max);
                push_json_string(out, &plain);
            }
        }
    } else {
        push_json_string(out, &render(format, entry, "-"));
    }
}

fn push_json_string(out: &mut String, text: &str) {
    // A string always serialises.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

#[cfg(test)]
mod tests;
