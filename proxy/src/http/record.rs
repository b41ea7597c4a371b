//! What is known of one request, from its head to the end of its response: it becomes metrics and access log lines.
//!
//! A record is finished exactly once, when it is dropped: after the response's end, or when the client went away.

use std::{
    borrow::Cow,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::http::{HeaderMap, HeaderValue, StatusCode, Version, request};
use tokio::time::Instant;

use super::{
    access_log::{self, Entry},
    grpc,
    head::{Head, names},
    replay::Replay,
    routes::Choice,
    seen::Seen,
    telemetry,
};
use crate::{
    config::{
        cluster::{Cluster, Endpoint, WorkloadInfo},
        http::HttpConnectionManager,
        listener::TrafficDirection,
        route::RouteAction,
    },
    data::connection::Connection,
    net::{clock, flags::ResponseFlags, grpc::is_grpc, pool::connect::ConnectionInfo},
    stats::{HttpRecord, RequestProtocol},
};

/// The endpoint that served a request.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// The connection; `None` when there was none.
    pub connection: Option<Arc<ConnectionInfo>>,
}

/// What is known of a request.
#[derive(Debug)]
pub struct Record {
    /// The client's connection.
    pub connection: Rc<Connection>,
    /// The settings that the request is served by.
    pub manager: Arc<HttpConnectionManager>,
    /// The beginning.
    pub start: Instant,
    /// The client's protocol.
    pub version: Version,
    /// Whether it is gRPC.
    pub grpc: bool,
    /// The head as it goes upstream; kept for access logs.
    pub head: Option<Head>,
    /// The authority that was asked for.
    pub authority: HeaderValue,
    /// The client's address, after `x-forwarded-for`.
    pub remote: SocketAddr,
    /// The route.
    pub choice: Option<Choice>,
    /// The virtual host that had no route for it.
    pub unrouted_host: Option<Arc<str>>,
    /// The cluster's name, also of one that does not exist.
    pub cluster_name: Option<Arc<str>>,
    /// The cluster.
    pub cluster: Option<Arc<Cluster>>,
    /// The endpoint of the last attempt.
    pub upstream: Option<Upstream>,
    /// The workload at the other end, as it told itself.
    pub peer: Option<Arc<WorkloadInfo>>,
    /// The client told its metadata, and is told ours.
    pub told_metadata: bool,
    /// Why an upstream connection failed.
    pub upstream_failure: Option<String>,
    /// The request's body.
    pub body: Option<Replay>,
    /// What went wrong.
    pub flags: ResponseFlags,
    /// Why there was this status.
    pub details: Cow<'static, str>,
    /// The status; `None`: none was sent.
    pub status: Option<StatusCode>,
    /// When the response's head came.
    pub answered: Option<Instant>,
    /// The response's headers, for access logs.
    pub response: Option<HeaderMap>,
    /// The response's trailers.
    pub trailers: Option<HeaderMap>,
    /// gRPC's status, from headers or trailers.
    pub grpc_status: Option<u32>,
    /// Bytes of the request's head.
    pub head_bytes: u64,
    /// Bytes of the response's head.
    pub response_head_bytes: u64,
    /// Body bytes that were sent to the client.
    pub sent: u64,
    /// Bytes from the client after the protocol was switched.
    pub tunnelled: u64,
    /// gRPC messages of the response.
    pub messages: MessageCount,
    /// The response ended as it should.
    pub complete: bool,
    /// Not counted as a request: it became a connection that is counted itself.
    pub uncounted: bool,
    /// Held until the end.
    pub guard: super::downstream::Active,
}

impl Record {
    /// A request that has just begun.
    pub fn new(
        connection: Rc<Connection>,
        manager: Arc<HttpConnectionManager>,
        parts: &request::Parts,
        guard: super::downstream::Active,
    ) -> Box<Self> {
        Box::new(Self {
            start: clock::now(),
            version: parts.version,
            grpc: is_grpc(&parts.headers),
            head: None,
            authority: HeaderValue::from_static(""),
            remote: connection.peer,
            choice: None,
            unrouted_host: None,
            cluster_name: None,
            cluster: None,
            upstream: None,
            peer: None,
            told_metadata: false,
            upstream_failure: None,
            body: None,
            flags: ResponseFlags::NONE,
            details: Cow::Borrowed(""),
            status: None,
            answered: None,
            response: None,
            trailers: None,
            grpc_status: None,
            head_bytes: head_bytes(parts.uri.path().len(), &parts.headers),
            response_head_bytes: 0,
            sent: 0,
            tunnelled: 0,
            messages: MessageCount::default(),
            complete: false,
            uncounted: false,
            guard,
            connection,
            manager,
        })
    }

    /// Takes the peer's metadata out of a request: it counts over mutual TLS only, and never goes further.
    pub fn take_peer_metadata(&mut self, headers: &mut HeaderMap, seen: Seen) {
        let id = seen.take(headers, &names::PEER_METADATA_ID);
        let Some(value) = seen.take(headers, &names::PEER_METADATA) else { return };
        let inbound = self.manager.direction == TrafficDirection::Inbound;
        if inbound && self.connection.is_mutual_tls() {
            self.told_metadata = true;
            self.peer = self.connection.thread.peers.get(id.as_ref(), &value);
        }
    }

    /// Takes the route, and the cluster that it leads to: a request that a filter answers belongs to it all the same.
    pub fn choose(&mut self, choice: Choice, head: &Head) {
        if let RouteAction::Forward(forward) = &choice.route.action {
            self.cluster_name = choice.cluster(forward, head);
            let clusters = choice.config.as_ref().map(|config| &config.clusters);
            let cluster = clusters.zip(self.cluster_name.as_ref());
            self.cluster = cluster.and_then(|(clusters, name)| clusters.get(name).cloned());
        }
        self.choice = Some(choice);
    }

