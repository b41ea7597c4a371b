//! Forwarding a request: cluster, endpoint, attempts, timeouts, and the response.
//!
//! Source: Envoy's router filter: what is retried and when, which time counts from where, and what a client is told.

use std::{borrow::Cow, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use ::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tokio::time::{Instant, sleep};

use super::{
    cors,
    head::{Head, names},
    manager::Passing,
    matching::without_port,
    mirror, mutate,
    record::{Record, Upstream},
    replay::Replay,
    response::{Deadline, Reply, Tracked, finish_headers, millis_value, reply},
    retry::{self, Reset},
    routes::Choice,
    sanitize::{Wants, is_authority},
    seen::Seen,
    upgrade,
};
use crate::{
    config::{
        listener::TrafficDirection,
        route::{Forward, HostRewrite, RetryPolicy},
    },
    net::{
        clock::{self, Alarm},
        cluster::{Permit, count},
        flags::ResponseFlags,
        outbound::Outbound,
        pool::ResponseBody,
        spare,
        upstreams::{ClusterRuntime, ErrorKind, PickContext, Picked, UpstreamError},
    },
};

mod hash;
mod timeouts;

use hash::Affinity;
use timeouts::{expected_timeout, idle, or_never, overall_timeout};

/// How often an attempt is repeated of its own accord because its connection ended before the endpoint knew of it. An endpoint
/// that drains ends all of its connections at once, and several may have been idle here.
const STALE_RETRIES: u32 = 3;

/// A request being forwarded.
pub struct Forwarding<'a> {
    pub record: Box<Record>,
    pub head: Head,
    pub body: Replay,
    pub forward: &'a Forward,
    pub wants: Wants,
    pub upgrade: Option<upgrade::OnUpgrade>,
    cluster: Rc<ClusterRuntime>,
    policy: Option<Arc<RetryPolicy>>,
    retries_left: u32,
    attempt: u32,
    stale_left: u32,
    tried: Vec<SocketAddr>,
    affinity: Affinity,
    permit: Option<Permit>,
    /// Origin to answer to, where a CORS policy allows it.
    origin: Option<HeaderValue>,
    idle: Option<Duration>,
}

/// What an attempt came to.
#[expect(clippy::large_enum_variant, reason = "the large one is what nearly all are")]
enum Outcome {
    Response(Response<ResponseBody>),
    Failed(UpstreamError),
    /// The attempt took too long.
    PerTry,
    /// The request took too long.
    Overall,
    /// Nothing moved for too long.
    Idle,
    /// The client's request took too long to come in.
    RequestTimeout,
}

/// What becomes of an attempt that failed.
enum Next {
    Again,
    /// The same, and the endpoint is not to blame: it may be chosen again.
    Anew,
    Give,
}

/// Forwards a request as the route says.
pub async fn forward(
    mut record: Box<Record>,
    passing: Passing,
    forward: &Forward,
) -> Response<Tracked> {
    let Passing { mut head, body, wants, upgrade } = passing;
    if let Wants::Upgrade(protocol) = &wants
        && !record.manager.upgrades.contains(protocol)
        && !forward.upgrades.contains(protocol)
    {
        record.details = Cow::Borrowed("upgrade_failed");
        return reply(record, &head.method, Reply::new(StatusCode::FORBIDDEN, ""));
    }
    let thread = record.connection.thread.clone();
    let mut choice = record.choice.clone();
    let name = choice.as_ref().and_then(|choice| choice.cluster(forward, &head));
    // The newest configuration counts, for its endpoints; but a delay may have outlived the route's cluster there.
    let chosen_from = choice.as_mut().and_then(|choice| choice.config.take());
    let cluster = name.as_ref().and_then(|name| {
        let newest = thread.upstreams.get(&thread.config(), name);
        newest.or_else(|| thread.upstreams.get(chosen_from.as_ref()?, name))
    });
    // A response may take hours; it does not hold a whole configuration for so long.
    record.choice.clone_from(&choice);
    record.cluster_name = name;
    let (Some(choice), Some(cluster)) = (choice, cluster) else {
        return no_cluster(record, &head, forward);
    };
    record.cluster = Some(cluster.cluster().clone());
    let origin = forward.cors.as_ref().and_then(|policy| cors::origin(policy, &head));
    let affinity = Affinity::new(&forward.hash, &head, record.remote);
    let policy = choice.retry(forward).cloned();
    let retries = policy.as_ref().map_or(0, |policy| policy.retries);
    if retries > 0 || !forward.mirrors.is_empty() || head.method.is_idempotent() {
        body.keep();
    }
    mirror::send(&thread, forward, &head, &body);
    finish_request(&record, &choice, forward, &mut head);
    let timeout = overall_timeout(forward, &head);
    expected_timeout(&mut head.headers, timeout, policy.as_deref());
    let deadline = timeout.map(|limit| Deadline::new(body.clone(), limit));
    let idle = forward.idle_timeout.or(record.manager.stream_idle_timeout);
    let forwarding = Forwarding {
        idle: idle.filter(|limit| !limit.is_zero()),
        record,
        head,
        body,
        forward,
        wants,
        upgrade,
        cluster,
        policy,
        retries_left: retries,
        attempt: 1,
        stale_left: STALE_RETRIES,
        tried: Vec::new(),
        affinity,
        permit: None,
        origin,
    };
    forwarding.run(deadline).await
}

