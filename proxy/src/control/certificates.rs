//! The workload's certificate: asked for with a key that never leaves the process, renewed at half of its life.
//!
//! A failed renewal leaves the valid certificate in place and is tried again. Publishes to `Shared::identity`.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwapOption;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use tokio::sync::watch;
use tonic::{Request, metadata::MetadataValue};
use weft_api::{
    ca::{
        IstioCertificateRequest, istio_certificate_service_client::IstioCertificateServiceClient,
    },
    identity::{SpiffeId, SpiffeIdError},
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::{
    backoff::Backoff,
    connect::{ConnectError, Connector},
};
use crate::{identity::Identity, settings::Settings};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The token cannot be read.
    #[error("cannot read the token file")]
    Token(#[source] std::io::Error),
    /// The token cannot stand in a header.
    #[error("the token file holds no token")]
    TokenContent,
    /// The control plane cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The key or the request cannot be made.
    #[error("cannot make a signing request")]
    Request(#[from] rcgen::Error),
    /// The authority refuses.
    #[error("the authority refuses: {}", .0.message())]
    Refused(#[source] Box<tonic::Status>),
    /// What the authority sent is not a usable chain.
    #[error("the authority's answer is not usable: {0}")]
    Answer(&'static str),
    /// The certificate's name is not a workload's.
    #[error("the certificate names no workload")]
    Name(#[from] SpiffeIdError),
    /// The certificate is somebody else's.
    #[error("the certificate is for {0}, not for this workload")]
    Identity(SpiffeId),
}

/// Asks for certificates and publishes them.
#[derive(Debug)]
pub struct Certificates {
    connector: Connector,
    settings: Arc<Settings>,
    identity: Arc<ArcSwapOption<Identity>>,
    changed: watch::Sender<u64>,
}

impl Certificates {
    /// Publishes to `identity` and announces its generation.
    pub fn new(
        settings: Arc<Settings>,
        identity: Arc<ArcSwapOption<Identity>>,
        changed: watch::Sender<u64>,
    ) -> Self {
        Self {
            connector: Connector::new(settings.control_plane.clone()),
            settings,
            identity,
            changed,
        }
    }

    /// Keeps the identity valid, for ever.
    pub async fn run(self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let mut generation = 0;
        loop {
            let wait = match self.issue(generation + 1).await {
                Ok(identity) => {
                    generation = identity.generation;
                    backoff.reset();
                    let lifetime =
                        identity.not_after.duration_since(SystemTime::now()).unwrap_or_default();
                    backoff.limit(LONGEST_RETRY.min(lifetime / 10));
                    tracing::info!(id = %identity.id, generation, lifetime = lifetime.as_secs(), "certificate received");
                    self.identity.store(Some(Arc::new(identity)));
                    self.changed.send_replace(generation);
                    lifetime.mul_f64(0.45 + fastrand::f64() / 10.0).max(FIRST_RETRY)
                }
                Err(error) => {
                    let wait = backoff.wait();
                    tracing::warn!(error = %with_causes(&error), wait_ms = wait.as_millis(), "no certificate");
                    wait
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Makes a key and has it certified.
    async fn issue(&self, generation: u64) -> Result<Identity, CertificateError> {
        let token = std::fs::read_to_string(&self.settings.control_plane.token_file)
            .map_err(CertificateError::Token)?;
        let token = token.trim();
        let authorization: MetadataValue<_> =
            format!("Bearer {token}").parse().map_err(|_| CertificateError::TokenContent)?;
        if token.is_empty() {
            return Err(CertificateError::TokenContent);
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // The authority writes the identity that the token proves; nothing is asked for.
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key)?.pem()?;
        let validity = self.settings.certificate_ttl.as_secs();
        let mut request = Request::new(IstioCertificateRequest {
            csr,
            validity_duration: i64::try_from(validity).unwrap_or(i64::MAX),
            metadata: None,
        });
        request.set_timeout(REQUEST_TIMEOUT);
        request.metadata_mut().insert("authorization", authorization);
        let channel = self.connector.connect(None).await?;
        let response = IstioCertificateServiceClient::new(channel)
            .create_certificate(request)
            .await
            .map_err(|status| CertificateError::Refused(Box::new(status)))?
            .into_inner();
        let identity = identity(generation, &key, &response.cert_chain)?;
        let settings = &self.settings;
        if *identity.id.namespace != *settings.namespace
            || *identity.id.service_account != *settings.service_account
        {
            return Err(CertificateError::Identity(identity.id));
        }
        Ok(identity)
    }
}

/// Reads the authority's chain: the leaf, intermediates, and the trust bundle at the end.
fn identity(
    generation: u64,
    key: &KeyPair,
    chain: &[String],
) -> Result<Identity, CertificateError> {
    let Some((bundle, path)) = chain.split_last() else {
        return Err(CertificateError::Answer("no certificates"));
    };
    let parse = |pem: &String| {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| CertificateError::Answer("not PEM"))
    };
    let roots = parse(bundle)?;
    let mut certificates = Vec::new();
    for pem in path {
        certificates.extend(parse(pem)?);
    }
    let leaf_der =
        certificates.first().ok_or(CertificateError::Answer("no leaf beside the roots"))?;
    if roots.is_empty() {
        return Err(CertificateError::Answer("no roots"));
    }
    let leaf_der = leaf_der.clone();
    let (_, leaf) = X509Certificate::from_der(&leaf_der)
        .map_err(|_| CertificateError::Answer("the leaf is not a certificate"))?;
    if leaf.public_key().subject_public_key.as_ref() != key.public_key_raw() {
        return Err(CertificateError::Answer("the leaf has another key"));
    }
    let not_after = time(leaf.validity().not_after.timestamp());
    if not_after <= SystemTime::now() {
        return Err(CertificateError::Answer("the leaf has expired"));
    }
    Ok(Identity {
        generation,
        id: spiffe_id(&leaf)?,
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        serial: leaf
            .raw_serial()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
            .into(),
        not_before: time(leaf.validity().not_before.timestamp()),
        not_after,
        chain: certificates,
        roots,
    })
}

fn time(timestamp: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or_default())
}

/// The one URI SAN.
fn spiffe_id(leaf: &X509Certificate<'_>) -> Result<SpiffeId, CertificateError> {
    let names = leaf
        .subject_alternative_name()
        .ok()
        .flatten()
        .ok_or(CertificateError::Answer("the leaf has no subject alternative name"))?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri.parse()?),
        _ => Err(CertificateError::Answer("the leaf has not exactly one URI")),
    }
}

/// An error with its causes, on one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
