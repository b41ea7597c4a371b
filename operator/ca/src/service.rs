//! `istio.v1.auth.IstioCertificateService`: a bearer token and a signing request in, a certificate chain out.
//!
//! The caller's identity is what its token proves, never what its request says. Every refusal is logged with the
//! peer's address and counted.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use weft_api::{
    ca::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::{
            IstioCertificateService, IstioCertificateServiceServer,
        },
    },
    identity::SpiffeId,
};

use crate::{
    authority::{AuthorityStore, SignError},
    metrics::Metrics,
    token::{TokenError, TokenVerifier},
};

/// A request with all that belongs to it is smaller.
const MAX_MESSAGE: usize = 64 << 10;

/// How long certificates live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LifetimePolicy {
    /// When the request does not say.
    pub default: Duration,
    /// Whatever the request says.
    pub max: Duration,
}

impl Default for LifetimePolicy {
    fn default() -> Self {
        Self { default: Duration::from_secs(24 * 3600), max: Duration::from_secs(90 * 24 * 3600) }
    }
}

impl LifetimePolicy {
    fn lifetime(self, requested_seconds: i64) -> Duration {
        match u64::try_from(requested_seconds) {
            Ok(0) | Err(_) => self.default.min(self.max),
            Ok(seconds) => Duration::from_secs(seconds).min(self.max),
        }
    }
}

/// The signing RPC.
pub struct CertificateService<V> {
    authority: Arc<AuthorityStore>,
    verifier: V,
    policy: LifetimePolicy,
    metrics: Metrics,
}

impl<V: TokenVerifier> CertificateService<V> {
    /// Signs with this authority for those whom this verifier knows.
    pub fn new(
        authority: Arc<AuthorityStore>,
        verifier: V,
        policy: LifetimePolicy,
        metrics: Metrics,
    ) -> Self {
        Self { authority, verifier, policy, metrics }
    }

    /// The service to mount, with limits on what peers may send.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    async fn authenticate(
        &self,
        request: &Request<IstioCertificateRequest>,
    ) -> Result<SpiffeId, TokenError> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or(TokenError::Missing)?;
        self.verifier.verify(token).await
    }

    fn refuse_token(&self, peer: Option<SocketAddr>, error: &TokenError) -> Status {
        self.metrics.unauthenticated.inc();
        tracing::warn!(?peer, %error, "certificate refused: who asks is not known");
        if error.is_transient() {
            Status::unavailable(error.to_string())
        } else {
            Status::unauthenticated(error.to_string())
        }
    }

    fn refuse_request(
        &self,
        peer: Option<SocketAddr>,
        identity: &SpiffeId,
        error: &SignError,
    ) -> Status {
        tracing::warn!(?peer, %identity, %error, "certificate refused");
        match error {
            SignError::Csr(_) => {
                self.metrics.malformed.inc();
                Status::invalid_argument(error.to_string())
            }
            SignError::Identity { .. } => {
                self.metrics.identity_mismatches.inc();
                Status::permission_denied(error.to_string())
            }
            SignError::Expired | SignError::Name(_) | SignError::Crypto(_) => {
                self.metrics.failed.inc();
                Status::internal(error.to_string())
            }
        }
    }
}

#[tonic::async_trait]
impl<V: TokenVerifier> IstioCertificateService for CertificateService<V> {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.metrics.requests.inc();
        let peer = request.remote_addr();
        let identity =
            self.authenticate(&request).await.map_err(|error| self.refuse_token(peer, &error))?;
        let request = request.into_inner();
        let lifetime = self.policy.lifetime(request.validity_duration);
        let cert_chain = self
            .authority
            .current()
            .sign_workload(&request.csr, &identity, lifetime, OffsetDateTime::now_utc())
            .map_err(|error| self.refuse_request(peer, &identity, &error))?;
        self.metrics.issued.inc();
        tracing::info!(?peer, %identity, lifetime = lifetime.as_secs(), "certificate issued");
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};
    use tonic::Code;

    use super::*;
    use crate::{
        state::StateDir,
        token::{LocalVerifier, TokenKey},
    };

    struct Test {
        service: CertificateService<LocalVerifier>,
        key: TokenKey,
        _dir: tempfile::TempDir,
    }

    impl Default for Test {
        fn default() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let state = StateDir::open(dir.path()).unwrap();
            let key = TokenKey::load_or_create(&state).unwrap();
            let authority =
                AuthorityStore::open(state, "cluster.local", OffsetDateTime::now_utc()).unwrap();
            let service = CertificateService::new(
                Arc::new(authority),
                LocalVerifier::new(&key, "cluster.local"),
                LifetimePolicy::default(),
                Metrics::default(),
            );
            Self { service, key, _dir: dir }
        }
    }

    impl Test {
        fn token(&self) -> String {
            let lifetime = Duration::from_secs(60);
            self.key.mint("default", "orders", lifetime, OffsetDateTime::now_utc()).unwrap()
        }

        async fn ask(&self, authorization: Option<&str>, csr: &str) -> Result<usize, Code> {
            let mut request = Request::new(IstioCertificateRequest {
                csr: csr.into(),
                ..IstioCertificateRequest::default()
            });
            if let Some(value) = authorization {
                request.metadata_mut().insert("authorization", value.parse().unwrap());
            }
            let response = self.service.create_certificate(request).await;
            response.map(|r| r.into_inner().cert_chain.len()).map_err(|status| status.code())
        }

        fn counts(&self) -> [u64; 5] {
            let metrics = &self.service.metrics;
            [
                metrics.requests.get(),
                metrics.issued.get(),
                metrics.unauthenticated.get(),
                metrics.identity_mismatches.get(),
                metrics.malformed.get(),
            ]
        }
    }

    fn csr(uri: &str) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[tokio::test]
    async fn each_request_is_answered_by_what_its_token_proves() {
        let test = Test::default();
        let own = csr("spiffe://cluster.local/ns/default/sa/orders");
        let bearer = format!("Bearer {}", test.token());
        let foreign = format!("Bearer {}", Test::default().token());
        let basic = bearer.replace("Bearer", "Basic");
        let lower = bearer.replace("Bearer", "bearer");
        for (name, authorization, csr, expected) in [
            ("good", Some(&bearer), own.clone(), Ok(2)),
            ("scheme in lower case", Some(&lower), own.clone(), Ok(2)),
            ("no token", None, own.clone(), Err(Code::Unauthenticated)),
            ("another scheme", Some(&basic), own.clone(), Err(Code::Unauthenticated)),
            ("foreign token", Some(&foreign), own.clone(), Err(Code::Unauthenticated)),
            (
                "other identity",
                Some(&bearer),
                csr("spiffe://cluster.local/ns/default/sa/payments"),
                Err(Code::PermissionDenied),
            ),
            ("garbage", Some(&bearer), "garbage".into(), Err(Code::InvalidArgument)),
        ] {
            assert_eq!(test.ask(authorization.map(String::as_str), &csr).await, expected, "{name}");
        }
        assert_eq!(test.counts(), [7, 2, 3, 1, 1]);
    }

    #[test]
    fn a_lifetime_is_what_was_asked_for_within_the_limit() {
        let policy =
            LifetimePolicy { default: Duration::from_secs(100), max: Duration::from_secs(300) };
        for (asked, seconds) in [(0, 100), (-5, 100), (2, 2), (300, 300), (i64::MAX, 300)] {
            assert_eq!(policy.lifetime(asked), Duration::from_secs(seconds), "{asked}");
        }
    }
}
