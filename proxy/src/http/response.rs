//! Responses on their way to the client: the proxy's own, and those that stream from upstream with their record.

use std::{
    borrow::Cow,
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    grpc,
    head::names,
    mutate,
    record::{Record, millis},
    replay::Replay,
};
use crate::{
    config::{http::ServerHeader, route::HeaderMutation},
    net::{body::BoxError, clock::Alarm, flags::ResponseFlags, pool::ResponseBody},
};

/// The time that a request has, from its end on.
#[derive(Debug)]
pub struct Deadline {
    body: Replay,
    limit: Duration,
    alarm: Option<Alarm>,
}

impl Deadline {
    /// So long after the client's request has come in whole.
    pub fn new(body: Replay, limit: Duration) -> Self {
        Self { body, limit, alarm: None }
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let alarm = match &mut this.alarm {
            Some(alarm) => alarm,
            None => {
                let ended = ready!(this.body.poll_ended(cx));
                this.alarm.insert(Alarm::at(ended + this.limit))
            }
        };
        Pin::new(alarm).poll(cx)
    }
}

/// Why a response breaks off.
#[derive(Debug, thiserror::Error)]
pub enum BrokenOff {
    /// The request's time is over.
    #[error("the request took too long")]
    Deadline,
    /// Nothing came for too long.
    #[error("the stream was idle for too long")]
    Idle,
    /// The upstream failed.
    #[error("the upstream's response broke off")]
    Upstream(#[source] BoxError),
}

/// Where a response's body comes from.
#[derive(Debug)]
enum Source {
    Full(Bytes),
    Upstream(Box<ResponseBody>),
}

/// A response's body; it finishes the request's record when it ends or is dropped.
pub struct Tracked {
    source: Source,
    record: Option<Box<Record>>,
    deadline: Option<Deadline>,
    idle: Option<(Alarm, Duration)>,
}

impl std::fmt::Debug for Tracked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracked").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Tracked {
    /// A body that streams from upstream, until the deadline and while something comes.
    pub fn upstream(
        body: ResponseBody,
        record: Box<Record>,
        deadline: Option<Deadline>,
        idle: Option<Duration>,
    ) -> Self {
        let mut tracked = Self {
            source: Source::Upstream(Box::new(body)),
            record: Some(record),
            deadline,
            idle: alarm(idle),
        };
        tracked.finish_if_ended();
        tracked
    }

    /// A body of the proxy's own: a client that takes none of it is not waited for longer than for other streams.
    fn full(bytes: Bytes, record: Box<Record>) -> Self {
        let idle = alarm(record.manager.stream_idle_timeout);
        let mut tracked =
            Self { source: Source::Full(bytes), record: Some(record), deadline: None, idle };
        tracked.finish_if_ended();
        tracked
    }

    /// A body that is empty, of a response whose record goes on elsewhere, and whose head is waited for no longer than this.
    pub fn empty(idle: Option<Duration>) -> Self {
        let source = Source::Full(Bytes::new());
        Self { source, record: None, deadline: None, idle: alarm(idle) }
    }

    /// Whether it is an answer of the proxy's own.
    pub fn is_own(&self) -> bool {
        matches!(self.source, Source::Full(_))
    }

    /// Whether the response's time is over although nobody asks for more of it. The request goes on meanwhile.
    pub fn has_expired(&mut self, cx: &mut Context<'_>) -> bool {
        if let Source::Upstream(body) = &mut self.source {
            body.poll_upload(cx);
        }
        self.poll_limits(cx).is_some()
    }

    fn finish_if_ended(&mut self) {
        if self.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.complete = true;
        }
    }

    fn fail(&mut self, flags: ResponseFlags, details: &'static str) {
        if let Some(mut record) = self.record.take() {
            record.flags.insert(flags);
            record.details = Cow::Borrowed(details);
        }
    }

    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Option<BrokenOff> {
        if let Some(deadline) = &mut self.deadline
            && Pin::new(deadline).poll(cx).is_ready()
        {
            self.deadline = None;
            self.fail(ResponseFlags::UT, "upstream_response_timeout");
            return Some(BrokenOff::Deadline);
        }
        if let Some((idle, _)) = &mut self.idle
            && Pin::new(idle).poll(cx).is_ready()
        {
            self.idle = None;
            self.fail(ResponseFlags::SI, "stream_idle_timeout");
            return Some(BrokenOff::Idle);
        }
        None
    }

    fn saw(&mut self, frame: &Frame<Bytes>) {
        if let Some((idle, limit)) = &mut self.idle {
            idle.reset(*limit);
        }
        let Some(record) = &mut self.record else { return };
        if let Some(data) = frame.data_ref() {
            record.sent += data.len() as u64;
            if record.grpc {
                record.messages.feed(data);
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            if record.grpc {
                record.grpc_status = grpc::status(trailers).or(record.grpc_status);
            }
            if record.is_logged() {
                record.trailers = Some(trailers.clone());
            }
        }
    }
}

