//! The bench's own clients: for what the known load generators do not do.
//!
//! A probe that waits until a chain of proxies serves; connections that are opened and closed all the time; connections
//! that are held open. All of them check what they get.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::FuturesUnordered};
use http::Request;
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections that are opened at the same time.
const OPENING: usize = 16;

/// What is spoken with the first proxy of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS.
    Http2,
    /// HTTP/1.1 over mutual TLS.
    Http1Tls,
}

/// What a client of its own is told.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where to.
    pub address: SocketAddr,
    /// The folder of the certificates, for TLS.
    pub certificates: Option<PathBuf>,
    /// TLS sessions are resumed.
    pub resume: bool,
}

/// What became of connections that were opened and closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Churned {
    /// Connections with an answer.
    pub connections: u64,
    /// Of these, connections whose handshake resumed a session.
    pub resumed: u64,
    /// Connections without.
    pub failed: u64,
    /// How long it took.
    pub seconds: f64,
    /// Half of the exchanges took less, in milliseconds: from connecting to the end of the answer.
    pub p50: f64,
    /// 99 of 100 took less.
    pub p99: f64,
}

trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

type Connected = Pin<Box<dyn Wire>>;

/// Opens connections to one place.
#[derive(Clone)]
struct Opener {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

impl Opener {
    fn new(target: &Target) -> anyhow::Result<Self> {
        let tls = target.certificates.as_deref();
        let tls = tls.map(|folder| tls_config(folder, target.resume)).transpose()?;
        Ok(Self {
            address: target.address,
            tls: tls.map(|config| TlsConnector::from(Arc::new(config))),
        })
    }

    /// From one of many addresses, so that ports do not run out.
    async fn open(&self, number: usize) -> anyhow::Result<Connected> {
        Ok(self.open_and_tell(number).await?.0)
    }

    /// Says as well whether a TLS session was resumed.
    async fn open_and_tell(&self, number: usize) -> anyhow::Result<(Connected, bool)> {
        let socket = TcpSocket::new_v4()?;
        let from = Ipv4Addr::new(127, 77, 1, (number % 200) as u8 + 1);
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((from, 0)))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok((Box::pin(stream), false)) };
        let name = ServerName::try_from("server.bench").context("name")?;
        let stream = tls.connect(name, stream).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((Box::pin(stream), resumed))
    }
}