fn no_cluster(mut record: Box<Record>, head: &Head, forward: &Forward) -> Response<Tracked> {
    record.flags.insert(ResponseFlags::NC);
    record.details = Cow::Borrowed("cluster_not_found");
    if record.is_logged() {
        record.head = Some(head.clone());
    }
    reply(record, &head.method, Reply::new(forward.cluster_not_found, ""))
}

/// Rewrites and mutations: path, authority, headers.
fn finish_request(record: &Record, choice: &Choice, forward: &Forward, head: &mut Head) {
    for mutations in choice.request_mutations() {
        mutate::request(mutations, head, &|format, head| {
            super::access_log::render(format, &record.entry(Some(head)), "")
        });
    }
    mutate::rewrite_path(head, &choice.route.matches.path, forward);
    let weighted = choice.weighted().and_then(|cluster| cluster.host_rewrite.clone());
    if let Some(host) = weighted {
        head.authority = host;
    } else if let Some(HostRewrite::Literal(host)) = &forward.host_rewrite {
        head.authority = host.clone();
    }
}

impl Forwarding<'_> {
    async fn run(mut self, mut deadline: Option<Deadline>) -> Response<Tracked> {
        let request_limit = self.record.manager.request_timeout.filter(|limit| !limit.is_zero());
        let request_limit = request_limit.map(|limit| self.record.start + limit);
        loop {
            let Some(picked) = self.pick() else { return self.no_endpoint() };
            self.record.upstream =
                Some(Upstream { endpoint: picked.endpoint().clone(), connection: None });
            let began = clock::now();
            let outcome = self.attempt(&picked, &mut deadline, request_limit).await;
            let next = match outcome {
                Outcome::Response(response) => {
                    self.note_connection(response.body());
                    match self.after_response(&response) {
                        Next::Give => return self.respond(response, &picked, began, deadline),
                        again => again,
                    }
                }
                Outcome::Failed(error) => match self.after_failure(&error, &picked) {
                    Next::Give => return self.failed(&error),
                    again => again,
                },
                Outcome::PerTry => {
                    picked.timed_out(true);
                    match self
                        .may_retry(|policy| retry::retries_reset(policy, Reset::PerTryTimeout))
                    {
                        Next::Give => return self.timed_out("upstream_per_try_timeout"),
                        again => again,
                    }
                }
                Outcome::Overall => {
                    picked.timed_out(false);
                    return self.timed_out("upstream_response_timeout");
                }
                Outcome::Idle => {
                    // Whose turn it was is whose fault it is.
                    let status = match self.body.ended_at() {
                        Some(_) => StatusCode::GATEWAY_TIMEOUT,
                        None => StatusCode::REQUEST_TIMEOUT,
                    };
                    return self.gave_up(
                        ResponseFlags::SI,
                        status,
                        "stream timeout",
                        "stream_idle_timeout",
                    );
                }
                Outcome::RequestTimeout => {
                    return self.gave_up(
                        ResponseFlags::NONE,
                        StatusCode::REQUEST_TIMEOUT,
                        "request timeout",
                        "request_overall_timeout",
                    );
                }
            };
            if let Next::Again = next {
                self.tried.push(picked.address());
            }
            self.attempt += 1;
            if let Some(wait) = self.backoff() {
                tokio::select! {
                    () = sleep(wait) => {}
                    () = or_never(&mut deadline) => return self.timed_out("upstream_response_timeout"),
                }
            }
        }
    }

    fn pick(&self) -> Option<Picked> {
        let avoid = self.policy.as_ref().is_some_and(|policy| policy.avoid_previous_hosts);
        let http2 = self.record.version == ::http::Version::HTTP_2;
        let authority = without_port(self.head.authority());
        let context = PickContext {
            hash: self.affinity.hash,
            destination: self.record.connection.original,
            exclude: if avoid { &self.tried } else { &[] },
            http2,
            authority: Some(authority),
        };
        let picked = self.cluster.pick(&context).ok()?;
        Some(if self.attempt > 1 { picked.again() } else { picked })
    }

    /// Sends the request to an endpoint and waits for the response's head.
    async fn attempt(
        &self,
        picked: &Picked,
        deadline: &mut Option<Deadline>,
        request_limit: Option<Instant>,
    ) -> Outcome {
        let authority = self.authority(picked);
        if !is_authority(authority.as_bytes()) {
            return Outcome::Failed(UpstreamError::unsent(ErrorKind::Protocol));
        }
        let instead = self.own_fields(picked);
        let request = Outbound {
            method: &self.head.method,
            https: self.head.https,
            authority,
            target: Some(&self.head.target),
            headers: &self.head.headers,
            instead: &instead,
        };
        let per_try = self.policy.as_ref().and_then(|policy| policy.per_try_timeout);
        let per_try = per_try.filter(|limit| !limit.is_zero());
        let body = &self.body;
        let per_try = async {
            match per_try {
                Some(limit) => {
                    let began = clock::now();
                    let ended = body.ended().await;
                    Alarm::at(ended.max(began) + limit).await;
                }
                None => std::future::pending().await,
            }
        };
        let incoming = async {
            match request_limit {
                Some(limit) if body.ended_at().is_none() => {
                    Alarm::at(limit).await;
                    if body.ended_at().is_some() {
                        std::future::pending::<()>().await;
                    }
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            result = picked.send(request, body.attempt()) => match result {
                Ok(response) => Outcome::Response(response),
                Err(error) => Outcome::Failed(error),
            },
            () = per_try => Outcome::PerTry,
            () = or_never(deadline) => Outcome::Overall,
            () = idle(body, self.idle) => Outcome::Idle,
            () = incoming => Outcome::RequestTimeout,
        }
    }

    /// The authority as an endpoint is told it.
    fn authority<'a>(&'a self, picked: &'a Picked) -> &'a str {
        match (&self.forward.host_rewrite, &picked.endpoint().hostname) {
            (Some(HostRewrite::Auto), Some(hostname)) => hostname,
            _ => self.head.authority(),
        }
    }

    /// What the request says to an endpoint beside what it says to all.
    fn own_fields(&self, picked: &Picked) -> Vec<(HeaderName, HeaderValue)> {
        let mut fields = Vec::new();
        let counts = self.record.choice.as_ref();
        if counts.is_some_and(|choice| choice.host.include_request_attempt_count) {
            fields.push((names::ATTEMPT_COUNT, HeaderValue::from(self.attempt)));
        }
        if self.record.manager.direction == TrafficDirection::Outbound && picked.is_mutual_tls() {
            fields.extend(self.record.connection.thread.own_metadata());
        }
        if let Wants::Upgrade(protocol) = &self.wants
            && let Ok(protocol) = HeaderValue::from_str(protocol)
        {
            fields.push((header::CONNECTION, HeaderValue::from_static("Upgrade")));
            fields.push((header::UPGRADE, protocol));
        }
        fields
    }

    fn note_connection(&mut self, body: &ResponseBody) {
        if let Some(upstream) = &mut self.record.upstream {
            upstream.connection = Some(body.connection().clone());
        }
    }

    /// Whether another attempt follows, limits included.
    fn may_retry(&mut self, wanted: impl Fn(&RetryPolicy) -> bool) -> Next {
        // The previous retry's place is given back before another is asked for.
        self.permit = None;
        let Some(policy) = self.policy.clone().filter(|policy| wanted(policy)) else {
            return Next::Give;
        };
        if policy.retries == 0 || !self.body.can_repeat() {
            return Next::Give;
        }
        if self.retries_left == 0 {
            self.record.flags.insert(ResponseFlags::URX);
            count(&self.cluster.cluster().state.totals.upstream_rq_retry_limit_exceeded);
            return Next::Give;
        }
        let Some(permit) = self.cluster.retry() else { return Next::Give };
        self.retries_left -= 1;
        self.permit = Some(permit);
        Next::Again
    }

    /// The wait before the next attempt; none where a stale connection was the reason.
    fn backoff(&self) -> Option<Duration> {
        let policy = self.policy.as_ref().filter(|_| self.permit.is_some())?;
        Some(retry::backoff(policy, policy.retries - self.retries_left))
    }

    fn after_response(&mut self, response: &Response<ResponseBody>) -> Next {
        let (status, headers) = (response.status(), response.headers());
        let retried = self.permit.is_some();
        let next = self.may_retry(|policy| retry::retries_response(policy, status, headers));
        if retried && matches!(next, Next::Give) && !status.is_server_error() {
            count(&self.cluster.cluster().state.totals.upstream_rq_retry_success);
        }
        next
    }

    fn after_failure(&mut self, error: &UpstreamError, picked: &Picked) -> Next {
        let reset = match error.kind {
            // The client's own doing.
            ErrorKind::RequestBody => return Next::Give,
            ErrorKind::Overflow => Reset::Overflow,
            ErrorKind::Connect | ErrorKind::ConnectTimeout | ErrorKind::Tls => {
                Reset::ConnectFailure
            }
            ErrorKind::Refused => Reset::Refused,
            ErrorKind::Closed | ErrorKind::RemoteReset | ErrorKind::Protocol => {
                Reset::Broken { before_request: !error.sent }
            }
        };
        // A proxy of the mesh answers every request that it takes: when it ends even a new connection in order it drains.
        let stale = error.kind == ErrorKind::Closed
            && (error.reused || picked.is_mutual_tls())
            && (!error.sent || (error.ended && self.head.method.is_idempotent()));
        if stale && self.stale_left > 0 && self.body.can_repeat() {
            // The endpoint closed an idle connection just as it was used (RFC 9112, 9.3.1): it knows nothing of the
            // request. A reset is no such end: it may be the answer to the request.
            let first = self.stale_left == STALE_RETRIES;
            self.stale_left -= 1;
            self.permit = None;
            return if first { Next::Anew } else { Next::Again };
        }
        self.may_retry(|policy| retry::retries_reset(policy, reset))
    }

    fn no_endpoint(mut self) -> Response<Tracked> {
        self.record.flags.insert(ResponseFlags::UH);
        self.record.details = Cow::Borrowed("no_healthy_upstream");
        self.record.upstream = None;
        self.answer(Reply::new(StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream"))
    }

    fn timed_out(self, details: &'static str) -> Response<Tracked> {
        let status = StatusCode::GATEWAY_TIMEOUT;
        self.gave_up(ResponseFlags::UT, status, "upstream request timeout", details)
    }

    fn gave_up(
        mut self,
        flags: ResponseFlags,
        status: StatusCode,
        text: &'static str,
        details: &'static str,
    ) -> Response<Tracked> {
        self.record.flags.insert(flags);
        self.record.details = Cow::Borrowed(details);
        self.answer(Reply::new(status, text))
    }

    fn failed(mut self, error: &UpstreamError) -> Response<Tracked> {
        if error.kind == ErrorKind::RequestBody {
            self.record.flags.insert(ResponseFlags::DPE);
            self.record.details = Cow::Borrowed("request_body_broken_off");
            return self.answer(Reply::new(StatusCode::BAD_REQUEST, ""));
        }
        self.record.flags.insert(error.flag());
        let reason = error.reset_reason();
        let transport = error.transport_failure();
        let retried =
            if self.attempt > 1 { "retried and the latest reset reason" } else { "reset reason" };
        let mut text = format!(
            "upstream connect error or disconnect/reset before headers. {retried}: {reason}"
        );
        let mut details = reason.to_owned();
        if !transport.is_empty() {
            text.push_str(&format!(", transport failure reason: {transport}"));
            details.push_str(&format!("|{transport}"));
            self.record.upstream_failure = Some(transport);
        }
        let details = details.replace(char::is_whitespace, "_");
        self.record.details =
            Cow::Owned(format!("upstream_reset_before_response_started{{{details}}}"));
        let status = match error.kind {
            ErrorKind::Protocol => StatusCode::BAD_GATEWAY,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut answer = Reply::new(status, text);
        if error.kind == ErrorKind::Overflow {
            answer.headers.insert(names::OVERLOADED, HeaderValue::from_static("true"));
        }
        self.answer(answer)
    }

    fn answer(mut self, answer: Reply) -> Response<Tracked> {
        self.body.settle();
        let method = self.head.method.clone();
        if self.record.is_logged() {
            self.record.head = Some(self.head);
        }
        reply(self.record, &method, answer)
    }

    /// Passes a response on.
    fn respond(
        mut self,
        response: Response<ResponseBody>,
        picked: &Picked,
        began: Instant,
        deadline: Option<Deadline>,
    ) -> Response<Tracked> {
        self.body.settle();
        let now = clock::now();
        self.record.answered = Some(now);
        self.record.details = Cow::Borrowed("via_upstream");
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switched && !matches!(self.wants, Wants::Upgrade(_)) {
            let unasked = UpstreamError::unsent(ErrorKind::Protocol);
            return self.failed(&unasked);
        }
        let (mut parts, mut body) = response.into_parts();
        let tunnel = if switched { body.take_tunnel() } else { None };
        if switched && (tunnel.is_none() || self.upgrade.is_none()) {
            let unfinished = UpstreamError::unsent(ErrorKind::Protocol);
            return self.failed(&unfinished);
        }
        let seen = Seen::new(&parts.headers);
        seen.remove_hop_by_hop(&mut parts.headers);
        self.exchange_metadata(&mut parts.headers, seen, picked);
        let sent = self.body.ended_at().map_or(began, |ended| ended.max(began));
        let service_time = now.saturating_duration_since(sent);
        parts.headers.insert(names::UPSTREAM_SERVICE_TIME, millis_value(service_time));
        for cookie in self.affinity.cookies.drain(..) {
            parts.headers.append(header::SET_COOKIE, cookie);
        }
        if let (Some(policy), Some(origin)) = (&self.forward.cors, self.origin.take()) {
            cors::response(policy, origin, &mut parts.headers);
        }
        finish_headers(&self.record, &mut parts.headers);
        let idle = self.idle;
        let mut record = self.record;
        record.respond(parts.status, &parts.headers);
        if record.is_logged() {
            record.head = Some(self.head);
        } else {
            spare::give(self.head.headers);
        }
        let mut answer = Response::new(());
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = parts.headers;
        if let (Some(client), Some(upstream)) = (self.upgrade, tunnel) {
            return upgrade::switch(record, answer, body, (client, upstream), self.wants);
        }
        answer.map(|()| Tracked::upstream(body, record, deadline, idle))
    }

    /// Peer metadata of the response: outbound it is the server's, for us alone; inbound it is ours, for a client that
    /// told us its own.
    fn exchange_metadata(&mut self, headers: &mut HeaderMap, seen: Seen, picked: &Picked) {
        let id = seen.take(headers, &names::PEER_METADATA_ID);
        let value = seen.take(headers, &names::PEER_METADATA);
        match self.record.manager.direction {
            TrafficDirection::Outbound => {
                if let Some(value) = value.filter(|_| picked.is_mutual_tls()) {
                    let peers = &self.record.connection.thread.peers;
                    self.record.peer = peers.get(id.as_ref(), &value);
                }
            }
            TrafficDirection::Inbound => {
                if self.record.told_metadata {
                    self.record.connection.thread.add_own_metadata(headers);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
