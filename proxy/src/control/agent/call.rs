//! Calls to the pod's own application, past the packet rules that would send them to the proxy again.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

use crate::capture::address;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody answers.
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// The TLS handshake.
    #[error("TLS handshake")]
    Tls(#[source] io::Error),
    /// The TLS settings.
    #[error("TLS settings")]
    TlsSettings(#[from] rustls::Error),
    /// The exchange.
    #[error("HTTP")]
    Http(#[from] hyper::Error),
    /// The answer is too long.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pod: IpAddr,
    captured: bool,
}

impl Caller {
    /// For the pod with this address.
    pub fn new(pod: IpAddr, captured: bool) -> Self {
        Self { pod, captured }
    }

    /// The pod's address.
    pub fn pod(&self) -> IpAddr {
        self.pod
    }

    /// Opens a connection to a port of the pod.
    pub async fn connect(&self, to: SocketAddr) -> Result<TcpStream, CallError> {
        self.open(to).await.map_err(|error| CallError::Connect(to, error))
    }

    async fn open(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // From the address that the packet rules leave alone; the loopback address they leave alone anyway.
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if self.captured && !loopback.contains(&to.ip()) {
            let source = match to {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
                SocketAddr::V6(_) => IpAddr::V6(address::SOURCE),
            };
            socket.bind(SocketAddr::new(source, 0))?;
        }
        socket.connect(to).await
    }

    /// Sends a request by HTTP/1.1 and waits for the head of the answer.
    pub async fn http1(
        &self,
        to: SocketAddr,
        tls: bool,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CallError> {
        let stream = self.connect(to).await?;
        if tls {
            send1(encrypt(stream, to).await?, request).await
        } else {
            send1(stream, request).await
        }
    }

    /// Sends a request by HTTP/2 with prior knowledge.
    pub async fn http2(
        &self,
        to: SocketAddr,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CallError> {
        let io = TokioIo::new(self.connect(to).await?);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::task::spawn_local(connection);
        Ok(sender.send_request(request).await?)
    }
}

async fn send1(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, CallError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer's body, or when the answer is dropped.
    tokio::task::spawn_local(connection);
    Ok(sender.send_request(request).await?)
}

/// As the kubelet does: whatever certificate the application shows.
async fn encrypt(
    stream: TcpStream,
    to: SocketAddr,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, CallError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = ServerName::from(to.ip());
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(CallError::Tls)
}

/// Takes any certificate: probes ask whether somebody is there, not who.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let supported = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, supported)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let supported = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, supported)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
