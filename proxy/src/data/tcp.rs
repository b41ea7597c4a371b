//! Filter chains that end in a TCP proxy: hands the bytes to `net::tcp`, and writes the access log.

use std::{rc::Rc, sync::Arc, time::SystemTime};

use super::{connection::Connection, stream::Stream};
use crate::{
    config::listener::TcpProxy,
    http::access_log::{self, Entry},
    net::tcp::{self, TcpContext, TcpOutcome},
};

/// Proxies a connection to its end.
pub async fn proxy(connection: &Rc<Connection>, stream: Stream, proxy: &Arc<TcpProxy>) {
    let started = SystemTime::now();
    let thread = &connection.thread;
    let context = TcpContext {
        proxy,
        config: thread.config(),
        upstreams: &thread.upstreams,
        stats: thread.handles.stats(),
        own: &thread.own,
        direction: connection.direction,
        destination: connection.original,
        client: connection.tls.as_ref(),
    };
    let outcome = tcp::proxy(stream, context).await;
    log(connection, proxy, started, &outcome);
}

fn log(connection: &Connection, proxy: &TcpProxy, started: SystemTime, outcome: &TcpOutcome) {
    if proxy.access_logs.is_empty() {
        return;
    }
    let entry = Entry {
        duration: outcome.duration,
        flags: outcome.flags,
        upstream_failure: Some(&*outcome.failure).filter(|failure| !failure.is_empty()),
        received: outcome.received,
        sent: outcome.sent,
        upstream_host: outcome.endpoint,
        upstream_cluster: outcome.cluster.as_deref(),
        upstream_local: outcome.upstream.as_ref().map(|upstream| upstream.local),
        downstream_local: Some(connection.local),
        downstream_remote: Some(connection.peer),
        downstream_direct_remote: Some(connection.peer),
        peer_uri_sans: connection.peer_names().unwrap_or_default(),
        local_uri_san: connection.tls.as_ref().and_then(|info| info.local_identity.as_deref()),
        server_name: connection.server_name(),
        ..Entry::new(started)
    };
    access_log::write(&proxy.access_logs, &entry);
}
