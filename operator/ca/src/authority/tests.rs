use std::fs;

use rcgen::{PKCS_ECDSA_P384_SHA384, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(OffsetDateTime::now_utc().unix_timestamp()).unwrap()
}

fn state() -> (StateDir, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (StateDir::open(dir.path()).unwrap(), dir)
}

fn identity() -> SpiffeId {
    SpiffeId::new("cluster.local", "default", "orders")
}

fn csr(params: &CertificateParams) -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    (key, csr)
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// What matters of a leaf, to compare whole.
#[derive(Debug, PartialEq)]
struct Leaf {
    subject: String,
    names: Vec<String>,
    ca: bool,
    usages: String,
    server_and_client: (bool, bool),
    seconds: (i64, i64),
}

fn leaf(certificate: &CertificateDer<'_>, now: OffsetDateTime) -> Leaf {
    let certificate = X509Certificate::from_der(certificate).unwrap().1;
    let eku = certificate.extended_key_usage().unwrap().unwrap().value;
    let names = certificate.extensions().iter().flat_map(|e| match e.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => names.general_names.clone(),
        _ => Vec::new(),
    });
    let since = |time: x509_parser::time::ASN1Time| time.timestamp() - now.unix_timestamp();
    Leaf {
        subject: certificate.subject().to_string(),
        names: names
            .map(|name| match name {
                GeneralName::URI(uri) => uri.to_owned(),
                other => other.to_string(),
            })
            .collect(),
        ca: certificate.is_ca(),
        usages: certificate.key_usage().unwrap().unwrap().value.to_string(),
        server_and_client: (eku.server_auth, eku.client_auth),
        seconds: (
            since(certificate.validity().not_before),
            since(certificate.validity().not_after),
        ),
    }
}

#[test]
fn a_leaf_has_the_identity_of_the_token_whatever_the_request_asks() {
    let (state, _dir) = state();
    let authority = Authority::load_or_create(&state, "cluster.local", now()).unwrap();
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let (key, csr) = csr(&params);
    let chain =
        authority.sign_workload(&csr, &identity(), Duration::from_secs(3600), now()).unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(der(&chain[1]), authority.roots()[0]);
    let der = der(&chain[0]);
    assert_eq!(
        leaf(&der, now()),
        Leaf {
            subject: String::new(),
            names: vec!["spiffe://cluster.local/ns/default/sa/orders".into()],
            ca: false,
            usages: "Digital Signature, Key Encipherment".into(),
            server_and_client: (true, true),
            seconds: (-120, 3600),
        }
    );
    let certificate = X509Certificate::from_der(&der).unwrap().1;
    assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), key.der_bytes());
    let root = authority.roots().remove(0);
    let root = X509Certificate::from_der(&root).unwrap().1;
    certificate.verify_signature(Some(root.public_key())).unwrap();
}

#[test]
fn a_request_for_another_identity_is_refused_even_beside_the_right_one() {
    let (state, _dir) = state();
    let authority = Authority::load_or_create(&state, "cluster.local", now()).unwrap();
    let own = identity().to_string();
    for (uris, accepted) in [
        (vec![own.as_str()], true),
        (vec![], true),
        (vec!["spiffe://cluster.local/ns/default/sa/payments"], false),
        (vec!["spiffe://other/ns/default/sa/orders"], false),
        (vec![own.as_str(), "https://example.com"], false),
    ] {
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let result =
            authority.sign_workload(&csr(&params).1, &identity(), Duration::from_secs(60), now());
        match result {
            Ok(_) => assert!(accepted, "{uris:?}"),
            Err(SignError::Identity { .. }) => assert!(!accepted, "{uris:?}"),
            Err(error) => panic!("{uris:?}: {error}"),
        }
    }
}

#[test]
fn short_lives_are_not_half_over_at_their_start() {
    let (state, _dir) = state();
    let authority = Authority::load_or_create(&state, "cluster.local", now()).unwrap();
    let eleven_years = 11 * 365 * 24 * 3600;
    for (seconds, expected) in
        [(20, (-2, 20)), (600, (-60, 600)), (86400, (-120, 86400)), (eleven_years, (-120, 0))]
    {
        let (_, csr) = csr(&CertificateParams::default());
        let start = now();
        let chain = authority
            .sign_workload(&csr, &identity(), Duration::from_secs(seconds), start)
            .unwrap();
        let actual = leaf(&der(&chain[0]), start).seconds;
        if seconds == eleven_years {
            assert_eq!(actual.1, (authority.not_after() - start).whole_seconds());
        } else {
            assert_eq!(actual, expected);
        }
    }
}