fn alarm(limit: Option<Duration>) -> Option<(Alarm, Duration)> {
    limit.map(|limit| (Alarm::after(limit), limit))
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        if let Some(broken) = this.poll_limits(cx) {
            return Poll::Ready(Some(Err(broken)));
        }
        let frame = match &mut this.source {
            Source::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
            }
            Source::Upstream(body) => ready!(Pin::new(&mut **body).poll_frame(cx)),
        };
        Poll::Ready(match frame {
            None => {
                this.finish();
                None
            }
            Some(Ok(frame)) => {
                this.saw(&frame);
                this.finish_if_ended();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                this.fail(error.kind.flag(), "upstream_reset_after_response_started");
                Some(Err(BrokenOff::Upstream(error.into())))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_empty(),
            Source::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream(body) => body.size_hint(),
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // Not everybody asks for the end of a body whose length is known.
        if self.size_hint().exact() == Some(0) {
            self.finish();
        }
    }
}

/// An answer of the proxy's own.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Plain text.
    pub body: Cow<'static, str>,
    /// Further headers.
    pub headers: HeaderMap,
    /// The gRPC status, where it does not follow from the status.
    pub grpc_status: Option<u32>,
}

impl Reply {
    /// An answer without further headers.
    pub fn new(status: StatusCode, body: impl Into<Cow<'static, str>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }
}

/// Answers a request without an upstream; flags and details are the record's already.
///
/// gRPC clients get a response without messages whose head has the status ("trailers only").
pub fn reply(mut record: Box<Record>, method: &Method, reply: Reply) -> Response<Tracked> {
    let mut headers = reply.headers;
    let mut status = reply.status;
    let mut body = Bytes::new();
    if record.grpc {
        let grpc_status = reply.grpc_status.unwrap_or_else(|| grpc::from_http(status));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(names::GRPC_STATUS, HeaderValue::from(grpc_status));
        if !reply.body.is_empty()
            && let Ok(message) = HeaderValue::try_from(grpc::escape_message(&reply.body))
        {
            headers.insert(names::GRPC_MESSAGE, message);
        }
        status = StatusCode::OK;
    } else {
        if !reply.body.is_empty() {
            headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
        }
        if !status.is_informational() && status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(reply.body.len()));
        }
        if method != Method::HEAD {
            body = match reply.body {
                Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
                Cow::Owned(text) => text.into(),
            };
        }
    }
    if record.told_metadata {
        // Whoever denies or breaks off a request is its destination in the client's metrics too.
        record.connection.thread.add_own_metadata(&mut headers);
    }
    finish_headers(&record, &mut headers);
    record.respond(status, &headers);
    let mut response = Response::new(Tracked::full(body, record));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// What every response's head gets: mutations of the route, and the `server` header.
pub fn finish_headers(record: &Record, headers: &mut HeaderMap) {
    if let Some(choice) = &record.choice {
        for mutations in choice.response_mutations() {
            mutate_response(record, mutations, headers);
        }
    }
    let manager = &record.manager;
    let ours = match manager.server_header {
        ServerHeader::Overwrite => true,
        ServerHeader::AppendIfAbsent => !headers.contains_key(header::SERVER),
        ServerHeader::PassThrough => false,
    };
    if ours {
        headers.insert(header::SERVER, manager.server_name.clone());
    }
}

/// Applies mutations to a response's head; their formats may ask for anything that is known of the request.
pub fn mutate_response(record: &Record, mutations: &[HeaderMutation], headers: &mut HeaderMap) {
    mutate::response(mutations, headers, &|format, headers| {
        let entry = super::access_log::Entry { response: Some(headers), ..record.entry(None) };
        super::access_log::render(format, &entry, "")
    });
}

/// Numbers whose values are kept, each at the place that it has by division.
const KEPT: usize = 64;

thread_local! {
    static VALUES: RefCell<Vec<Option<(u64, HeaderValue)>>> = const { RefCell::new(Vec::new()) };
}

/// Milliseconds as a header's value. Few of them differ: a value serves many messages.
pub fn millis_value(duration: Duration) -> HeaderValue {
    let number = millis(duration);
    VALUES.with_borrow_mut(|values| {
        values.resize(KEPT, None);
        match values.get_mut((number % KEPT as u64) as usize) {
            Some(Some((kept, value))) if *kept == number => value.clone(),
            Some(place) => place.insert((number, HeaderValue::from(number))).1.clone(),
            None => HeaderValue::from(number),
        }
    })
}
