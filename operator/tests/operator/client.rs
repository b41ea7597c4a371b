//! An operator on free ports, and the peers that tests are.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use clap::Parser;
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use weft_api::{
    ca::{
        IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
    },
    xds::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use weft_ca::{
    state::{CA_CERT, CA_KEY, ROOT_CERT, StateDir},
    token::TokenKey,
};
use weft_operator::{Operator, Settings, settings::Source};

/// Nothing in these tests takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Test {
    operator: Operator,
    shutdown: CancellationToken,
    home: tempfile::TempDir,
}

/// A certificate with its key.
pub struct Identity {
    pub chain: Vec<String>,
    pub key: String,
}

pub fn csr(key: &KeyPair, uri: &str) -> String {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.serialize_request(key).unwrap().pem().unwrap()
}

/// Waits until it is so.
pub async fn until(mut so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("it should have become so");
}

impl Test {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl Fn(&mut Settings)) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("mesh")).unwrap();
        Self::start_in(home, change).await.unwrap()
    }

    async fn start_in(
        home: tempfile::TempDir,
        change: impl Fn(&mut Settings),
    ) -> anyhow::Result<Self> {
        let mut settings =
            Settings::parse_from(["weft-operator", "--source", "dir:x", "--state-dir", "x"]);
        settings.source = Source::Dir(home.path().join("mesh"));
        settings.state_dir = Some(home.path().join("state"));
        settings.listen = "127.0.0.1:0".parse()?;
        settings.admin = "127.0.0.1:0".parse()?;
        change(&mut settings);
        let shutdown = CancellationToken::new();
        let operator = Operator::start(settings, shutdown.clone()).await?;
        Ok(Self { operator, shutdown, home })
    }

    /// Why an operator with such settings does not start.
    pub async fn refused(change: impl Fn(&mut Settings)) -> String {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("mesh")).unwrap();
        match Self::start_in(home, change).await {
            Ok(_) => "it started".into(),
            Err(error) => format!("{error:#}"),
        }
    }

    async fn end(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        timeout(PATIENCE, self.operator.wait()).await.expect("it should stop").unwrap();
        self.home
    }

    pub async fn stop(self) {
        self.end().await;
    }

    pub async fn restart(self) -> Self {
        let home = self.end().await;
        Self::start_in(home, |_| {}).await.unwrap()
    }

    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    pub fn folder(&self) -> PathBuf {
        self.home.path().join("mesh")
    }

    fn state(&self) -> StateDir {
        StateDir::open(self.home.path().join("state")).unwrap()
    }

    pub fn write(&self, file: &str, text: &str) {
        let draft = self.home.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.folder().join(file)).unwrap();
    }

    pub fn token(&self, namespace: &str, account: &str) -> String {
        weft_ca::token::mint(&self.state(), namespace, account, PATIENCE).unwrap()
    }

    pub fn expired_token(&self, namespace: &str, account: &str) -> String {
        let key = TokenKey::load_or_create(&self.state()).unwrap();
        let past = OffsetDateTime::now_utc() - Duration::from_secs(3600);
        key.mint(namespace, account, PATIENCE, past).unwrap()
    }

    fn root(&self) -> String {
        self.state().read(ROOT_CERT).unwrap().unwrap()
    }

    pub async fn channel(
        &self,
        identity: Option<&Identity>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.root()))
            .domain_name("localhost");
        if let Some(identity) = identity {
            let chain = identity.chain.concat();
            tls = tls.identity(tonic::transport::Identity::from_pem(chain, &identity.key));
        }
        let url = format!("https://{}", self.operator.address());
        Endpoint::from_shared(url)?.tls_config(tls)?.connect().await
    }

    pub async fn ads(
        &self,
        identity: Option<&Identity>,
    ) -> AggregatedDiscoveryServiceClient<Channel> {
        AggregatedDiscoveryServiceClient::new(self.channel(identity).await.unwrap())
    }

    pub async fn sign(&self, token: &str, csr: &str) -> Result<Vec<String>, Status> {
        let channel = self.channel(None).await.unwrap();
        let mut request = Request::new(IstioCertificateRequest {
            csr: csr.into(),
            ..IstioCertificateRequest::default()
        });
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        let mut client = IstioCertificateServiceClient::new(channel);
        Ok(client.create_certificate(request).await?.into_inner().cert_chain)
    }

    pub async fn identity(&self, namespace: &str, account: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let csr = csr(&key, &format!("spiffe://cluster.local/ns/{namespace}/sa/{account}"));
        let chain = self.sign(&self.token(namespace, account), &csr).await.unwrap();
        Identity { chain, key: key.serialize_pem() }
    }

    /// A certificate that the mesh's root signed and its authority never would.
    pub fn signed_by_root(&self, names: impl FnOnce(&mut CertificateParams)) -> Identity {
        let read = |file| self.state().read(file).unwrap().unwrap();
        let key = KeyPair::from_pem(&read(CA_KEY)).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read(CA_CERT), key).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        names(&mut params);
        let leaf = params.signed_by(&key, &issuer).unwrap();
        Identity { chain: vec![leaf.pem()], key: key.serialize_pem() }
    }

    /// A TLS connection that the operator keeps: protocol version, key exchange and ALPN. In TLS 1.3 a client only
    /// learns from the first read that its certificate was refused.
    pub async fn handshake(
        &self,
        identity: Option<&Identity>,
    ) -> anyhow::Result<(String, String, Option<Vec<u8>>)> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.root().as_bytes())?)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.chain.concat().as_bytes())
                    .collect::<Result<Vec<_>, _>>()?;
                let key = PrivatePkcs8KeyDer::from_pem_slice(identity.key.as_bytes())?;
                builder.with_client_auth_cert(chain, key.into())?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.operator.address()).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect("localhost".try_into()?, stream).await?;
        // The server's HTTP/2 settings, or an alert.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        let mut settings = [0; 9];
        timeout(PATIENCE, stream.read_exact(&mut settings)).await??;
        let connection = stream.get_ref().1;
        let version = format!("{:?}", connection.protocol_version().unwrap());
        let group = format!("{:?}", connection.negotiated_key_exchange_group().unwrap().name());
        Ok((version, group, connection.alpn_protocol().map(<[u8]>::to_vec)))
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.operator.admin()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub async fn text(&self, path: &str) -> String {
        let (status, body) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn json(&self, path: &str) -> Value {
        let text = self.text(path).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// The answer as soon as it is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let wait = async {
            loop {
                last = self.json(path).await;
                if wanted(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(PATIENCE, wait).await.is_ok(), "{path}: {last}");
        last
    }
}
