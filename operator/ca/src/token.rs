//! Bearer tokens: who a workload is before it has a certificate.
//!
//! [`TokenVerifier`] is the seam. Without Kubernetes, tokens are JWTs that a key of the state folder signs
//! ([`TokenKey`], `weft token`), in the form of Kubernetes' service-account tokens: subject
//! `system:serviceaccount:<namespace>:<service account>`, audience `istio-ca`. Only ES256 is accepted, whatever a
//! token's header says.

use std::time::Duration;

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, errors::ErrorKind,
};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use weft_api::{ca::TOKEN_AUDIENCE, identity::SpiffeId};

use crate::state::{Secrecy, StateDir, StateError, TOKEN_KEY};

/// The issuer of tokens that a state folder's key signs.
pub const TOKEN_ISSUER: &str = "weft-operator";
/// The largest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 8 << 10;

const SUBJECT_PREFIX: &str = "system:serviceaccount:";

/// Why a token says nothing about its bearer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// There is none.
    #[error("no bearer token")]
    Missing,
    /// Not a JWT, or one without the claims that it must have.
    #[error("the token is malformed")]
    Malformed,
    /// Signed in another way than with ES256.
    #[error("the token's algorithm is not ES256")]
    Algorithm,
    /// Signed by somebody else.
    #[error("the token's signature is not ours")]
    Signature,
    /// No longer valid.
    #[error("the token has expired")]
    Expired,
    /// Not yet valid.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Meant for another service.
    #[error("the token's audience is not {TOKEN_AUDIENCE:?}")]
    Audience,
    /// Issued by somebody else.
    #[error("the token's issuer is not {TOKEN_ISSUER:?}")]
    Issuer,
    /// The subject is not a service account.
    #[error("the token's subject {0:?} is not system:serviceaccount:NAMESPACE:NAME")]
    Subject(String),
    /// Whoever issued it says that it is not good.
    #[error("the token is refused: {0}")]
    Refused(String),
    /// It is nobody's in particular: any process that gets hold of it can use it for as long as it lives.
    #[error("the token is not bound to a pod")]
    Unbound,
    /// Whoever knows could not be asked: the same token may be good later.
    #[error("tokens cannot be checked at the moment: {0}")]
    Unavailable(String),
}

impl TokenError {
    /// Whether asking again may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Finds out who bears a token.
#[tonic::async_trait]
pub trait TokenVerifier: Send + Sync + 'static {
    /// The identity of the token's bearer.
    ///
    /// # Errors
    /// Whatever is not surely a valid token of a service account.
    async fn verify(&self, token: &str) -> Result<SpiffeId, TokenError>;
}

#[tonic::async_trait]
impl TokenVerifier for Box<dyn TokenVerifier> {
    async fn verify(&self, token: &str) -> Result<SpiffeId, TokenError> {
        (**self).verify(token).await
    }
}

/// The identity of a service account that is named as Kubernetes names it: `system:serviceaccount:<namespace>:<name>`.
///
/// # Errors
/// When it is named otherwise, or cannot be an identity.
pub fn identity_of(subject: &str, trust_domain: &str) -> Result<SpiffeId, TokenError> {
    subject
        .strip_prefix(SUBJECT_PREFIX)
        .and_then(|rest| rest.split_once(':'))
        .and_then(|(namespace, account)| identity(trust_domain, namespace, account))
        .ok_or_else(|| TokenError::Subject(subject.to_owned()))
}

/// Why the signing key of tokens could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The state folder could not be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file holds something else.
    #[error("{TOKEN_KEY} is not a P-256 private key in PKCS #8 form")]
    Key,
    /// The random generator or signing failed.
    #[error("cannot make a key or a signature")]
    Crypto,
    /// No workload can be called that.
    #[error("{namespace:?} and {service_account:?} are not a namespace and a service account")]
    Name {
        /// The namespace that was given.
        namespace: String,
        /// The service account that was given.
        service_account: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: Vec<String>,
    sub: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}

#[derive(Deserialize)]
struct Subject {
    sub: String,
}