/// One exchange over a connection that ends with it; whether a TLS session was resumed.
async fn once(opener: &Opener, number: usize) -> anyhow::Result<bool> {
    let (mut stream, resumed) = opener.open_and_tell(number).await?;
    stream.write_all(b"GET /1024 HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::with_capacity(2048);
    // A peer that closes without TLS's farewell has still answered.
    if let Err(error) = stream.read_to_end(&mut answer).await {
        ensure!(error.kind() == std::io::ErrorKind::UnexpectedEof, "{error}");
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    ensure!(answer.ends_with(&[b'x'; 1024]), "the answer is cut short");
    Ok(resumed)
}

/// Opens a connection for every request, `parallel` at a time, for some time.
///
/// # Errors
/// When no connection could be used.
pub async fn churn(target: &Target, parallel: usize, time: Duration) -> anyhow::Result<Churned> {
    let opener = Opener::new(target)?;
    let begin = Instant::now();
    let worker = async |number: usize| {
        let (mut times, mut resumed, mut failed, mut last) = (Vec::new(), 0, 0, None);
        while begin.elapsed() < time {
            let start = Instant::now();
            let turn = number + parallel * times.len();
            match tokio::time::timeout(PATIENCE, once(&opener, turn)).await {
                Ok(Ok(again)) => {
                    times.push(start.elapsed().as_secs_f64() * 1e3);
                    resumed += u64::from(again);
                }
                Ok(Err(error)) => (failed, last) = (failed + 1, Some(error)),
                Err(late) => (failed, last) = (failed + 1, Some(late.into())),
            }
        }
        (times, resumed, failed, last)
    };
    let (mut times, mut churned, mut last) = (Vec::new(), Churned::default(), None);
    let mut workers: FuturesUnordered<_> = (0..parallel).map(worker).collect();
    while let Some((some, resumed, failed, error)) = workers.next().await {
        times.extend(some);
        churned.failed += failed;
        churned.resumed += resumed;
        last = error.or(last);
    }
    if times.is_empty() {
        return Err(last.context("no connection was made")?);
    }
    times.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    churned.connections = times.len() as u64;
    churned.seconds = begin.elapsed().as_secs_f64();
    (churned.p50, churned.p99) = (quantile(0.5), quantile(0.99));
    Ok(churned)
}

/// Opens connections, sends one request over each, and calls `ready`; then holds them until it is killed.
///
/// # Errors
/// When one of them fails.
pub async fn hold(target: &Target, count: usize, ready: impl FnOnce()) -> anyhow::Result<()> {
    let opener = Opener::new(target)?;
    let worker = async |number: usize| {
        let mut held = Vec::new();
        for turn in (number..count).step_by(OPENING) {
            let mut stream = opener.open(turn).await?;
            stream.write_all(b"GET /0 HTTP/1.1\r\nhost: bench\r\n\r\n").await?;
            answer_head(&mut stream).await?;
            held.push(stream);
        }
        anyhow::Ok(held)
    };
    let workers: FuturesUnordered<_> = (0..OPENING).map(worker).collect();
    let mut held: Vec<_> = workers.try_concat().await?;
    ready();
    // Nothing more is said on a connection that is idle: whatever can be read is its end.
    let ends = held.iter_mut().map(async |stream| stream.read_u8().await.map_err(drop));
    let _ = ends.collect::<FuturesUnordered<_>>().next().await;
    bail!("a connection that should be held has ended")
}

/// Reads an answer without a body.
async fn answer_head(stream: &mut Connected) -> anyhow::Result<()> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        ensure!(stream.read_buf(&mut answer).await? > 0, "closed");
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Waits until a chain of proxies answers, and says what it last said when it does not; `look` is called between tries.
///
/// # Errors
/// When it does not answer in time, or `look` fails.
pub async fn until_served(
    target: &Target,
    speech: Speech,
    patience: Duration,
    mut look: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let opener = Opener::new(target)?;
    let end = Instant::now() + patience;
    loop {
        look()?;
        let attempt = async {
            match speech {
                Speech::Http1 | Speech::Http1Tls => requests_http1(&opener, 1).await,
                Speech::Http2 => requests_http2(target.address, 1).await,
            }
        };
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.min(Duration::from_secs(1)), attempt).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if left.is_zero() => return Err(error.context("it does not serve")),
            Err(_) if left.is_zero() => bail!("it does not answer"),
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

/// Requests one after the other over one connection: the same work each time.
///
/// # Errors
/// When one of them is not answered rightly.
pub async fn exchange(address: SocketAddr, speech: Speech, count: usize) -> anyhow::Result<()> {
    if speech == Speech::Http2 {
        return requests_http2(address, count).await;
    }
    let opener = Opener::new(&Target { address, certificates: None, resume: false })?;
    requests_http1(&opener, count).await
}

async fn requests_http1(opener: &Opener, count: usize) -> anyhow::Result<()> {
    let mut stream = opener.open(0).await?;
    let mut answer = Vec::with_capacity(4096);
    for _ in 0..count {
        let head = b"GET /1024 HTTP/1.1\r\nhost: bench\r\nuser-agent: bench\r\naccept: */*\r\n\r\n";
        stream.write_all(head).await?;
        answer.clear();
        while !answer.ends_with(&[b'x'; 1024]) {
            if stream.read_buf(&mut answer).await? == 0 {
                bail!("closed after {:?}", String::from_utf8_lossy(&answer));
            }
        }
        ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

async fn requests_http2(address: SocketAddr, count: usize) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut send, connection) = h2::client::handshake(stream).await?;
    let requests = async {
        for _ in 0..count {
            let request = Request::get(format!("http://{address}/1024")).body(())?;
            send = send.ready().await?;
            let (response, _) = send.send_request(request, true)?;
            let response = response.await?;
            ensure!(response.status().is_success(), "{}", response.status());
            let mut body = response.into_body();
            let mut length = 0;
            while let Some(data) = body.data().await {
                let data: Bytes = data?;
                body.flow_control().release_capacity(data.len())?;
                length += data.len();
            }
            ensure!(length == 1024, "{length} bytes instead of 1024");
        }
        Ok(())
    };
    tokio::select! {
        outcome = requests => outcome,
        outcome = connection => {
            Err(outcome.err().map_or_else(|| anyhow::anyhow!("closed"), anyhow::Error::from))
        }
    }
}

/// With the client's identity; the server is not checked, since checking costs the proxies nothing.
fn tls_config(folder: &Path, resume: bool) -> anyhow::Result<ClientConfig> {
    // One key exchange that every peer knows, so that nobody pays for a second try.
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let provider = Arc::new(provider);
    let chain = CertificateDer::pem_file_iter(folder.join("client.pem"))?;
    let chain = chain.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("client.key"))?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(RootCertStore::empty())
        .with_client_auth_cert(chain, key)?;
    config.dangerous().set_certificate_verifier(Arc::new(Anyone(provider)));
    if !resume {
        config.resumption = Resumption::disabled();
    }
    Ok(config)
}

/// Takes any certificate: the clients are loopback's only, and what they cost is not measured.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
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
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
