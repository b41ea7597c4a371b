//! Workload tokens that Kubernetes issued: the API server is asked about each (TokenReview, audience `istio-ca`).
//!
//! What it says of a token holds for a little while, never beyond the token's own end; a refusal holds for a shorter one.
//! Only tokens that are bound to a pod count: they end with it. Anybody may send tokens: what is no token that Kubernetes
//! could have issued for us is not asked about, and so many questions at once are the most.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
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
use tokio::{sync::Semaphore, time::timeout};
use weft_api::{ca::TOKEN_AUDIENCE, identity::SpiffeId};
use weft_ca::token::{MAX_TOKEN, TokenError, TokenVerifier, identity_of};

/// How long an answer holds.
const REMEMBERED: time::Duration = time::Duration::seconds(30);
/// How long a refusal holds: whoever tries again and again costs the API server nothing.
const REFUSED: time::Duration = time::Duration::seconds(5);
/// So many answers of either kind are remembered.
const MOST: usize = 10_000;
/// So many questions are asked at once.
const AT_ONCE: usize = 32;
/// The API server must answer in this time.
const PATIENCE: Duration = Duration::from_secs(10);
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

type Digest256 = [u8; 32];

/// Asks the API server who bears a token.
pub struct TokenReviewer {
    reviews: Api<TokenReview>,
    trust_domain: String,
    places: Semaphore,
    known: Mutex<Known>,
}

/// Answers by the tokens' digests, each with the time until which it holds.
#[derive(Debug, Default)]
struct Known {
    good: HashMap<Digest256, (SpiffeId, OffsetDateTime)>,
    bad: HashMap<Digest256, (TokenError, OffsetDateTime)>,
}

impl Known {
    fn get(&self, digest: &Digest256, now: OffsetDateTime) -> Option<Result<SpiffeId, TokenError>> {
        fn held<T: Clone>(
            answers: &HashMap<Digest256, (T, OffsetDateTime)>,
            digest: &Digest256,
            now: OffsetDateTime,
        ) -> Option<T> {
            answers.get(digest).filter(|(_, until)| now < *until).map(|(answer, _)| answer.clone())
        }
        held(&self.good, digest, now).map(Ok).or_else(|| held(&self.bad, digest, now).map(Err))
    }

    fn insert(
        &mut self,
        digest: Digest256,
        answer: Result<SpiffeId, TokenError>,
        end: OffsetDateTime,
        now: OffsetDateTime,
    ) {
        fn hold<T>(
            answers: &mut HashMap<Digest256, (T, OffsetDateTime)>,
            digest: Digest256,
            answer: T,
            until: OffsetDateTime,
            now: OffsetDateTime,
        ) {
            if answers.len() >= MOST {
                answers.retain(|_, (_, until)| now < *until);
            }
            if answers.len() >= MOST {
                answers.clear();
            }
            answers.insert(digest, (answer, until));
        }
        match answer {
            Ok(identity) => {
                hold(&mut self.good, digest, identity, end.min(now + REMEMBERED), now);
            }
            // The same token may be good later.
            Err(error) if error.is_transient() => {}
            Err(error) => hold(&mut self.bad, digest, error, now + REFUSED, now),
        }
    }
}