/// The key that signs workload tokens.
pub struct TokenKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl TokenKey {
    /// Reads the state folder's key, and makes it when there is none. Safe while others do the same.
    ///
    /// # Errors
    /// When the folder or the file in it cannot be used.
    pub fn load_or_create(state: &StateDir) -> Result<Self, TokenKeyError> {
        if let Some(pem) = state.read(TOKEN_KEY)? {
            return Self::from_pem(&pem);
        }
        let _lock = state.lock()?;
        if let Some(pem) = state.read(TOKEN_KEY)? {
            return Self::from_pem(&pem);
        }
        let pem = KeyPair::generate().map_err(|_| TokenKeyError::Crypto)?.serialize_pem();
        state.write(TOKEN_KEY, &pem, Secrecy::Private)?;
        Self::from_pem(&pem)
    }

    fn from_pem(pem: &str) -> Result<Self, TokenKeyError> {
        let pair = KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256)
            .map_err(|_| TokenKeyError::Key)?;
        let encoding = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|_| TokenKeyError::Key)?;
        let decoding = DecodingKey::from_ec_pem(pair.public_key_pem().as_bytes())
            .map_err(|_| TokenKeyError::Key)?;
        Ok(Self { encoding, decoding })
    }

    /// Makes a token for a service account.
    ///
    /// # Errors
    /// When the names cannot be part of an identity.
    pub fn mint(
        &self,
        namespace: &str,
        service_account: &str,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<String, TokenKeyError> {
        if identity("mesh", namespace, service_account).is_none() {
            return Err(TokenKeyError::Name {
                namespace: namespace.into(),
                service_account: service_account.into(),
            });
        }
        let now = now.unix_timestamp();
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        self.sign(&Claims {
            iss: TOKEN_ISSUER.into(),
            aud: vec![TOKEN_AUDIENCE.into()],
            sub: format!("{SUBJECT_PREFIX}{namespace}:{service_account}"),
            iat: now,
            nbf: now,
            exp: now.saturating_add(lifetime),
        })
    }

    fn sign(&self, claims: &Claims) -> Result<String, TokenKeyError> {
        encode(&Header::new(Algorithm::ES256), claims, &self.encoding)
            .map_err(|_| TokenKeyError::Crypto)
    }
}

/// Makes a token with a state folder's key: `weft token`.
///
/// # Errors
/// See [`TokenKey::load_or_create`] and [`TokenKey::mint`].
pub fn mint(
    state: &StateDir,
    namespace: &str,
    service_account: &str,
    lifetime: Duration,
) -> Result<String, TokenKeyError> {
    TokenKey::load_or_create(state)?.mint(
        namespace,
        service_account,
        lifetime,
        OffsetDateTime::now_utc(),
    )
}

fn identity(trust_domain: &str, namespace: &str, service_account: &str) -> Option<SpiffeId> {
    SpiffeId::new(trust_domain, namespace, service_account).to_string().parse().ok()
}

/// Checks tokens that a state folder's key signed.
pub struct LocalVerifier {
    key: DecodingKey,
    validation: Validation,
    trust_domain: String,
}

impl LocalVerifier {
    /// Accepts the tokens of this key, for identities of this trust domain.
    pub fn new(key: &TokenKey, trust_domain: &str) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_audience(&[TOKEN_AUDIENCE]);
        validation.set_issuer(&[TOKEN_ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self { key: key.decoding.clone(), validation, trust_domain: trust_domain.into() }
    }

    fn check(&self, token: &str) -> Result<SpiffeId, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let Subject { sub } = decode::<Subject>(token, &self.key, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
                    TokenError::Algorithm
                }
                ErrorKind::InvalidSignature => TokenError::Signature,
                ErrorKind::ExpiredSignature => TokenError::Expired,
                ErrorKind::ImmatureSignature => TokenError::NotYetValid,
                ErrorKind::InvalidAudience => TokenError::Audience,
                ErrorKind::InvalidIssuer => TokenError::Issuer,
                _ => TokenError::Malformed,
            })?
            .claims;
        identity_of(&sub, &self.trust_domain)
    }
}

#[tonic::async_trait]
impl TokenVerifier for LocalVerifier {
    async fn verify(&self, token: &str) -> Result<SpiffeId, TokenError> {
        self.check(token)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    struct Test {
        key: TokenKey,
        verifier: LocalVerifier,
        public_pem: String,
        _dir: tempfile::TempDir,
    }

    impl Default for Test {
        fn default() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let state = StateDir::open(dir.path()).unwrap();
            let key = TokenKey::load_or_create(&state).unwrap();
            let verifier = LocalVerifier::new(&key, "cluster.local");
            let pem = state.read(TOKEN_KEY).unwrap().unwrap();
            let public_pem = KeyPair::from_pem(&pem).unwrap().public_key_pem();
            Self { key, verifier, public_pem, _dir: dir }
        }
    }