#[test]
fn certificates_of_one_key_differ_in_their_serial_numbers() {
    let (state, _dir) = state();
    let authority = Authority::load_or_create(&state, "cluster.local", now()).unwrap();
    let (_, csr) = csr(&CertificateParams::default());
    let sign = || {
        let chain = authority.sign_workload(&csr, &identity(), Duration::from_secs(60), now());
        X509Certificate::from_der(&der(&chain.unwrap()[0])).unwrap().1.serial.clone()
    };
    assert_ne!(sign(), sign());
}

#[test]
fn a_servers_certificate_has_its_names_and_key() {
    let (state, _dir) = state();
    let authority = Authority::load_or_create(&state, "cluster.local", now()).unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let start = now();
    let serving = authority.issue_serving(&names, Duration::from_secs(60), start).unwrap();
    assert_eq!(serving.chain.len(), 1);
    assert_eq!(serving.not_after, start + Duration::from_secs(60));
    assert_eq!(leaf(&serving.chain[0], start).names.len(), 3);
    assert!(matches!(
        authority.issue_serving(&["n\u{e4}me".into()], Duration::from_secs(60), start),
        Err(SignError::Name(_))
    ));
}

#[test]
fn a_restart_finds_the_same_root_and_all_who_start_at_once_agree() {
    let (state, _dir) = state();
    let roots: Vec<_> = std::thread::scope(|scope| {
        let open = || Authority::load_or_create(&state, "cluster.local", now()).unwrap().roots();
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let again = Authority::load_or_create(&state, "cluster.local", now()).unwrap().roots();
    assert!(roots.iter().all(|root| *root == again));
    assert_eq!(again.len(), 1);
}

#[test]
fn an_interrupted_creation_is_finished_and_half_an_authority_is_an_error() {
    let (state, _dir) = state();
    let first = Authority::load_or_create(&state, "cluster.local", now()).unwrap().roots();
    let copy = |names: &[&str]| {
        let (copy, dir) = self::state();
        for name in names {
            fs::copy(state.file(name), copy.file(name)).unwrap();
        }
        (copy, dir)
    };
    for (files, error) in [
        (vec![CA_KEY], None),
        (vec![CA_KEY, CA_CERT], None),
        (vec![CA_CERT], Some("ca-key.pem is not")),
        (vec![CA_CERT, ROOT_CERT], Some("ca-key.pem is not")),
        (vec![CA_KEY, ROOT_CERT], Some("ca-cert.pem is not")),
    ] {
        let (copy, _dir) = copy(&files);
        match (Authority::load_or_create(&copy, "cluster.local", now()), error) {
            (Ok(authority), None) => {
                assert_eq!(files.contains(&CA_CERT), authority.roots() == first, "{files:?}");
                assert!(copy.file(ROOT_CERT).exists());
            }
            (Err(found), Some(text)) => assert!(found.to_string().contains(text), "{found}"),
            (result, _) => panic!("{files:?}: {:?}", result.map(|_| ())),
        }
    }
}

/// A user's own authority: a root, an intermediate, and an issuing certificate that signs.
struct UserCa {
    root: String,
    intermediate: String,
    signer: String,
    key: KeyPair,
}

fn user_ca(signer_not_after: OffsetDateTime, signer_is_ca: bool) -> UserCa {
    let params = |name: &str, ca: bool, not_after| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = now() - Duration::from_secs(3600);
        params.not_after = not_after;
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        }
        params
    };
    let year = now() + Duration::from_secs(365 * 24 * 3600);
    let root_key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let root_params = params("root", true, year);
    let root = root_params.self_signed(&root_key).unwrap();
    let root_issuer = Issuer::new(root_params, root_key);
    let middle_key = KeyPair::generate().unwrap();
    let middle_params = params("middle", true, year);
    let middle = middle_params.signed_by(&middle_key, &root_issuer).unwrap();
    let middle_issuer = Issuer::new(middle_params, middle_key);
    let key = KeyPair::generate().unwrap();
    let signer =
        params("signer", signer_is_ca, signer_not_after).signed_by(&key, &middle_issuer).unwrap();
    UserCa { root: root.pem(), intermediate: middle.pem(), signer: signer.pem(), key }
}

