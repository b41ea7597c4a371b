//! The HTTP connection manager: one request from its head to its response.
//!
//! In order: sanitise, peer metadata, route (asked for on first use), filters, then the route's action. See `ARCHITECTURE.md`.

use std::{borrow::Cow, rc::Rc};

use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::sleep;

use super::{
    cors,
    downstream::{Active, http1::Refused},
    fault::{self, Injected},
    grpc,
    head::{Head, names},
    incoming::ClientBody,
    mutate, rate_limit, rbac,
    record::Record,
    replay::Replay,
    response::{Reply, Tracked, mutate_response, reply},
    router,
    routes::{self, NoRoute},
    sanitize::{self, Accepted, Client, Refusal, Wants},
    upgrade::{self, OnUpgrade},
};
use crate::{
    config::{
        filter::{Abort, Fault, HttpFilter, LocalRateLimit},
        rbac::Rbac,
        route::RouteAction,
    },
    data::{connection::Connection, destination::Destination},
    net::flags::ResponseFlags,
};

/// The connection must be closed without an answer: the configuration does not let it in any more.
#[derive(Debug, thiserror::Error)]
#[error("the connection is not admitted any more")]
pub struct Closed;

/// What the connection knows of a request beside the request.
#[derive(Debug)]
pub struct Exchange {
    /// The client's connection, once it is handed over, where the request may ask for that.
    pub upgrade: Option<OnUpgrade>,
    /// Counts the request as active.
    pub active: Active,
}

/// A request on its way through the filters.
#[derive(Debug)]
pub struct Passing {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: Replay,
    /// What it wants to become.
    pub wants: Wants,
    /// The client's connection, once it is handed over.
    pub upgrade: Option<OnUpgrade>,
}

/// A request that was answered, or goes on.
enum Step {
    Answered(Box<Response<Tracked>>),
    On(Box<Record>),
}

/// Serves a request.
///
/// # Errors
/// The connection must be closed, see [`Closed`].
pub async fn handle(
    connection: Rc<Connection>,
    request: Request<ClientBody>,
    exchange: Exchange,
) -> Result<Response<Tracked>, Closed> {
    let (config, manager) = connection.manager().await.ok_or(Closed)?;
    let (parts, body) = request.into_parts();
    let method = parts.method.clone();
    let mut record = Record::new(connection.clone(), manager.clone(), &parts, exchange.active);
    let body = Replay::new(body, false);
    if record.grpc {
        body.count_messages();
    }
    record.body = Some(body.clone());
    let client = Client {
        peer: connection.peer,
        tls: connection.tls.is_some(),
        info: connection.tls.as_deref(),
    };
    let Accepted { mut head, wants, seen } = match sanitize::accept(&manager, parts, client) {
        Ok(accepted) => accepted,
        Err(refusal) => return Ok(refuse(record, &method, &refusal)),
    };
    record.authority = head.authority.clone();
    record.remote = sanitize::remote_address(&manager, (&head.headers, seen), connection.peer);
    record.take_peer_metadata(&mut head.headers, seen);
    let mut passing = Passing { head, body, wants, upgrade: exchange.upgrade };
    if passing.wants == Wants::Connect && connection.destination == Destination::HttpProxy {
        return Ok(upgrade::connect(record, passing).await);
    }
    let found = routes::find(&connection.thread, config, &manager.routes, &passing.head).await;
    let no_route = match found {
        Ok(choice) => {
            record.choose(choice, &passing.head);
            None
        }
        Err(no_route) => Some(no_route),
    };
    for filter in &manager.filters {
        record = match apply(filter, record, &mut passing).await {
            Step::On(record) => record,
            Step::Answered(response) => return Ok(*response),
        };
    }
    match no_route {
        Some(no_route) => Ok(unrouted(record, &passing.head, no_route)),
        None => Ok(act(record, passing).await),
    }
}

/// Answers what did not become a request: it is counted and logged as one.
///
/// # Errors
/// The connection must be closed, see [`Closed`].
pub async fn refuse_head(
    connection: Rc<Connection>,
    refused: Refused,
    active: Active,
) -> Result<Response<Tracked>, Closed> {
    let (_, manager) = connection.manager().await.ok_or(Closed)?;
    let (parts, ()) = Request::new(()).into_parts();
    let mut record = Record::new(connection, manager, &parts, active);
    let (status, details) = match refused {
        Refused::Head(error) => {
            record.flags.insert(ResponseFlags::DPE);
            (error.status(), error.details())
        }
        Refused::Timeout => (408, "request_header_timeout"),
    };
    record.details = Cow::Borrowed(details);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut answer = Reply::new(status, "");
    close_connection(&record, &mut answer.headers);
    Ok(reply(record, &Method::GET, answer))
}

