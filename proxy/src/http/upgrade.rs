//! Requests that become something else: tunnels by `CONNECT`, and protocols by `Upgrade` (WebSocket).
//!
//! A tunnel is a new connection whose destination the request named; what follows is the same code as for every other
//! connection. An upgraded connection is copied both ways once both sides have switched, and never before.

use std::{borrow::Cow, sync::Arc};

use ::http::{HeaderValue, Response, StatusCode, header};
use tokio::{io::copy_bidirectional, sync::oneshot};

use super::{
    manager::Passing,
    record::Record,
    response::{Reply, Tracked, reply},
    sanitize::Wants,
};
use crate::{
    data::{
        connection::{self, Ends},
        destination::{self, Destination, NoListener},
        stream::{Prefixed, Transport, Tunnel},
    },
    net::{
        flags::ResponseFlags,
        pool::{self, ResponseBody},
    },
};

/// A client's connection, or its stream, that will be handed over once the response's head is out.
#[derive(Debug)]
pub struct OnUpgrade(oneshot::Receiver<Tunnel>);

impl OnUpgrade {
    /// What is sent here is handed over.
    pub fn new(receiver: oneshot::Receiver<Tunnel>) -> Self {
        Self(receiver)
    }

    /// Waits for the connection; `None`: the client left first.
    async fn tunnel(self) -> Option<Tunnel> {
        self.0.await.ok()
    }
}

/// Where a `CONNECT` request wants to go: host and port, of which both must be there.
fn target(authority: &str) -> Option<(Arc<str>, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then(|| (host.into(), port))
}

/// Answers a `CONNECT` request to the explicit proxy: the connection goes on to the destination's own listener.
pub async fn connect(mut record: Box<Record>, passing: Passing) -> Response<Tracked> {
    let Passing { head, upgrade, .. } = passing;
    let connection = record.connection.clone();
    let refused = |mut record: Box<Record>, status, flags, details| {
        record.flags.insert(flags);
        record.details = Cow::Borrowed(details);
        if record.is_logged() {
            record.head = Some(head.clone());
        }
        reply(record, &head.method, Reply::new(status, ""))
    };
    let (Some((host, port)), Some(upgrade)) = (target(head.authority()), upgrade) else {
        let bad = StatusCode::BAD_REQUEST;
        return refused(record, bad, ResponseFlags::NONE, "connect_without_port");
    };
    let destination = Destination::Outbound { host, port };
    let listener = match destination::listener(&connection.thread, &destination).await {
        Ok(listener) => listener,
        Err(NoListener::Unknown) => {
            let bad = StatusCode::BAD_GATEWAY;
            return refused(record, bad, ResponseFlags::NR, "destination_not_found");
        }
        Err(NoListener::TimedOut) => {
            let unavailable = StatusCode::SERVICE_UNAVAILABLE;
            return refused(
                record,
                unavailable,
                ResponseFlags::NR,
                "destination_not_received_in_time",
            );
        }
    };
    // The connection to the destination is counted as what it turns out to be.
    record.uncounted = true;
    record.details = Cow::Borrowed("tunnel");
    record.complete = true;
    let mut response = Response::new(Tracked::empty(record.manager.stream_idle_timeout));
    record.respond(StatusCode::OK, response.headers());
    *response.status_mut() = StatusCode::OK;
    if record.is_logged() {
        record.head = Some(head);
    }
    let guard = connection.thread.track();
    tokio::task::spawn_local(async move {
        match upgrade.tunnel().await {
            Some(tunnel) => {
                let stream = Prefixed::new(Transport::Tunnel(tunnel));
                let ends = Ends { local: connection.local, peer: connection.peer, destination };
                connection::serve(&connection.thread, stream, ends, &listener).await;
            }
            None => tracing::debug!("the client left before its tunnel began"),
        }
        drop((record, guard));
    });
    response
}

/// Answers a request whose upstream has switched protocols, and copies from then on.
pub fn switch(
    mut record: Box<Record>,
    answer: Response<()>,
    body: ResponseBody,
    (client, mut upstream): (OnUpgrade, pool::Tunnel),
    wants: Wants,
) -> Response<Tracked> {
    let mut response = answer.map(|()| Tracked::empty(record.manager.stream_idle_timeout));
    if let Wants::Upgrade(protocol) = wants
        && let Ok(protocol) = HeaderValue::from_str(&protocol)
    {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    let thread = record.connection.thread.clone();
    let guard = thread.track();
    let mut lifecycle = thread.lifecycle_changes();
    tokio::task::spawn_local(async move {
        match client.tunnel().await {
            Some(mut client) => {
                record.complete = true;
                let stopped = lifecycle.wait_for(|now| *now == crate::shared::Lifecycle::Stopping);
                tokio::select! {
                    copied = copy_bidirectional(&mut client, &mut upstream) => {
                        if let Ok((received, sent)) = copied {
                            record.sent += sent;
                            record.tunnelled += received;
                        }
                    }
                    _ = stopped => {}
                }
            }
            None => tracing::debug!("switching protocols failed"),
        }
        // The response's body holds the upstream connection's place in the circuit breakers.
        drop((body, record, guard));
    });
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_names_host_and_port() {
        for (authority, expected) in [
            ("order:8080", Some(("order", 8080))),
            ("[::1]:80", Some(("::1", 80))),
            ("10.0.0.1:80", Some(("10.0.0.1", 80))),
            ("order", None),
            ("order:", None),
            ("order:0", None),
            ("order:70000", None),
            (":80", None),
        ] {
            let found = target(authority);
            let found = found.as_ref().map(|(host, port)| (&**host, *port));
            assert_eq!(found, expected, "{authority}");
        }
    }
}
