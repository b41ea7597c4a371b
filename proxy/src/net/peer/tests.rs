use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::io::duplex;
use weft_api::node::{Interception, ProxyKind};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

fn node(labels: &[(&str, &str)]) -> NodeInfo {
    NodeInfo {
        kind: ProxyKind::Sidecar,
        pod_address: "127.20.1.1".parse().unwrap(),
        pod_name: "order-service-v1-0".into(),
        namespace: "default".into(),
        service_account: "order-service".into(),
        workload_name: "order-service-v1".into(),
        labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<BTreeMap<_, _>>(),
        cluster_id: "Kubernetes".into(),
        interception: Interception::None,
        app_address: None,
        on_demand: true,
        domain: "cluster.local".into(),
    }
}

fn own() -> OwnMetadata {
    OwnMetadata::new(&node(&[("app", "order-service"), ("version", "v1")]))
}

fn order_service() -> WorkloadInfo {
    WorkloadInfo {
        workload: "order-service-v1".into(),
        namespace: "default".into(),
        canonical_name: "order-service".into(),
        canonical_revision: "v1".into(),
        cluster: "Kubernetes".into(),
        app: "order-service".into(),
        version: "v1".into(),
    }
}

#[test]
fn what_one_side_encodes_the_other_reads() {
    let own = own();
    assert_eq!(*own.workload, order_service());
    assert_eq!(decode_header(own.value.as_bytes()).unwrap(), order_service());
    assert_eq!(decode_exchange(&own.preamble[8..]).unwrap(), order_service());
}

#[test]
fn canonical_names_come_from_the_labels_that_istio_reads() {
    for (labels, name, revision) in [
        (vec![], "order-service-v1", ""),
        (vec![("app", "a"), ("version", "1")], "a", "1"),
        (
            vec![("app", "a"), ("app.kubernetes.io/name", "k"), ("app.kubernetes.io/version", "2")],
            "k",
            "2",
        ),
        (
            vec![
                ("service.istio.io/canonical-name", "c"),
                ("service.istio.io/canonical-revision", "3"),
                ("app.kubernetes.io/name", "k"),
                ("version", "1"),
            ],
            "c",
            "3",
        ),
    ] {
        let workload = OwnMetadata::new(&node(&labels)).workload;
        assert_eq!((&*workload.canonical_name, &*workload.canonical_revision), (name, revision));
    }
}

#[test]
fn a_struct_without_its_wrapping_is_read_as_well() {
    let mut metadata = node(&[("app", "order-service"), ("version", "v1")]).metadata();
    metadata.fields.remove("INSTANCE_IPS");
    let any = Any { type_url: STRUCT_URL.into(), value: metadata.encode_to_vec() };
    assert_eq!(decode_exchange(&any.encode_to_vec()).unwrap(), order_service());
}

#[test]
fn a_known_id_with_other_metadata_is_not_believed() {
    let peers = Peers::default();
    let (first, second) = (own(), OwnMetadata::new(&node(&[("app", "another")])));
    let known = peers.get(Some(&first.id), &first.value).unwrap();
    assert!(Arc::ptr_eq(&known, &peers.get(Some(&first.id), &first.value).unwrap()));
    assert_eq!(&*peers.get(Some(&first.id), &second.value).unwrap().app, "another");
    assert_eq!(*peers.get(Some(&first.id), &first.value).unwrap(), order_service());
}

#[test]
fn what_cannot_be_metadata_is_refused() {
    let long = HeaderValue::from_str(&"A".repeat(MAX_METADATA + 4)).unwrap();
    for value in ["%%%", "AAAA", &"/".repeat(64)] {
        assert_eq!(Peers::default().get(None, &HeaderValue::from_str(value).unwrap()), None);
    }
    assert_eq!(Peers::default().get(None, &long), None);
    let mut head = [0x3D, 0x23, 0x04, 0x67, 0, 0, 1, 0];
    assert_eq!(decode_length(head).unwrap(), 256);
    head[4] = 1;
    assert!(matches!(decode_length(head), Err(PeerMetadataError::TooLong(_))));
    head[0] = 0;
    assert!(matches!(decode_length(head), Err(PeerMetadataError::Magic)));
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode_header(&bytes);
        let _ = decode_exchange(&bytes);
    }

    #[test]
    fn label_values_of_any_text_are_bounded(text in "\\PC{0,600}") {
        prop_assert!(bounded(&text).len() <= MAX_VALUE);
    }
}

#[tokio::test]
async fn both_sides_of_an_exchange_learn_of_each_other() {
    let (mut client, mut server) = duplex(64);
    let (own_client, own_server) = (OwnMetadata::new(&node(&[("app", "client")])), own());
    let (connected, accepted) = tokio::join!(
        connect_exchange(&mut client, &own_client, LIMIT),
        accept_exchange(&mut server, &own_server, LIMIT),
    );
    assert_eq!(*connected.unwrap(), order_service());
    assert_eq!(&*accepted.unwrap().peer.unwrap().app, "client");
}

#[tokio::test]
async fn a_client_without_the_exchange_gets_its_bytes_through() {
    for text in ["GET / HTTP/1.1", "x", "=#\x04", "=#\x04gabc"] {
        let (mut client, mut server) = duplex(64);
        client.write_all(text.as_bytes()).await.unwrap();
        drop(client);
        let accepted = accept_exchange(&mut server, &own(), LIMIT).await.unwrap();
        assert_eq!(accepted.peer, None);
        let mut all = accepted.leftover.to_vec();
        server.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, text.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_does_not_hold_an_exchange() {
    let (mut client, mut server) = duplex(1024);
    let accepted = accept_exchange(&mut server, &own(), LIMIT).await.unwrap();
    assert_eq!(accepted, Accepted::default());
    client.write_all(&MAGIC.to_be_bytes()).await.unwrap();
    assert!(matches!(
        accept_exchange(&mut server, &own(), LIMIT).await,
        Err(PeerMetadataError::TimedOut)
    ));
    assert!(matches!(
        connect_exchange(&mut client, &own(), LIMIT).await,
        Err(PeerMetadataError::TimedOut)
    ));
}