/// Answers a request that must not go on.
fn refuse(mut record: Box<Record>, method: &Method, refusal: &Refusal) -> Response<Tracked> {
    record.details = Cow::Owned(refusal.to_string());
    let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut answer = Reply::new(status, "");
    match refusal {
        Refusal::Redirect(target) => {
            if let Ok(location) = HeaderValue::from_str(target.as_str()) {
                answer.headers.insert(header::LOCATION, location);
            }
        }
        Refusal::Upgrade => {}
        _ => {
            record.flags.insert(ResponseFlags::DPE);
            // Who breaks the protocol once may not mean the same by the next bytes either.
            close_connection(&record, &mut answer.headers);
        }
    }
    reply(record, method, answer)
}

/// HTTP/1: no further request on this connection.
pub fn close_connection(record: &Record, headers: &mut HeaderMap) {
    if record.version != ::http::Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

fn unrouted(mut record: Box<Record>, head: &Head, no_route: NoRoute) -> Response<Tracked> {
    record.flags.insert(ResponseFlags::NR);
    record.details = Cow::Owned(no_route.to_string());
    keep_head(&mut record, head);
    let status = match no_route {
        NoRoute::NotFound { host } => {
            record.unrouted_host = host;
            StatusCode::NOT_FOUND
        }
        NoRoute::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
    };
    reply(record, &head.method, Reply::new(status, ""))
}

/// Access logs want the head of a request that does not reach the router.
fn keep_head(record: &mut Record, head: &Head) {
    if record.is_logged() {
        record.head = Some(head.clone());
    }
}

/// Runs one filter.
async fn apply(filter: &HttpFilter, record: Box<Record>, passing: &mut Passing) -> Step {
    match filter {
        HttpFilter::Rbac(configured) => {
            let rbac = match record.choice.as_ref().and_then(|choice| choice.rbac()) {
                None => Some(configured.clone()),
                Some(overridden) => overridden.clone(),
            };
            match rbac {
                Some(rbac) => authorize(&rbac, record, &passing.head),
                None => Step::On(record),
            }
        }
        HttpFilter::LocalRateLimit(configured) => {
            let overridden = record.choice.as_ref().and_then(|choice| choice.rate_limit());
            let limit = overridden.unwrap_or(configured).clone();
            limit_rate(&limit, record, &passing.head)
        }
        HttpFilter::Fault(configured) => {
            let overridden = record.choice.as_ref().and_then(|choice| choice.fault());
            match overridden.or(configured.as_ref()).cloned() {
                Some(fault) => inject(&fault, record, &passing.head).await,
                None => Step::On(record),
            }
        }
        HttpFilter::Cors => answer_preflight(record, &mut passing.head),
    }
}

fn authorize(rbac: &Rbac, mut record: Box<Record>, head: &Head) -> Step {
    let connection = record.connection.clone();
    let facts = rbac::Facts {
        head: Some(head),
        destination: (connection.local.ip(), connection.local.port()),
        direct_remote: connection.direct_peer().ip(),
        remote: record.remote.ip(),
        peer_names: connection.peer_names(),
        server_name: connection.server_name().unwrap_or_default(),
    };
    let (verdict, shadow) = rbac::evaluate(rbac, &facts);
    let counters = connection.thread.http_counters(&record.manager.stat_prefix);
    counters.rbac.count(&verdict, shadow.as_ref());
    if let Some(rbac::Verdict::Denied(policy)) = shadow {
        tracing::info!(
            peer = %connection.peer, principal = ?connection.peer_names(), method = %head.method,
            authority = head.authority(), path = head.path(), policy = policy.unwrap_or("none"),
            "request would be denied (dry run)"
        );
    }
    let rbac::Verdict::Denied(policy) = verdict else { return Step::On(record) };
    tracing::info!(
        peer = %connection.peer, principal = ?connection.peer_names(), method = %head.method,
        authority = head.authority(), path = head.path(), policy = policy.unwrap_or("none"),
        "request denied"
    );
    record.details = Cow::Owned(rbac::Verdict::details(policy));
    keep_head(&mut record, head);
    let answer = Reply::new(StatusCode::FORBIDDEN, "RBAC: access denied");
    Step::Answered(Box::new(reply(record, &head.method, answer)))
}

fn limit_rate(limit: &LocalRateLimit, mut record: Box<Record>, head: &Head) -> Step {
    let limited = rate_limit::check(limit, std::time::Instant::now());
    record.connection.thread.rate_limit(&limit.stat_prefix).count(limited);
    if limited != rate_limit::Limited::Refused {
        return Step::On(record);
    }
    record.flags.insert(ResponseFlags::RL);
    record.details = Cow::Borrowed("local_rate_limited");
    keep_head(&mut record, head);
    let status = StatusCode::from_u16(limit.status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let mut answer = Reply::new(status, "local_rate_limited");
    answer.headers.insert(names::RATE_LIMITED, HeaderValue::from_static("true"));
    mutate_response(&record, &limit.response_headers, &mut answer.headers);
    answer.grpc_status = Some(if limit.rate_limited_as_resource_exhausted {
        grpc::RESOURCE_EXHAUSTED
    } else {
        grpc::UNAVAILABLE
    });
    Step::Answered(Box::new(reply(record, &head.method, answer)))
}

async fn inject(fault: &Fault, mut record: Box<Record>, head: &Head) -> Step {
    let Injected { delay, abort } = fault::draw(fault, head);
    if let Some(delay) = delay {
        record.flags.insert(ResponseFlags::DI);
        sleep(delay).await;
    }
    let Some(abort) = abort else { return Step::On(record) };
    record.flags.insert(ResponseFlags::FI);
    record.details = Cow::Borrowed("fault_filter_abort");
    keep_head(&mut record, head);
    let (status, grpc_status) = match abort {
        Abort::Http(status) => {
            (StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), None)
        }
        Abort::Grpc(status) => (grpc::to_http(status), Some(status)),
    };
    let answer = Reply { grpc_status, ..Reply::new(status, "fault filter abort") };
    Step::Answered(Box::new(reply(record, &head.method, answer)))
}

fn answer_preflight(mut record: Box<Record>, head: &mut Head) -> Step {
    let policy = record.choice.as_ref().and_then(|choice| match &choice.route.action {
        RouteAction::Forward(forward) => forward.cors.clone(),
        RouteAction::Redirect(_) | RouteAction::Direct { .. } => None,
    });
    let Some(policy) = policy else { return Step::On(record) };
    match cors::preflight(&policy, head) {
        cors::Preflight::Answer(headers) => {
            record.details = Cow::Borrowed("cors_response");
            keep_head(&mut record, head);
            let answer = Reply { headers, ..Reply::new(StatusCode::OK, "") };
            Step::Answered(Box::new(reply(record, &head.method, answer)))
        }
        cors::Preflight::No => Step::On(record),
    }
}

/// Does what the route says.
async fn act(mut record: Box<Record>, passing: Passing) -> Response<Tracked> {
    let Some(route) = record.choice.as_ref().map(|choice| choice.route.clone()) else {
        return unrouted(record, &passing.head, NoRoute::NotFound { host: None });
    };
    let head = &passing.head;
    match &route.action {
        RouteAction::Forward(_) if passing.wants == Wants::Connect => {
            // Tunnels are the explicit proxy's affair.
            refuse(record, &head.method.clone(), &Refusal::Upgrade)
        }
        RouteAction::Forward(forward) => router::forward(record, passing, forward).await,
        RouteAction::Redirect(redirect) => {
            record.details = Cow::Borrowed("direct_response");
            keep_head(&mut record, head);
            let mut answer = Reply::new(redirect.status, "");
            if let Some(location) = mutate::location(head, &route.matches.path, redirect) {
                answer.headers.insert(header::LOCATION, location);
            }
            reply(record, &head.method, answer)
        }
        RouteAction::Direct { status, body } => {
            record.details = Cow::Borrowed("direct_response");
            keep_head(&mut record, head);
            let text = String::from_utf8_lossy(body).into_owned();
            reply(record, &head.method, Reply::new(*status, text))
        }
    }
}

#[cfg(test)]
mod tests;
