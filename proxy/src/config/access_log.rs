//! Access logs: where they go, and their formats parsed once into operations (Envoy's `%COMMAND(ARG):LENGTH%` language).

use std::sync::Arc;

/// An access log of a listener or connection manager.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// The file, `/dev/stdout` and `/dev/stderr` included.
    pub path: Arc<str>,
    /// How a line looks.
    pub format: LogFormat,
    /// Only requests whose response has one of these flags (`response_flag_filter`); empty logs all.
    pub only_flags: Vec<Box<str>>,
}

/// Text or JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text; absent values are `-`.
    Text(Format),
    /// One JSON object a line, keys in this order; absent values are null.
    Json(Vec<(Box<str>, Format)>),
}

/// A format string, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Literals and commands in order.
    pub parts: Vec<FormatPart>,
}

/// A piece of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatPart {
    /// As it is.
    Literal(Box<str>),
    /// A command, cut to at most `max` bytes.
    Command { command: Command, max: Option<usize> },
}

/// `%COMMAND%`s that Weft knows; others are refused when the format is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    StartTime,
    /// `%REQ(A?B)%`: the first header that is there; pseudo headers included. Names are lower-cased.
    RequestHeader {
        name: Box<str>,
        otherwise: Option<Box<str>>,
    },
    ResponseHeader {
        name: Box<str>,
        otherwise: Option<Box<str>>,
    },
    Trailer {
        name: Box<str>,
    },
    Protocol,
    ResponseCode,
    ResponseFlags,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    UpstreamTransportFailureReason,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamClusterRaw,
    UpstreamLocalAddress,
    DownstreamLocalAddress,
    DownstreamLocalAddressWithoutPort,
    DownstreamRemoteAddress,
    DownstreamRemoteAddressWithoutPort,
    DownstreamDirectRemoteAddress,
    DownstreamPeerUriSan,
    DownstreamLocalUriSan,
    RequestedServerName,
    RouteName,
    Hostname,
}
