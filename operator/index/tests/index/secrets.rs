//! Secrets: only those that a Gateway names get into the mesh, and their last good version stays.

use std::sync::Arc;

use weft_core::{
    credential::{CredentialFault, KeyPair, SecretNamespaces},
    mesh::MeshConfig,
    snapshot::Snapshot,
};
use weft_crds::parse_text;
use weft_index::{Index, Kind, Object};

use crate::fixture::networking;

fn apply(index: &mut Index, yaml: &str) -> bool {
    for document in parse_text(yaml) {
        let object = Object::read(document.unwrap()).unwrap().unwrap();
        index.apply(object);
    }
    index.snapshot().1.gateways
}

fn gateway(credential: &str) -> String {
    let server = format!(
        "selector: {{app: gw}}\nservers: [{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: ['*'], \
         tls: {{mode: SIMPLE, credentialName: {credential}}}}}]"
    );
    networking("Gateway", "default", "gw", 1, &server)
}

fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["shop.example.com".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn secret(name: &str, data: &[(&str, &str)]) -> String {
    let lines = data.iter().map(|(key, value)| {
        format!("  {key}: |\n    {}\n", value.trim_end().replace('\n', "\n    "))
    });
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: edge}}\nstringData:\n{}",
        lines.collect::<String>()
    )
}

fn pair(name: &str, (chain, key): &(String, String)) -> String {
    secret(name, &[("tls.crt", chain), ("tls.key", key)])
}

fn found(index: &mut Index, name: &str) -> Result<KeyPair, CredentialFault> {
    let (snapshot, _): (Arc<Snapshot>, _) = index.snapshot();
    snapshot.credentials.key_pair("edge", name)
}

fn fault(index: &mut Index, name: &str) -> String {
    found(index, name).unwrap_err().to_string()
}

#[test]
fn a_secret_counts_while_a_gateway_names_it_whichever_came_first() {
    let mut index = Index::new(MeshConfig::default());
    let (one, other) = (certificate(), certificate());
    assert!(!apply(&mut index, &pair("shop", &one)), "nobody names it");
    assert!(fault(&mut index, "shop").contains("does not exist"));
    assert!(apply(&mut index, &gateway("shop")));
    let good = found(&mut index, "shop").unwrap();
    assert_eq!(&*good.chain, one.0.as_bytes());
    assert_eq!(good.key.expose(), one.1.as_bytes());
    assert!(!apply(&mut index, &pair("shop", &one)), "nothing new");
    assert!(!apply(&mut index, &pair("unnamed", &other)));
    assert!(apply(&mut index, &pair("shop", &other)));
    assert_ne!(found(&mut index, "shop").unwrap(), good);
    assert!(apply(&mut index, &gateway("unnamed")));
    assert!(fault(&mut index, "shop").contains("does not exist"), "no longer named");
    assert!(found(&mut index, "unnamed").is_ok());
    index.delete(Kind::Secret, "edge", "unnamed");
    assert!(fault(&mut index, "unnamed").contains("does not exist"));
}

#[test]
fn a_version_that_cannot_be_used_leaves_the_good_one_and_says_why() {
    let mut index = Index::new(MeshConfig::default());
    let (one, other) = (certificate(), certificate());
    apply(&mut index, &(gateway("shop") + &pair("shop", &one)));
    let good = found(&mut index, "shop").unwrap();
    for (data, reason) in [
        (
            vec![("tls.crt", one.0.as_str()), ("tls.key", other.1.as_str())],
            "data[tls.key]: does not go with tls.crt",
        ),
        (
            vec![("tls.crt", "nonsense"), ("tls.key", one.1.as_str())],
            "data[tls.crt]: has no certificate in PEM",
        ),
        (
            vec![("tls.crt", one.0.as_str()), ("tls.key", "nonsense")],
            "data[tls.key]: is not a private key in PEM",
        ),
        (vec![("tls.crt", one.0.as_str())], "data[tls.key]: is required beside tls.crt"),
        (
            vec![("cert", one.0.as_str()), ("key", one.1.as_str()), ("cacert", "nonsense")],
            "data[cacert]: has no certificate in PEM",
        ),
        (vec![("password", "secret")], "data[tls.crt]: is required"),
    ] {
        apply(&mut index, &secret("shop", &data));
        assert_eq!(found(&mut index, "shop").unwrap(), good, "{reason}");
        let (snapshot, _) = index.snapshot();
        let errors = &snapshot.credentials.state("edge", "shop").unwrap().errors;
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(errors.len() == 1 && errors[0].starts_with(reason), "{errors:?} {reason}");
        assert!(!format!("{snapshot:?} {index:?}").contains("PRIVATE KEY"));
    }
    let mut fresh = Index::new(MeshConfig::default());
    apply(
        &mut fresh,
        &(gateway("shop") + &secret("shop", &[("tls.crt", "nonsense"), ("tls.key", "x")])),
    );
    assert_eq!(
        fault(&mut fresh, "shop"),
        "Secret edge/shop cannot be used: data[tls.crt]: has no certificate in PEM"
    );
}

#[test]
fn secrets_of_other_namespaces_than_those_to_be_read_do_not_exist() {
    let only = SecretNamespaces::Named(["other".to_owned()].into());
    let mut index = Index::new(MeshConfig::default()).with_secret_namespaces(only);
    apply(&mut index, &(gateway("shop") + &pair("shop", &certificate())));
    assert!(fault(&mut index, "shop").contains("--secret-namespaces does not name edge"));
}
