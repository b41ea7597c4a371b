use std::sync::atomic::Ordering;

use rcgen::PKCS_ECDSA_P384_SHA384;

use super::*;
use crate::{
    control::fake::{Authority, ControlPlane, IDENTITY, identity_generation},
    shared::Shared,
};

const HOUR: Duration = Duration::from_secs(3600);

fn start(settings: Settings) -> (Shared, tokio::task::JoinHandle<()>) {
    let (shared, control) = Shared::new(settings);
    let certificates = Certificates::new(
        shared.settings.clone(),
        shared.identity.clone(),
        control.identity_changed,
    );
    let task = tokio::spawn(certificates.run());
    (shared, task)
}

#[tokio::test]
async fn a_certificate_is_asked_for_with_the_token_and_published() {
    let control_plane = ControlPlane::start(HOUR).await;
    let (shared, task) = start(control_plane.settings());
    identity_generation(&shared, 1).await;
    let identity = shared.identity.load_full().unwrap();
    assert_eq!(identity.id.to_string(), IDENTITY);
    assert_eq!((identity.generation, identity.chain.len(), identity.roots.len()), (1, 1, 1));
    let requests = control_plane.authority.requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].1.as_deref(), Some("Bearer the-token"));
    assert_eq!(requests[0].0.validity_duration, 86_400);
    task.abort();
}

#[tokio::test]
async fn an_authority_that_refuses_at_first_is_asked_again() {
    let control_plane = ControlPlane::start(HOUR).await;
    control_plane.authority.failures.store(2, Ordering::Relaxed);
    let (shared, task) = start(control_plane.settings());
    identity_generation(&shared, 1).await;
    assert_eq!(control_plane.authority.requests.lock().unwrap().len(), 3);
    task.abort();
}

#[tokio::test]
async fn a_certificate_is_renewed_with_another_key_and_failures_leave_the_valid_one() {
    let control_plane = ControlPlane::start(Duration::from_secs(8)).await;
    let (shared, task) = start(control_plane.settings());
    identity_generation(&shared, 1).await;
    let first = shared.identity.load_full().unwrap();
    control_plane.authority.failures.store(2, Ordering::Relaxed);
    identity_generation(&shared, 2).await;
    let second = shared.identity.load_full().unwrap();
    assert_ne!(first.key.secret_der(), second.key.secret_der());
    assert_ne!(first.serial, second.serial);
    assert_eq!(control_plane.authority.requests.lock().unwrap().len(), 4);
    task.abort();
}

#[tokio::test]
async fn a_certificate_for_somebody_else_is_not_used() {
    let control_plane = ControlPlane::start(HOUR).await;
    let mut settings = control_plane.settings();
    settings.service_account = "payment-service".to_owned();
    let (shared, control) = Shared::new(settings);
    let certificates = Certificates::new(
        shared.settings.clone(),
        shared.identity.clone(),
        control.identity_changed,
    );
    let error = certificates.issue(1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the certificate is for {IDENTITY}, not for this workload")
    );
}

#[tokio::test]
async fn a_control_plane_with_another_root_is_not_talked_to() {
    let control_plane = ControlPlane::start(HOUR).await;
    let settings = control_plane.settings();
    std::fs::write(&settings.control_plane.root, Authority::new(HOUR).root()).unwrap();
    let (shared, control) = Shared::new(settings);
    let certificates = Certificates::new(
        shared.settings.clone(),
        shared.identity.clone(),
        control.identity_changed,
    );
    let error = certificates.issue(1).await.unwrap_err();
    assert!(matches!(error, CertificateError::Connect(ConnectError::Transport(_))), "{error}");
    assert!(control_plane.authority.requests.lock().unwrap().is_empty());
}

fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

#[test]
fn answers_that_are_no_usable_chain_are_refused() {
    let authority = Authority::new(HOUR);
    let key = KeyPair::generate().unwrap();
    let other = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let good = authority.sign(&csr(&key), IDENTITY);
    assert_eq!(identity(7, &key, &good).unwrap().generation, 7);
    let leaf = good[0].clone();
    for (chain, expected) in [
        (vec![], "the authority's answer is not usable: no certificates"),
        (vec![leaf.clone()], "the authority's answer is not usable: no leaf beside the roots"),
        (vec![leaf.clone(), String::new()], "the authority's answer is not usable: no roots"),
        (
            vec![authority.sign(&csr(&other), IDENTITY)[0].clone(), authority.root()],
            "the authority's answer is not usable: the leaf has another key",
        ),
        (
            authority.sign(&csr(&key), "spiffe://cluster.local/x"),
            "the certificate names no workload",
        ),
        (
            vec![authority.root(), authority.root()],
            "the authority's answer is not usable: the leaf has another key",
        ),
        (
            vec![
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
                authority.root(),
            ],
            "the authority's answer is not usable: the leaf is not a certificate",
        ),
    ] {
        assert_eq!(identity(1, &key, &chain).unwrap_err().to_string(), expected);
    }
    let expired = Authority::new(Duration::ZERO);
    assert_eq!(
        identity(1, &key, &expired.sign(&csr(&key), IDENTITY)).unwrap_err().to_string(),
        "the authority's answer is not usable: the leaf has expired"
    );
}
