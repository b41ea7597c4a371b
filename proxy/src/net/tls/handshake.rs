//! Handshakes, with a time limit, and what they say of the peer.

use std::{net::IpAddr, time::Duration};

use rustls::{CommonState, HandshakeKind};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::{
    PeerError, PeerInfo, TlsError,
    configs::{ClientTls, ServerTls},
    verify::examine,
};

/// Accepts a TLS connection.
///
/// # Errors
/// The handshake failed or took too long, or the client's certificate is not acceptable.
pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(
    tls: &ServerTls,
    io: IO,
    limit: Duration,
) -> Result<(server::TlsStream<IO>, PeerInfo), TlsError> {
    let stream = timeout(limit, TlsAcceptor::from(tls.config.clone()).accept(io))
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
    peer.server_name = connection.server_name().map(Into::into);
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
) -> Result<(client::TlsStream<IO>, PeerInfo), TlsError> {
    let name = ServerName::try_from(server_name.to_owned())
        .unwrap_or(ServerName::IpAddress(IpAddr::from([0, 0, 0, 0]).into()));
    let stream = TlsConnector::from(tls.config.clone())
        .with_alpn(alpn)
        .connect(name, io)
        .await
        .map_err(TlsError::Handshake)?;
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