fn install(state: &StateDir, ca: &UserCa, chain: &str, roots: &str) {
    state.write(CA_CERT, &ca.signer, Secrecy::Public).unwrap();
    state.write(CA_KEY, &ca.key.serialize_pem(), Secrecy::Private).unwrap();
    state.write(CERT_CHAIN, chain, Secrecy::Public).unwrap();
    state.write(ROOT_CERT, roots, Secrecy::Public).unwrap();
}

#[test]
fn a_users_own_authority_signs_with_its_whole_chain_and_gives_its_roots() {
    let (state, _dir) = state();
    let (ca, other) = (user_ca(now() + Duration::from_secs(300), true), user_ca(now(), true));
    // As people make these files: the chain names everything, in any order, with comments in between.
    let chain = format!("# all\n{}{}{}", ca.root, ca.intermediate, ca.signer);
    install(&state, &ca, &chain, &format!("{}{}", other.root, ca.root));
    let authority = Authority::load_or_create(&state, "cluster.local", now()).unwrap();
    let (_, csr) = csr(&CertificateParams::default());
    let start = now();
    let signed =
        authority.sign_workload(&csr, &identity(), Duration::from_secs(3600), start).unwrap();
    let ders: Vec<_> = signed.iter().map(|pem| der(pem)).collect();
    assert_eq!(ders[1..3], [der(&ca.signer), der(&ca.intermediate)]);
    assert_eq!(bundle::read(&signed[3]).unwrap().len(), 2);
    assert_eq!(signed.len(), 4);
    assert!(leaf(&ders[0], start).seconds.1 <= 300);
    assert_eq!(
        authority.issue_serving(&[], Duration::from_secs(60), start).unwrap().chain.len(),
        3
    );
}

#[test]
fn an_authority_that_cannot_be_trusted_is_refused_with_the_reason() {
    let later = now() + Duration::from_secs(300);
    let good = user_ca(later, true);
    let other = user_ca(later, true);
    let mismatched = UserCa { key: KeyPair::generate().unwrap(), ..user_ca(later, true) };
    let chain = |ca: &UserCa| ca.intermediate.clone();
    let cases = [
        ("expired", user_ca(now() - Duration::from_secs(5), true), None, "not valid now"),
        ("not an authority", user_ca(later, false), None, "not the certificate of an authority"),
        ("key of another", mismatched, None, "not the key"),
        ("no chain", good, Some(String::new()), "no chain leads"),
        ("foreign chain", user_ca(later, true), Some(chain(&other)), "no chain leads"),
        (
            "damaged",
            user_ca(later, true),
            Some("-----BEGIN CERTIFICATE-----\nx".into()),
            "not valid",
        ),
    ];
    for (name, ca, chain, reason) in cases {
        let (state, _dir) = state();
        install(&state, &ca, chain.as_deref().unwrap_or(&ca.intermediate), &ca.root);
        let error =
            Authority::load_or_create(&state, "cluster.local", now()).map(|_| ()).unwrap_err();
        let text = match &error {
            AuthorityError::Bundle { source, .. } => format!("{error}: {source}"),
            _ => error.to_string(),
        };
        assert!(text.contains(reason), "{name}: {text}");
    }
}

#[test]
fn new_files_replace_the_authority_and_bad_ones_do_not() {
    let (state, _dir) = state();
    let store = AuthorityStore::open(state.clone(), "cluster.local", now()).unwrap();
    let before = store.current().roots();
    assert!(!store.reload(now()).unwrap());
    state.write(CA_CERT, "damaged", Secrecy::Public).unwrap();
    assert!(store.reload(now()).is_err());
    assert_eq!(store.current().roots(), before);
    let ca = user_ca(now() + Duration::from_secs(300), true);
    install(&state, &ca, &ca.intermediate, &ca.root);
    assert!(store.reload(now()).unwrap());
    assert_eq!(store.current().roots(), [der(&ca.root)]);
}
