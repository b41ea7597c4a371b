//! Names and bytes that are not what they should be.

use super::{
    clusters::mesh_context,
    filters::{rbac_listener, typed_struct},
    *,
};

#[test]
fn a_name_that_is_not_the_resources_own_is_refused() {
    let error = decoder().cluster("other", &any(&eds_cluster("c"))).unwrap_err();
    assert_eq!(error.to_string(), "name: \"c\" is not the resource's name");
}

#[test]
fn another_message_than_the_type_says_is_refused() {
    let error = decoder().cluster("c", &any(&route_config("c", &["x"]))).unwrap_err();
    assert_eq!(error.to_string(), "\"envoy.config.route.v3.RouteConfiguration\" is not supported");
}

/// Decodes as every type; what matters is that it returns.
fn decode_all(bytes: &[u8]) {
    let decoder = decoder();
    let typed =
        |name: &str| Any { type_url: format!("type.googleapis.com/{name}"), value: bytes.to_vec() };
    let _ = decoder.listener("l", &typed("envoy.config.listener.v3.Listener"));
    let _ = decoder.route_configuration("r", &typed("envoy.config.route.v3.RouteConfiguration"));
    let _ = decoder.virtual_host("r/h", &typed("envoy.config.route.v3.VirtualHost"));
    let _ = decoder.cluster("c", &typed("envoy.config.cluster.v3.Cluster"));
    let _ = decoder.secret("s", &typed("envoy.extensions.transport_sockets.tls.v3.Secret"));
    let _ = decoder.assignment(&typed("envoy.config.endpoint.v3.ClusterLoadAssignment"));
}

fn samples() -> Vec<Vec<u8>> {
    let limit = manager_listener(|manager| manager.http_filters.insert(0, typed_struct(&[])));
    let rbac = rbac_listener(permission::Rule::Any(true), principal::Identifier::Any(true));
    let mut secure = eds_cluster("c");
    secure.transport_socket = Some(mesh_context("sni"));
    vec![
        limit.encode_to_vec(),
        rbac.encode_to_vec(),
        tcp_listener("l", "c").encode_to_vec(),
        route_config("r", &["c1", "c2"]).encode_to_vec(),
        virtual_host("h", &["c1"]).encode_to_vec(),
        secure.encode_to_vec(),
        assignment("c", &["10.0.0.1:80"]).encode_to_vec(),
        certificate_secret("s", "-----BEGIN CERTIFICATE-----", "key").encode_to_vec(),
        tls_listener("l", "c", "s").encode_to_vec(),
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_panic(bytes in prop::collection::vec(proptest::num::u8::ANY, 0..512)) {
        decode_all(&bytes);
    }

    #[test]
    fn damaged_resources_are_no_panic(
        sample in 0..9_usize,
        damage in prop::collection::vec((proptest::arbitrary::any::<prop::sample::Index>(), proptest::num::u8::ANY), 1..8),
    ) {
        let mut bytes = samples().swap_remove(sample);
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        decode_all(&bytes);
    }

    #[test]
    fn arbitrary_formats_are_no_panic(text in ".{0,64}|(%[A-Z_()?:%a-z0-9-]{0,16}){0,4}") {
        let _ = format::parse(&text);
    }
}