    /// Whether some access log wants a line, so that heads must be kept.
    pub fn is_logged(&self) -> bool {
        !self.manager.access_logs.is_empty()
    }

    /// Notes a response's head as it goes to the client.
    pub fn respond(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        self.response_head_bytes = head_bytes(0, headers);
        if self.grpc {
            self.grpc_status = grpc::status(headers);
        }
        if self.is_logged() {
            self.response = Some(headers.clone());
        }
    }

    /// What the formats of logs and headers may ask for.
    pub fn entry<'a>(&'a self, head: Option<&'a Head>) -> Entry<'a> {
        let since = |at: Instant| at.saturating_duration_since(self.start);
        let connection = &self.connection;
        let duration = since(clock::now());
        let now = SystemTime::now();
        Entry {
            duration,
            request_duration: self.body.as_ref().and_then(Replay::ended_at).map(since),
            response_duration: self.answered.map(since),
            protocol: Some(protocol(self.version)),
            head: head.or(self.head.as_ref()),
            status: self.status.map(|status| status.as_u16()),
            response: self.response.as_ref(),
            trailers: self.trailers.as_ref(),
            flags: self.flags,
            details: Some(&*self.details).filter(|details| !details.is_empty()),
            upstream_failure: self.upstream_failure.as_deref(),
            received: self.received(),
            sent: self.sent,
            upstream_host: self.upstream.as_ref().map(|upstream| upstream.endpoint.address),
            upstream_cluster: self.cluster_name.as_deref(),
            upstream_local: self
                .upstream
                .as_ref()
                .and_then(|upstream| upstream.connection.as_ref())
                .map(|connection| connection.local),
            downstream_local: Some(connection.local),
            downstream_remote: Some(self.remote),
            downstream_direct_remote: Some(connection.direct_peer()),
            peer_uri_sans: connection.peer_names().unwrap_or_default(),
            local_uri_san: connection.tls.as_ref().and_then(|info| info.local_identity.as_deref()),
            server_name: connection.server_name(),
            route_name: self.choice.as_ref().map(|choice| &*choice.route.name),
            ..Entry::new(now.checked_sub(duration).unwrap_or(now))
        }
    }

    /// Bytes of the request after its head.
    fn received(&self) -> u64 {
        self.tunnelled + self.body.as_ref().map_or(0, Replay::received)
    }

    fn count(&self) {
        let request_messages = self.body.as_ref().map(Replay::messages).unwrap_or_default();
        let grpc_status = self.grpc.then(|| {
            // A gRPC response without a status is one that broke off.
            self.grpc_status.unwrap_or_else(|| match self.status {
                Some(StatusCode::OK) | None => grpc::UNKNOWN,
                Some(status) => grpc::from_http(status),
            })
        });
        telemetry::traffic(self).http(&HttpRecord {
            protocol: if self.grpc { RequestProtocol::Grpc } else { RequestProtocol::Http },
            code: self.status.map_or(0, |status| status.as_u16()),
            grpc_status,
            flags: self.flags,
            duration: clock::now().saturating_duration_since(self.start),
            request_bytes: self.head_bytes + self.received(),
            response_bytes: self.response_head_bytes + self.sent,
            messages: self.grpc.then_some((request_messages, self.messages.messages)),
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.complete && !self.flags.contains(ResponseFlags::UT) && !broke_upstream(self.flags)
        {
            self.flags.insert(ResponseFlags::DC);
            if self.details.is_empty() || self.details == "via_upstream" {
                self.details = Cow::Borrowed("downstream_remote_disconnect");
            }
        }
        if !self.uncounted {
            self.count();
        }
        self.connection.thread.http_counters(&self.manager.stat_prefix).response(self.status);
        if self.is_logged() {
            access_log::write(&self.manager.access_logs, &self.entry(None));
        }
    }
}

/// Whether it was the upstream's doing that a response did not end.
fn broke_upstream(flags: ResponseFlags) -> bool {
    [ResponseFlags::UC, ResponseFlags::UR, ResponseFlags::UPE, ResponseFlags::SI]
        .into_iter()
        .any(|flag| flags.contains(flag))
}

/// The bytes of a head as HTTP/1 writes it.
fn head_bytes(line: usize, headers: &HeaderMap) -> u64 {
    let fields: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    (line + fields + 2) as u64
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// Counts the messages of a gRPC stream by their prefixes (a flag, and the length in four bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCount {
    /// Messages that have begun.
    pub messages: u64,
    prefix: [u8; 5],
    have: usize,
    left: u32,
}

impl MessageCount {
    /// Looks at bytes of the stream.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = bytes.len().min(self.left as usize);
                self.left -= u32::try_from(skipped).unwrap_or(self.left);
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = bytes.len().min(5 - self.have);
            self.prefix[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == 5 {
                let [_, a, b, c, d] = self.prefix;
                self.messages += 1;
                self.left = u32::from_be_bytes([a, b, c, d]);
                self.have = 0;
            }
        }
    }
}

/// Milliseconds, for headers.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_messages_are_counted_in_any_fragmentation() {
        let bytes = b"\0\0\0\0\x03abc\0\0\0\0\0\x01\0\0\0\x02xy";
        for step in 1..=bytes.len() {
            let mut count = MessageCount::default();
            for part in bytes.chunks(step) {
                count.feed(part);
            }
            assert_eq!(count.messages, 3, "in steps of {step}");
        }
    }
}
