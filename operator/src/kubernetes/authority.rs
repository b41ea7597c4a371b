//! The authority's texts in Secrets of the operator's namespace.
//!
//! `cacerts`, which is the user's, wins; without it `weft-ca-secret`, which the first replica creates and all others
//! read. Both are followed, so that a root can be rotated without a restart. A secret that cannot be used leaves what is
//! in effect, and one of ours that somebody deletes is put back: another root would part the mesh in two.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use futures_util::{StreamExt, pin_mut};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
    runtime::watcher::watch_object,
};
use time::OffsetDateTime;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use weft_ca::{
    authority::{AuthorityError, AuthorityStore, CaFiles},
    state::{CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT},
};

use super::{Cluster, MANAGED_BY};
use crate::backoff::Backoff;

/// The user's authority.
pub const USERS: &str = "cacerts";
/// The operator's own.
pub const OWN: &str = "weft-ca-secret";

/// The keys of a `kubernetes.io/tls` secret, as cert-manager writes it, and what they are to us.
const TLS_KEYS: [(&str, &str); 4] =
    [(CA_CERT, "tls.crt"), (CA_KEY, "tls.key"), (CERT_CHAIN, "tls.crt"), (ROOT_CERT, "ca.crt")];

/// The texts of a secret.
///
/// # Errors
/// When one is missing.
pub fn files(secret: &Secret) -> Result<CaFiles, AuthorityError> {
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    let text = |key: &str| {
        let bytes = &data.get(key)?.0;
        String::from_utf8(bytes.clone()).ok().filter(|text| !text.trim().is_empty())
    };
    CaFiles::from_entries(|name| {
        let other = TLS_KEYS.iter().find(|(ours, _)| *ours == name).map(|(_, theirs)| *theirs);
        text(name).or_else(|| other.and_then(text))
    })
}

