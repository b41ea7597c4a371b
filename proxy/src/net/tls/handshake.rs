//! Handshakes, with a time limit, and what they say of the peer.

use std::{cell::Cell, fmt, future::poll_fn, net::IpAddr, sync::Arc, time::Duration};

use rustls::{
    CommonState, HandshakeKind,
    client::UnbufferedClientConnection,
    server::{ClientHello, ResolvesServerCert, UnbufferedServerConnection},
    sign::CertifiedKey,
};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    PeerError, PeerInfo, TlsError,
    configs::{ClientTls, ServerTls},
    stream::{ClientStream, ServerStream, TlsStream},
    verify::examine,
};

thread_local! {
    /// What the client whose handshake is polled asks for.
    static ASKED: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// Tells the server name, which a connection without buffers keeps to itself: it asks for a certificate while it is polled.
pub(super) struct Noting<R>(pub(super) R);

impl<R> fmt::Debug for Noting<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Noting")
    }
}

impl<R: ResolvesServerCert> ResolvesServerCert for Noting<R> {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED.set(hello.server_name().map(Into::into));
        self.0.resolve(hello)
    }
}

/// Accepts a TLS connection.
///
/// # Errors
/// The handshake failed or took too long, or the client's certificate is not acceptable.
pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(
    tls: &ServerTls,
    io: IO,
    limit: Duration,
) -> Result<(ServerStream<IO>, PeerInfo), TlsError> {
    let connection =
        UnbufferedServerConnection::new(tls.config.clone()).map_err(TlsError::Settings)?;
    let mut stream = TlsStream::new(io, connection);
    let mut asked = None;
    let handshake = poll_fn(|cx| {
        ASKED.set(None);
        let polled = stream.poll_handshake(cx);
        asked = ASKED.take().or(asked.take());
        polled
    });
    timeout(limit, handshake)
        .await
        .map_err(|_| TlsError::TimedOut)?
        .map_err(TlsError::Handshake)?;
    let (_, connection) = stream.get_ref();
    let mut peer = match (tls.asks, connection.peer_certificates()) {
        (true, chain) if chain.is_some() || tls.requires => {
            let mut peer = examine(chain, &tls.names, UnixTime::now()).map_err(TlsError::Peer)?;
            peer.verified = true;
            peer
        }
        _ => PeerInfo::default(),
    };
    fill(&mut peer, connection);
    peer.local_identity.clone_from(&tls.local_identity);
    peer.server_name = asked;
    Ok((stream, peer))
}

/// Opens a TLS connection. `server_name` goes into SNI where the settings send one; an empty one stands for an unknown
/// name, and `alpn` is offered. The time limit is the caller's.
///
/// # Errors
/// The handshake failed, or the server's certificate is not acceptable.
pub async fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
    tls: &ClientTls,
    io: IO,
    server_name: &str,
    alpn: Vec<Vec<u8>>,
) -> Result<(ClientStream<IO>, PeerInfo), TlsError> {
    let name = ServerName::try_from(server_name.to_owned())
        .unwrap_or(ServerName::IpAddress(IpAddr::from([0, 0, 0, 0]).into()));
    let connection = UnbufferedClientConnection::new_with_alpn(tls.config.clone(), name, alpn)
        .map_err(TlsError::Settings)?;
    let mut stream = TlsStream::new(io, connection);
    poll_fn(|cx| stream.poll_handshake(cx)).await.map_err(TlsError::Handshake)?;
    let (_, connection) = stream.get_ref();
    let mut peer = if tls.verifies {
        examine(connection.peer_certificates(), &tls.names, UnixTime::now())
            .map_err(TlsError::Peer)?
    } else {
        PeerInfo::default()
    };
    peer.verified = tls.verifies;
    fill(&mut peer, connection);
    peer.local_identity.clone_from(&tls.local_identity);
    peer.server_name = Some(server_name.into()).filter(|_| !server_name.is_empty());
    Ok((stream, peer))
}

fn fill(peer: &mut PeerInfo, connection: &CommonState) {
    peer.alpn = connection.alpn_protocol().map(Into::into);
    peer.resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
}

/// What the peer's refusal was about, where the cause is in a handshake error.
pub fn peer_error(error: &TlsError) -> Option<&PeerError> {
    match error {
        TlsError::Peer(error) => Some(error),
        TlsError::Handshake(error) => match error.get_ref()?.downcast_ref::<rustls::Error>()? {
            rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
                other.0.downcast_ref()
            }
            _ => None,
        },
        _ => None,
    }
}
