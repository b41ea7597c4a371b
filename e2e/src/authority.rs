//! The certificate authority and the configuration stream as a client sees them, without a proxy.

use std::{net::SocketAddr, path::Path};

use anyhow::Context;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SanType, string::Ia5String};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use weft_api::ca::{
    IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
};

/// A key and the chain that the authority gave for it, PEM.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The private key.
    pub key: String,
    /// The leaf, then the intermediates and the root.
    pub chain: Vec<String>,
}

impl Credentials {
    /// The leaf and its intermediates in one text, and the root.
    pub fn split(&self) -> (String, String) {
        let (root, leaf) = self.chain.split_last().map_or(("", &[][..]), |(r, l)| (r.as_str(), l));
        (leaf.concat(), root.to_owned())
    }
}

/// A signing request, PEM, and its key. Each name becomes a URI.
///
/// # Errors
/// When a name is not ASCII.
pub fn signing_request(uris: &[&str]) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    for uri in uris {
        params.subject_alt_names.push(SanType::URI(Ia5String::try_from(*uri)?));
    }
    let request = params.serialize_request(&key)?.pem()?;
    Ok((request, key.serialize_pem()))
}

/// A channel to the operator; with credentials it is mutual TLS.
///
/// # Errors
/// When the root cannot be read or the handshake fails.
pub async fn channel(
    operator: SocketAddr,
    state: &Path,
    credentials: Option<&Credentials>,
) -> anyhow::Result<Channel> {
    let root = std::fs::read_to_string(state.join("root-cert.pem")).context("root-cert.pem")?;
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root)).domain_name("localhost");
    if let Some(credentials) = credentials {
        tls = tls.identity(Identity::from_pem(credentials.chain.concat(), &credentials.key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{operator}"))?.tls_config(tls)?;
    endpoint.connect().await.context("the operator does not accept the connection")
}

/// `CreateCertificate` with this token.
///
/// # Errors
/// The authority's refusal.
pub async fn sign(
    channel: Channel,
    token: &str,
    csr: String,
    ttl_seconds: i64,
) -> Result<Vec<String>, Status> {
    let message = IstioCertificateRequest { csr, validity_duration: ttl_seconds, metadata: None };
    let mut request = Request::new(message);
    let bearer = MetadataValue::try_from(format!("Bearer {}", token.trim()));
    let bearer = bearer.map_err(|_| Status::invalid_argument("the token is not ASCII"))?;
    request.metadata_mut().insert("authorization", bearer);
    let mut client = IstioCertificateServiceClient::new(channel);
    Ok(client.create_certificate(request).await?.into_inner().cert_chain)
}

/// Gets a certificate as a proxy does.
///
/// # Errors
/// When anything on the way fails.
pub async fn credentials(
    operator: SocketAddr,
    state: &Path,
    token_file: &Path,
    identity: &str,
) -> anyhow::Result<Credentials> {
    let token = std::fs::read_to_string(token_file).context("token")?;
    let (csr, key) = signing_request(&[identity])?;
    let channel = channel(operator, state, None).await?;
    let chain = sign(channel, &token, csr, 86_400).await?;
    Ok(Credentials { key, chain })
}
