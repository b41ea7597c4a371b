//! Workload tokens that Kubernetes issued: the API server is asked about each (TokenReview, audience `istio-ca`).
//!
//! What it says of a token holds for a little while, never beyond the token's own end; what it refuses is asked again
//! every time. Only tokens that are bound to a pod count: they end with it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::time::timeout;
use weft_api::{ca::TOKEN_AUDIENCE, identity::SpiffeId};
use weft_ca::token::{MAX_TOKEN, TokenError, TokenVerifier, identity_of};

/// How long an answer holds.
const REMEMBERED: time::Duration = time::Duration::seconds(30);
/// So many answers are remembered.
const MOST: usize = 10_000;
/// The API server must answer in this time.
const PATIENCE: Duration = Duration::from_secs(10);
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

type Digest256 = [u8; 32];

/// Asks the API server who bears a token.
pub struct TokenReviewer {
    reviews: Api<TokenReview>,
    trust_domain: String,
    known: Mutex<HashMap<Digest256, (SpiffeId, OffsetDateTime)>>,
}

impl TokenReviewer {
    /// For identities of this trust domain.
    pub fn new(client: Client, trust_domain: &str) -> Self {
        Self {
            reviews: Api::all(client),
            trust_domain: trust_domain.to_owned(),
            known: Mutex::default(),
        }
    }

    fn remembered(&self, digest: &Digest256, now: OffsetDateTime) -> Option<SpiffeId> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).filter(|(_, until)| now < *until).map(|(identity, _)| identity.clone())
    }

    fn remember(&self, digest: Digest256, identity: SpiffeId, token: &str, now: OffsetDateTime) {
        let Some(end) = end_of(token) else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() < MOST {
            known.insert(digest, (identity, end.min(now + REMEMBERED)));
        }
    }
}

#[tonic::async_trait]
impl TokenVerifier for TokenReviewer {
    async fn verify(&self, token: &str) -> Result<SpiffeId, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let digest = Sha256::digest(token.as_bytes()).into();
        let now = OffsetDateTime::now_utc();
        if let Some(identity) = self.remembered(&digest, now) {
            return Ok(identity);
        }
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec {
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
                token: token.to_owned(),
            },
            status: None,
        };
        let options = PostParams::default();
        let answer = timeout(PATIENCE, self.reviews.create(&options, &review))
            .await
            .map_err(|_| TokenError::Unavailable("the API server does not answer".to_owned()))?
            .map_err(|error| TokenError::Unavailable(explain(&error)))?;
        let identity = judge(&answer.status.unwrap_or_default(), &self.trust_domain)?;
        self.remember(digest, identity.clone(), token, now);
        Ok(identity)
    }
}

fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "{}; add the rule {{apiGroups: [\"authentication.k8s.io\"], resources: [\"tokenreviews\"], \
             verbs: [create]}} to the operator's role",
            status.message
        ),
        _ => error.to_string(),
    }
}

/// Who the API server says that the bearer is.
fn judge(status: &TokenReviewStatus, trust_domain: &str) -> Result<SpiffeId, TokenError> {
    if let Some(error) = status.error.as_ref().filter(|error| !error.is_empty()) {
        return Err(TokenError::Refused(error.clone()));
    }
    if status.authenticated != Some(true) {
        return Err(TokenError::Refused("it is not authenticated".to_owned()));
    }
    let audiences = status.audiences.as_deref().unwrap_or_default();
    if !audiences.iter().any(|audience| audience == TOKEN_AUDIENCE) {
        return Err(TokenError::Audience);
    }
    let user = status.user.clone().unwrap_or_default();
    let identity = identity_of(&user.username.unwrap_or_default(), trust_domain)?;
    let pods = user.extra.as_ref().and_then(|extra| extra.get(POD_NAME));
    if pods.is_none_or(|pods| pods.iter().all(String::is_empty)) {
        return Err(TokenError::Unbound);
    }
    Ok(identity)
}

/// When a token ends, by its own word, which the API server has checked.
fn end_of(token: &str) -> Option<OffsetDateTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let Claims { exp } = serde_json::from_slice(&claims).ok()?;
    OffsetDateTime::from_unix_timestamp(exp).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(change: &serde_json::Value) -> TokenReviewStatus {
        let mut status = json!({
            "authenticated": true,
            "audiences": ["istio-ca"],
            "user": {
                "username": "system:serviceaccount:shop:orders",
                "extra": { POD_NAME: ["orders-1"] },
            },
        });
        let fields = change.as_object().unwrap().clone();
        status.as_object_mut().unwrap().extend(fields);
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn only_a_pods_token_for_us_proves_an_identity() {
        let user = |username: &str, extra: serde_json::Value| json!({"user": {"username": username, "extra": extra}});
        let bound = json!({ POD_NAME: ["orders-1"] });
        let account = "system:serviceaccount:shop:orders";
        for (name, change, expected) in [
            ("good", json!({}), Ok(SpiffeId::new("td", "shop", "orders"))),
            (
                "refused",
                json!({"authenticated": false}),
                Err(TokenError::Refused("it is not authenticated".into())),
            ),
            (
                "refused with a reason",
                json!({"authenticated": false, "error": "expired"}),
                Err(TokenError::Refused("expired".into())),
            ),
            ("another audience", json!({"audiences": ["vault"]}), Err(TokenError::Audience)),
            ("no audience", json!({"audiences": null}), Err(TokenError::Audience)),
            ("a person", user("jane", bound.clone()), Err(TokenError::Subject("jane".into()))),
            (
                "a node",
                user("system:node:n1", bound),
                Err(TokenError::Subject("system:node:n1".into())),
            ),
            ("of no pod", user(account, json!({})), Err(TokenError::Unbound)),
            (
                "of a pod without a name",
                user(account, json!({POD_NAME: [""]})),
                Err(TokenError::Unbound),
            ),
        ] {
            assert_eq!(judge(&status(&change), "td"), expected, "{name}");
        }
    }

    #[test]
    fn a_token_says_when_it_ends() {
        let token = |claims: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
        let end = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        assert_eq!(end_of(&token(r#"{"exp":1800000000}"#)), Some(end));
        for broken in [token("{}"), token("no"), "a.b".into(), "a".into(), "a.!.c".into()] {
            assert_eq!(end_of(&broken), None, "{broken}");
        }
    }
}
