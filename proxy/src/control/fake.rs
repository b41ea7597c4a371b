//! A control plane in the process: an authority, and an ADS server whose streams the test holds in its hands.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    KeyPair, SanType, SerialNumber,
};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};
use weft_api::{
    ca::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::{
            IstioCertificateService, IstioCertificateServiceServer,
        },
    },
    xds::envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_server::{
            AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
        },
    },
};

use crate::{settings::Settings, shared::Shared};

pub const IDENTITY: &str = "spiffe://cluster.local/ns/default/sa/order-service";

/// One stream that a client has opened.
pub struct FakeStream {
    pub requests: Streaming<DeltaDiscoveryRequest>,
    pub responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    /// The client's certificate.
    pub certificate: Vec<u8>,
}

impl FakeStream {
    pub async fn request(&mut self) -> DeltaDiscoveryRequest {
        self.requests.message().await.expect("a request").expect("the stream is open")
    }

    /// The next request about a type, others passed over.
    pub async fn request_of(&mut self, kind: super::store::Kind) -> DeltaDiscoveryRequest {
        loop {
            let request = self.request().await;
            if request.type_url == kind.type_url() {
                return request;
            }
        }
    }

    pub async fn respond(&self, response: DeltaDiscoveryResponse) {
        self.responses.send(Ok(response)).await.expect("the stream is open");
    }
}

/// A signing request and its `authorization`.
pub type Asked = (IstioCertificateRequest, Option<String>);

/// What the authority does next.
#[derive(Clone, Debug)]
pub struct Authority {
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
    /// So many requests are refused first.
    pub failures: Arc<AtomicU32>,
    /// Requests that came.
    pub requests: Arc<Mutex<Vec<Asked>>>,
    lifetime: Duration,
    issued: Arc<AtomicU32>,
}

impl Authority {
    pub fn new(lifetime: Duration) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self {
            issuer: Arc::new(issuer),
            failures: Arc::default(),
            requests: Arc::default(),
            lifetime,
            issued: Arc::default(),
        }
    }

    pub fn root(&self) -> String {
        self.issuer.pem()
    }

    /// The chain for a request, as the authority would send it.
    pub fn sign(&self, csr: &str, identity: &str) -> Vec<String> {
        let mut request = CertificateSigningRequestParams::from_pem(csr).unwrap();
        request.params = self.params(identity);
        vec![request.signed_by(&*self.issuer).unwrap().pem(), self.root()]
    }

    fn params(&self, identity: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(identity.try_into().unwrap())];
        params.not_before = time::OffsetDateTime::now_utc() - Duration::from_secs(60);
        params.not_after = time::OffsetDateTime::now_utc() + self.lifetime;
        params.serial_number =
            Some(SerialNumber::from(u64::from(self.issued.fetch_add(1, Ordering::Relaxed) + 1)));
        params
    }

    fn server_config(&self) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["control-plane.test".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &*self.issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.issuer.der().to_vec())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Authority {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let authorization = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .map(ToOwned::to_owned);
        let request = request.into_inner();
        let csr = request.csr.clone();
        self.requests.lock().unwrap().push((request, authorization));
        let refused = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok();
        if refused {
            return Err(Status::unavailable("not now"));
        }
        Ok(Response::new(IstioCertificateResponse { cert_chain: self.sign(&csr, IDENTITY) }))
    }
}

struct Ads {
    streams: mpsc::Sender<FakeStream>,
}

type Responses<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let certificate = request
            .peer_certs()
            .and_then(|certificates| certificates.first().map(|leaf| leaf.to_vec()))
            .ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let (responses, receiver) = mpsc::channel(16);
        let stream = FakeStream { requests: request.into_inner(), responses, certificate };
        self.streams.send(stream).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// The control plane.
pub struct ControlPlane {
    pub authority: Authority,
    pub streams: mpsc::Receiver<FakeStream>,
    address: SocketAddr,
    folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ControlPlane {
    pub async fn start(lifetime: Duration) -> Self {
        let authority = Authority::new(lifetime);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("root.pem"), authority.root()).unwrap();
        std::fs::write(folder.path().join("token"), "the-token\n").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(authority.server_config()));
        let (accepted, incoming) = mpsc::channel(16);
        let (streams, receiver) = mpsc::channel(16);
        let certificates = IstioCertificateServiceServer::new(authority.clone());
        let ads = AggregatedDiscoveryServiceServer::new(Ads { streams });
        let server = Server::builder()
            .add_service(certificates)
            .add_service(ads)
            .serve_with_incoming(ReceiverStream::new(incoming));
        let accept = async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                if let Ok(stream) = acceptor.accept(stream).await
                    && accepted.send(Ok::<_, std::io::Error>(stream)).await.is_err()
                {
                    return;
                }
            }
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                _ = server => {}
                () = accept => {}
            }
        });
        Self { authority, streams: receiver, address, folder, task }
    }

    /// Settings of a proxy that uses this control plane.
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::test();
        let control_plane = &mut settings.control_plane;
        control_plane.host = self.address.ip().to_string();
        control_plane.port = self.address.port();
        control_plane.san = "control-plane.test".to_owned();
        control_plane.root = self.folder.path().join("root.pem");
        control_plane.token_file = self.folder.path().join("token");
        settings
    }

    pub async fn stream(&mut self) -> FakeStream {
        self.streams.recv().await.expect("a stream")
    }
}

/// Waits until the proxy has an identity of at least this generation.
pub async fn identity_generation(shared: &Shared, generation: u64) {
    shared
        .identity_changed
        .clone()
        .wait_for(|now| *now >= generation)
        .await
        .expect("certificates are kept");
}