    fn claims() -> Claims {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        Claims {
            iss: TOKEN_ISSUER.into(),
            aud: vec![TOKEN_AUDIENCE.into()],
            sub: "system:serviceaccount:default:order-service".into(),
            iat: now,
            nbf: now,
            exp: now + 60,
        }
    }

    fn unsigned(header: &str, claims: &Claims) -> String {
        let claims = serde_json::to_vec(claims).unwrap();
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_minted_token_proves_its_service_account() {
        let test = Test::default();
        let token = test
            .key
            .mint("default", "order-service", Duration::from_secs(60), OffsetDateTime::now_utc())
            .unwrap();
        assert_eq!(
            test.verifier.check(&token),
            Ok(SpiffeId::new("cluster.local", "default", "order-service"))
        );
    }

    #[test]
    fn tokens_that_are_not_ours_or_not_meant_for_us_are_refused() {
        let test = Test::default();
        let foreign = Test::default();
        let sign = |claims: &Claims| test.key.sign(claims).unwrap();
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let hs256 = encode(
            &Header::new(Algorithm::HS256),
            &claims(),
            &EncodingKey::from_secret(test.public_pem.as_bytes()),
        )
        .unwrap();
        let subject = |sub: &str| sign(&Claims { sub: sub.into(), ..claims() });
        let good = sign(&claims());
        for (name, token, expected) in [
            ("none at all", String::new(), TokenError::Missing),
            ("garbage", "a.b".into(), TokenError::Malformed),
            ("oversize", "a".repeat(MAX_TOKEN + 1), TokenError::Malformed),
            ("expired", sign(&Claims { exp: now - 1, ..claims() }), TokenError::Expired),
            ("early", sign(&Claims { nbf: now + 60, ..claims() }), TokenError::NotYetValid),
            ("foreign", foreign.key.sign(&claims()).unwrap(), TokenError::Signature),
            ("cut", good[..good.len() - 2].into(), TokenError::Signature),
            (
                "audience",
                sign(&Claims { aud: vec!["vault".into()], ..claims() }),
                TokenError::Audience,
            ),
            ("issuer", sign(&Claims { iss: "other".into(), ..claims() }), TokenError::Issuer),
            ("HS256 with the public key", hs256, TokenError::Algorithm),
            ("alg none", unsigned(r#"{"alg":"none"}"#, &claims()), TokenError::Malformed),
            ("unsigned ES256", unsigned(r#"{"alg":"ES256"}"#, &claims()), TokenError::Signature),
            ("not an account", subject("user:jane"), TokenError::Subject("user:jane".into())),
            (
                "half an account",
                subject("system:serviceaccount:default"),
                TokenError::Subject("system:serviceaccount:default".into()),
            ),
            (
                "a path in the name",
                subject("system:serviceaccount:default:a/sa/b"),
                TokenError::Subject("system:serviceaccount:default:a/sa/b".into()),
            ),
        ] {
            assert_eq!(test.verifier.check(&token), Err(expected), "{name}");
        }
    }

    #[test]
    fn names_that_no_identity_can_have_get_no_token() {
        let test = Test::default();
        for (namespace, account) in [("", "a"), ("a", ""), ("a/b", "c"), ("a", "b:c")] {
            let minted = test.key.mint(
                namespace,
                account,
                Duration::from_secs(1),
                OffsetDateTime::now_utc(),
            );
            assert!(matches!(minted, Err(TokenKeyError::Name { .. })), "{namespace}:{account}");
        }
    }

    #[test]
    fn all_who_start_on_one_folder_at_once_get_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let tokens: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| mint(&state, "ns", "sa", Duration::from_secs(60)).unwrap()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let verifier = LocalVerifier::new(&TokenKey::load_or_create(&state).unwrap(), "td");
        for token in tokens {
            assert_eq!(verifier.check(&token), Ok(SpiffeId::new("td", "ns", "sa")));
        }
    }

    #[test]
    fn a_key_file_with_something_else_in_it_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        state.write(TOKEN_KEY, "nonsense", Secrecy::Private).unwrap();
        assert!(matches!(TokenKey::load_or_create(&state), Err(TokenKeyError::Key)));
        assert_eq!(state.read(TOKEN_KEY).unwrap().as_deref(), Some("nonsense"));
    }
}
