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
        client: connection.tls.as_deref(),
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
        ..entry(connection, started)
    };
    access_log::write(&proxy.access_logs, &entry);
}

/// Writes the line of a connection that a policy denied; `details` name the policy.
pub fn denied(connection: &Connection, proxy: &TcpProxy, details: &str) {
    if proxy.access_logs.is_empty() {
        return;
    }
    let cluster = match proxy.clusters.as_slice() {
        [(only, _)] => Some(&**only),
        _ => None,
    };
    let entry = Entry {
        termination_details: Some(details),
        upstream_cluster: cluster,
        ..entry(connection, SystemTime::now())
    };
    access_log::write(&proxy.access_logs, &entry);
}

/// What is known of every connection.
fn entry(connection: &Connection, started: SystemTime) -> Entry<'_> {
    Entry {
        downstream_local: Some(connection.local),
        downstream_remote: Some(connection.peer),
        downstream_direct_remote: Some(connection.direct_peer()),
        peer_uri_sans: connection.peer_names().unwrap_or_default(),
        local_uri_san: connection.tls.as_ref().and_then(|info| info.local_identity.as_deref()),
        server_name: connection.server_name(),
        ..Entry::new(started)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{
        config::{
            access_log::{AccessLog, Command, Format, FormatPart, LogFormat},
            listener::Terminal,
            rbac::{Permission, Policy, Principal, Rbac, RbacAction, RbacRules},
        },
        data::{
            destination::Destination,
            testing::{Proxy, cluster, config_of, exchange, listener, run, tcp_chain},
        },
        http::access_log::writer,
    };

    #[test]
    fn a_denied_connection_is_logged_with_its_policy() {
        run(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("access.log").to_str().unwrap().to_owned();
            let mut parts = Vec::new();
            for command in [
                Command::ResponseCode,
                Command::ConnectionTerminationDetails,
                Command::UpstreamCluster,
            ] {
                parts.push(FormatPart::Command { command, max: None });
                parts.push(FormatPart::Literal(" ".into()));
            }
            let log = AccessLog {
                path: path.as_str().into(),
                format: LogFormat::Text(Format { parts }),
                only_flags: Vec::new(),
            };
            let mut chain = tcp_chain("inbound|9000||");
            let everybody =
                Policy { permissions: vec![Permission::Any], principals: vec![Principal::Any] };
            let rules = RbacRules {
                action: RbacAction::Deny,
                policies: vec![("ns[shop]-policy[p]-rule[0]".into(), everybody)],
            };
            chain.rbac = vec![Rbac { rules: Some(rules), ..Rbac::default() }.into()];
            let Terminal::Tcp(proxy) = &chain.terminal else { panic!("no bytes") };
            let logged = super::TcpProxy { access_logs: vec![log.into()], ..(**proxy).clone() };
            chain.terminal = Terminal::Tcp(logged.into());
            let inbound = listener("virtualInbound", vec![chain]);
            let proxy = Proxy::new(config_of(vec![inbound], vec![cluster("inbound|9000||", &[])]));
            assert_eq!(exchange(proxy.listen(Destination::Inbound).await, b"hello").await, "");
            proxy.thread.until_idle().await;
            writer::process().flush(Duration::from_secs(10));
            assert_eq!(
                std::fs::read_to_string(path).unwrap(),
                "0 rbac_access_denied_matched_policy[ns[shop]-policy[p]-rule[0]] inbound|9000|| \n"
            );
        });
    }
}