impl TokenReviewer {
    /// For identities of this trust domain.
    pub fn new(client: Client, trust_domain: &str) -> Self {
        Self {
            reviews: Api::all(client),
            trust_domain: trust_domain.to_owned(),
            places: Semaphore::new(AT_ONCE),
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, with nothing remembered.
    async fn ask(&self, token: &str) -> Result<SpiffeId, TokenError> {
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec {
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
                token: token.to_owned(),
            },
            status: None,
        };
        let options = PostParams::default();
        let answer = async {
            let _place = self.places.acquire().await.ok();
            self.reviews.create(&options, &review).await
        };
        let answer = timeout(PATIENCE, answer)
            .await
            .map_err(|_| TokenError::Unavailable("the API server does not answer".to_owned()))?
            .map_err(|error| TokenError::Unavailable(explain(&error)))?;
        judge(&answer.status.unwrap_or_default(), &self.trust_domain)
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
        if let Some(answer) = self.known().get(&digest, now) {
            return answer;
        }
        let end = end_of(token).ok_or(TokenError::Malformed)?;
        if end <= now {
            return Err(TokenError::Expired);
        }
        let answer = self.ask(token).await;
        self.known().insert(digest, answer.clone(), end, now);
        answer
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
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use futures_util::future::join_all;
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// An API server that takes its time, and knows the tokens whose signature is `good`.
    #[derive(Clone, Default)]
    struct ApiServer {
        asked: Arc<AtomicUsize>,
        at_once: Arc<AtomicUsize>,
        most_at_once: Arc<AtomicUsize>,
    }

    impl ApiServer {
        fn reviewer(&self) -> TokenReviewer {
            let server = self.clone();
            let service = tower::service_fn(move |request: http::Request<Body>| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            });
            TokenReviewer::new(Client::new(service, "default"), "td")
        }

        async fn answer(&self, request: http::Request<Body>) -> http::Response<Body> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.at_once.fetch_sub(1, Ordering::Relaxed);
            let body = request.into_body().collect_bytes().await.unwrap();
            let mut review: TokenReview = serde_json::from_slice(&body).unwrap();
            let refused = json!({ "authenticated": false, "error": "unknown" });
            review.status = Some(match review.spec.token.ends_with(".good") {
                true => status(&json!({})),
                false => status(&refused),
            });
            http::Response::new(Body::from(serde_json::to_vec(&review).unwrap()))
        }
    }

    fn token(name: &str, end: OffsetDateTime, signature: &str) -> String {
        let claims = json!({ "exp": end.unix_timestamp(), "sub": name }).to_string();
        format!("e30.{}.{signature}", URL_SAFE_NO_PAD.encode(claims))
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_tries_again_and_again_costs_the_api_server_nothing() {
        let server = ApiServer::default();
        let reviewer = server.reviewer();
        let later = OffsetDateTime::now_utc() + time::Duration::hours(1);
        for (token, expected) in [
            (token("a", later, "good"), Ok(SpiffeId::new("td", "shop", "orders"))),
            (token("a", later, "bad"), Err(TokenError::Refused("unknown".into()))),
        ] {
            let before = server.asked.load(Ordering::Relaxed);
            for _ in 0..3 {
                assert_eq!(reviewer.verify(&token).await, expected);
            }
            assert_eq!(server.asked.load(Ordering::Relaxed), before + 1);
        }
        let before = server.asked.load(Ordering::Relaxed);
        let past = OffsetDateTime::now_utc() - time::Duration::hours(1);
        assert_eq!(reviewer.verify(&token("a", past, "good")).await, Err(TokenError::Expired));
        assert_eq!(reviewer.verify("garbage").await, Err(TokenError::Malformed));
        assert_eq!(server.asked.load(Ordering::Relaxed), before, "Kubernetes cannot know these");
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_tokens_are_asked_about_at_once() {
        let server = ApiServer::default();
        let reviewer = server.reviewer();
        let later = OffsetDateTime::now_utc() + time::Duration::hours(1);
        let tokens: Vec<_> =
            (0..3 * AT_ONCE).map(|n| token(&n.to_string(), later, "good")).collect();
        let answers = join_all(tokens.iter().map(|token| reviewer.verify(token))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(server.asked.load(Ordering::Relaxed), tokens.len());
        assert_eq!(server.most_at_once.load(Ordering::Relaxed), AT_ONCE);
    }

    #[test]
    fn answers_are_forgotten_in_time() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let end = now + time::Duration::seconds(10);
        let mut known = Known::default();
        let good = || Ok(SpiffeId::new("td", "shop", "orders"));
        known.insert([0; 32], good(), end, now);
        known.insert([1; 32], Err(TokenError::Unbound), end, now);
        known.insert([2; 32], Err(TokenError::Unavailable("busy".into())), end, now);
        let at = |seconds: i64, n: u8| known.get(&[n; 32], now + time::Duration::seconds(seconds));
        assert_eq!(at(9, 0), Some(good()));
        assert_eq!(at(10, 0), None, "the token's own end");
        assert_eq!(at(4, 1), Some(Err(TokenError::Unbound)));
        assert_eq!(at(5, 1), None);
        assert_eq!(at(0, 2), None, "it may be good the next moment");
        for n in 0..=MOST {
            let digest = Sha256::digest(n.to_le_bytes()).into();
            known.insert(digest, good(), end, now);
        }
        assert!(known.good.len() <= MOST);
    }

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
