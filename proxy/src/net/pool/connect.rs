//! Making a connection: socket, TLS, and what is known of it afterwards.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{
    ConnectFailure,
    io::{Counted, Io, UpstreamIo},
};
use crate::{
    config::{
        cluster::{self, Cluster, Endpoint},
        tls::{Carries, UpstreamTls},
    },
    net::{
        cluster::{Permit, count, outlier::Outcome},
        tls::{self, PeerInfo, TlsContexts, TlsError},
        upstreams::ErrorKind,
    },
};

/// What is known of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Our end.
    pub local: SocketAddr,
    /// The endpoint.
    pub remote: SocketAddr,
    /// The peer, on a TLS connection.
    pub peer: Option<Arc<PeerInfo>>,
}

impl ConnectionInfo {
    /// The protocol that was agreed on by TLS.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.peer.as_ref()?.alpn.as_deref()
    }

    /// Whether both sides have shown certificates, and the peer's was verified.
    pub fn is_mutual_tls(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.verified && peer.local_identity.is_some())
    }
}

/// A connection that was made.
#[derive(Debug)]
pub struct Connection {
    /// Its bytes.
    pub io: UpstreamIo,
    /// What is known of it.
    pub info: Arc<ConnectionInfo>,
}

/// How connections to an endpoint are made.
#[derive(Clone, Debug)]
pub struct Connector {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Where TLS configurations come from.
    pub tls: Rc<TlsContexts>,
    /// The server name, where it is the request's authority.
    pub server_name: Option<Box<str>>,
    /// What will be spoken; of the versions of HTTP, unless ALPN says otherwise.
    pub carries: Carries,
}

impl Connector {
    /// HTTP/2 will be spoken unless ALPN says otherwise.
    pub fn is_http2(&self) -> bool {
        self.carries == Carries::Http2
    }

    /// Makes a connection within the cluster's connect timeout. It counts as one until it is dropped.
    ///
    /// # Errors
    /// It could not be made; the failure has been counted.
    pub async fn connect(
        &self,
        cluster: &Cluster,
        permit: Permit,
    ) -> Result<Connection, ConnectFailure> {
        let endpoint = &self.endpoint.state;
        let counted = Counted::new(permit, cluster.state.clone(), endpoint.clone());
        let made = timeout(cluster.connect_timeout, self.open(cluster, counted)).await;
        let failure = match made {
            Ok(Ok(connection)) => {
                report(cluster, &self.endpoint, Outcome::Connected);
                return Ok(connection);
            }
            Ok(Err(failure)) => failure,
            Err(_) => {
                count(&cluster.state.totals.upstream_cx_connect_timeout);
                ConnectFailure { kind: ErrorKind::ConnectTimeout, source: None }
            }
        };
        count(&cluster.state.totals.upstream_cx_connect_fail);
        count(&endpoint.cx_connect_fail);
        // Our own missing certificate is not the endpoint's fault.
        let ours = failure
            .source
            .as_ref()
            .and_then(|source| source.downcast_ref::<TlsError>())
            .is_some_and(|error| !matches!(error, TlsError::Handshake(_) | TlsError::Peer(_)));
        if !ours {
            report(cluster, &self.endpoint, Outcome::ConnectFailed);
        }
        Err(failure)
    }

    async fn open(
        &self,
        cluster: &Cluster,
        counted: Counted,
    ) -> Result<Connection, ConnectFailure> {
        let failure =
            |kind| move |error: io::Error| ConnectFailure { kind, source: Some(Arc::new(error)) };
        let remote = self.endpoint.address;
        let stream = open_socket(remote, &cluster.bind_source, cluster.tcp_keepalive)
            .await
            .map_err(failure(ErrorKind::Connect))?;
        let local = stream.local_addr().map_err(failure(ErrorKind::Connect))?;
        let io = Io { tcp: stream, counted };
        let transport = self
            .endpoint
            .transport
            .and_then(|index| cluster.transports.get(index))
            .and_then(|transport| transport.tls.as_ref());
        let Some(settings) = transport else {
            let info = Arc::new(ConnectionInfo { local, remote, peer: None });
            return Ok(Connection { io: UpstreamIo::Plain(io), info });
        };
        let tls_failure = |error: TlsError| ConnectFailure {
            kind: ErrorKind::Tls,
            source: Some(Arc::new(error)),
        };
        let context = self.tls.client(settings).map_err(tls_failure)?;
        let name = server_name(settings, self.server_name.as_deref());
        let (stream, peer) = tls::connect(&context, io, name, settings.offered(self.carries))
            .await
            .map_err(tls_failure)?;
        let info = Arc::new(ConnectionInfo { local, remote, peer: Some(Arc::new(peer)) });
        Ok(Connection { io: UpstreamIo::Tls(Box::new(stream)), info })
    }
}

/// The name for SNI and for the check of the certificate: an authority's without its port.
fn server_name<'a>(settings: &'a UpstreamTls, authority: Option<&'a str>) -> &'a str {
    match authority {
        Some(authority) if settings.auto_sni => {
            let host = match authority.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
                _ => authority,
            };
            host.trim_start_matches('[').trim_end_matches(']')
        }
        _ => &settings.sni,
    }
}

/// Notes what an attempt came to, for outlier detection.
pub fn report(cluster: &Cluster, endpoint: &Endpoint, outcome: Outcome) {
    if let Some(settings) = &cluster.outlier {
        let now_ms = crate::net::clock::now_ms();
        let ejected = crate::net::cluster::outlier::report(
            &cluster.state,
            &cluster.endpoints.all,
            &endpoint.state,
            settings,
            (outcome, now_ms),
        );
        if ejected {
            tracing::info!(
                cluster = %cluster.name, endpoint = %endpoint.address, ?outcome,
                ejections = endpoint.state.outlier.ejections(), "endpoint ejected"
            );
        }
    }
}

async fn open_socket(
    address: SocketAddr,
    sources: &[IpAddr],
    keepalive: Option<cluster::TcpKeepalive>,
) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    if !sources.is_empty() {
        // From any other address a call of a captured application would come back to the proxy.
        let same_family = |source: &&IpAddr| source.is_ipv4() == address.is_ipv4();
        let source = sources.iter().find(same_family).ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.bind(SocketAddr::new(*source, 0))?;
    }
    if let Some(settings) = keepalive {
        SockRef::from(&socket).set_tcp_keepalive(&keepalive_of(settings))?;
    }
    socket.connect(address).await
}

fn keepalive_of(settings: cluster::TcpKeepalive) -> TcpKeepalive {
    let whole = |time: Duration| time.max(Duration::from_secs(1));
    let mut keepalive = TcpKeepalive::new();
    if let Some(time) = settings.time {
        keepalive = keepalive.with_time(whole(time));
    }
    if let Some(interval) = settings.interval {
        keepalive = keepalive.with_interval(whole(interval));
    }
    if let Some(probes) = settings.probes {
        keepalive = keepalive.with_retries(probes.max(1));
    }
    keepalive
}