fn own_secret(files: CaFiles) -> Secret {
    let entries = files.into_entries().into_iter();
    Secret {
        metadata: ObjectMeta {
            name: Some(OWN.to_owned()),
            labels: Some([MANAGED_BY].map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            ..ObjectMeta::default()
        },
        type_: Some("istio.io/ca-root".to_owned()),
        data: Some(entries.map(|(k, v)| (k, ByteString(v.into_bytes()))).collect()),
        ..Secret::default()
    }
}

fn secrets(cluster: &Cluster) -> Api<Secret> {
    Api::namespaced(cluster.client.clone(), &cluster.namespace)
}

/// Opens the cluster's authority; the first replica makes it. Asks until the API server answers.
///
/// # Errors
/// When what is there is not a whole, valid authority, or may not be read.
pub async fn open(
    cluster: &Cluster,
    trust_domain: &str,
    now: OffsetDateTime,
) -> anyhow::Result<AuthorityStore> {
    let api = secrets(cluster);
    let mut backoff = Backoff::default();
    loop {
        match find_or_create(&api, trust_domain, now).await {
            Ok(secret) => {
                let name = secret.metadata.name.clone().unwrap_or_default();
                let context = || format!("Secret {}/{name} cannot be used", cluster.namespace);
                let store = AuthorityStore::new(files(&secret).with_context(context)?, now)
                    .with_context(context)?;
                tracing::info!(secret = name, "the authority is known");
                return Ok(store);
            }
            Err(FindError::Make(error)) => return Err(error).context("no root can be made"),
            Err(FindError::Ask(kube::Error::Api(status))) if status.code == 403 => {
                anyhow::bail!(
                    "the authority's secrets cannot be used: {}; the operator's role in namespace {} \
                     needs get, list and watch for secrets {USERS} and {OWN}, and create for secrets",
                    status.message,
                    cluster.namespace
                );
            }
            Err(FindError::Ask(error)) => {
                backoff.tell("the authority's secrets cannot be read", &error);
                sleep(backoff.next()).await;
            }
        }
    }
}

enum FindError {
    Ask(kube::Error),
    Make(AuthorityError),
}

async fn find_or_create(
    api: &Api<Secret>,
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<Secret, FindError> {
    for name in [USERS, OWN] {
        if let Some(secret) = api.get_opt(name).await.map_err(FindError::Ask)? {
            return Ok(secret);
        }
    }
    let files = CaFiles::generate(trust_domain, now).map_err(FindError::Make)?;
    match api.create(&PostParams::default(), &own_secret(files)).await {
        Ok(created) => {
            tracing::info!(secret = OWN, "made a root");
            Ok(created)
        }
        // Another replica was first: its root is everybody's.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            api.get(OWN).await.map_err(FindError::Ask)
        }
        Err(error) => Err(FindError::Ask(error)),
    }
}

/// Keeps the authority in use the one that the secrets hold, until the signal.
pub async fn follow(cluster: Cluster, store: Arc<AuthorityStore>, shutdown: CancellationToken) {
    let (changes, changed) = mpsc::channel(4);
    for name in [USERS, OWN] {
        let watch = watch(cluster.client.clone(), cluster.namespace.clone(), name, changes.clone());
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = watch => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
    drop(changes);
    keep(&secrets(&cluster), &store, changed).await;
}

/// Takes what the secrets become, until there is no news of them any more.
async fn keep(
    api: &Api<Secret>,
    store: &AuthorityStore,
    mut changed: mpsc::Receiver<(&'static str, Option<Secret>)>,
) {
    let mut held: BTreeMap<&str, Option<Secret>> = BTreeMap::new();
    let mut backoff = Backoff::default();
    // Ours is gone and could not be put back.
    let mut lost = false;
    loop {
        let again = async {
            match lost {
                true => sleep(backoff.next()).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            change = changed.recv() => match change {
                Some((name, secret)) => _ = held.insert(name, secret),
                None => return,
            },
            () = again => {}
        }
        // Until both were read nobody knows which one counts.
        let (Some(users), Some(own)) = (held.get(USERS), held.get(OWN)) else { continue };
        lost = match users.as_ref().or(own.as_ref()) {
            Some(secret) => {
                take(store, secret);
                false
            }
            None => match put_back(api, store).await {
                Ok(()) => false,
                Err(error) => {
                    backoff.tell("the authority's secret cannot be put back", &error);
                    true
                }
            },
        };
        if !lost {
            backoff.reset();
        }
    }
}

async fn watch(
    client: Client,
    namespace: String,
    name: &'static str,
    changes: mpsc::Sender<(&'static str, Option<Secret>)>,
) {
    let stream = watch_object(Api::<Secret>::namespaced(client, &namespace), name);
    pin_mut!(stream);
    let mut backoff = Backoff::default();
    while let Some(secret) = stream.next().await {
        match secret {
            Ok(secret) => {
                backoff.reset();
                if changes.send((name, secret)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                backoff.tell(&format!("Secret {name} cannot be followed"), &error);
                sleep(backoff.next()).await;
            }
        }
    }
}

fn take(store: &AuthorityStore, secret: &Secret) {
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let taken = files(secret).and_then(|files| store.replace(files, OffsetDateTime::now_utc()));
    match taken {
        Ok(true) => tracing::info!(secret = name, "another authority is in effect"),
        Ok(false) => {}
        Err(error) => tracing::error!(
            secret = name,
            error = &error as &dyn std::error::Error,
            "the secret cannot be used, the authority before stays in effect"
        ),
    }
}

async fn put_back(api: &Api<Secret>, store: &AuthorityStore) -> kube::Result<()> {
    tracing::warn!(secret = OWN, "the authority's secret is gone: putting it back");
    match api.create(&PostParams::default(), &own_secret(store.files())).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        written => written.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(entries: &[(&str, &str)]) -> Secret {
        let data = entries.iter().map(|(k, v)| ((*k).to_owned(), ByteString((*v).into())));
        Secret { data: Some(data.collect()), ..Secret::default() }
    }

    /// An API server that refuses.
    #[tokio::test(start_paused = true)]
    async fn a_secret_that_is_gone_is_put_back_however_often_that_must_be_tried() {
        let (attempts, mut attempted) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let attempts = attempts.clone();
            async move {
                let body = request.into_body().collect_bytes().await?;
                let _ = attempts.send(serde_json::from_slice::<Secret>(&body).unwrap());
                let answer = http::Response::builder().status(500);
                Ok::<_, kube::Error>(answer.body(kube::client::Body::empty()).unwrap())
            }
        });
        let api: Api<Secret> = Api::namespaced(Client::new(service, "weft-system"), "weft-system");
        let now = OffsetDateTime::now_utc();
        let made = CaFiles::generate("cluster.local", now).unwrap();
        let store = AuthorityStore::new(made.clone(), now).unwrap();
        let (changes, changed) = mpsc::channel(4);
        changes.send((USERS, None)).await.unwrap();
        changes.send((OWN, None)).await.unwrap();
        let kept = tokio::spawn(async move { keep(&api, &store, changed).await });
        for _ in 0..3 {
            let written = attempted.recv().await.unwrap();
            assert_eq!(files(&written).unwrap(), made);
        }
        drop(changes);
        kept.await.unwrap();
    }

    #[test]
    fn an_authority_survives_its_secret() {
        let now = OffsetDateTime::now_utc();
        let made = CaFiles::generate("cluster.local", now).unwrap();
        let read = files(&own_secret(made.clone())).unwrap();
        let store = AuthorityStore::new(made, now).unwrap();
        assert!(!store.replace(read, now).unwrap());
    }

    #[test]
    fn a_secret_of_cert_manager_is_understood_and_half_an_authority_is_not() {
        let now = OffsetDateTime::now_utc();
        let made = CaFiles::generate("cluster.local", now).unwrap().into_entries();
        let (cert, key) = (made[CA_CERT].as_str(), made[CA_KEY].as_str());
        let tls = secret(&[("tls.crt", cert), ("tls.key", key), ("ca.crt", cert)]);
        assert!(AuthorityStore::new(files(&tls).unwrap(), now).is_ok());
        for (entries, missing) in [
            (vec![(CA_CERT, cert), (ROOT_CERT, cert)], CA_KEY),
            (vec![(CA_CERT, cert), (CA_KEY, key)], ROOT_CERT),
            (vec![(CA_CERT, " "), (CA_KEY, key), (ROOT_CERT, cert)], CA_CERT),
            (vec![], CA_CERT),
        ] {
            let error = files(&secret(&entries)).unwrap_err();
            assert!(
                matches!(error, AuthorityError::Incomplete { missing: m, .. } if m == missing),
                "{error}"
            );
        }
    }
}
