//! Clusters and TLS.

use super::*;

#[test]
fn a_cluster_without_settings_has_envoys() {
    let decoded = cluster(&eds_cluster("c")).unwrap();
    assert_eq!(decoded.eds.as_deref(), Some("c"));
    assert_eq!(decoded.lb, LbPolicy::RoundRobin);
    assert_eq!(decoded.panic_threshold, 50);
    assert_eq!(decoded.connect_timeout, Duration::from_secs(5));
    assert_eq!((decoded.limits.max_connections, decoded.limits.max_retries), (1024, 3));
    assert!(decoded.outlier.is_none() && decoded.transports.is_empty());
}

#[test]
fn outlier_detection_is_on_for_what_is_enforced() {
    let mut pb = eds_cluster("c");
    let on = Some(UInt32Value { value: 100 });
    pb.outlier_detection = Some(PbOutlier {
        consecutive_gateway_failure: Some(UInt32Value { value: 7 }),
        ..PbOutlier::default()
    });
    let decoded = cluster(&pb).unwrap().outlier.unwrap();
    assert_eq!((decoded.consecutive_5xx, decoded.consecutive_gateway_failure), (5, 0));
    assert_eq!(decoded.max_ejection_percent, 10);
    pb.outlier_detection.as_mut().unwrap().enforcing_consecutive_gateway_failure = on;
    assert_eq!(cluster(&pb).unwrap().outlier.unwrap().consecutive_gateway_failure, 7);
    pb.outlier_detection.as_mut().unwrap().enforcing_success_rate = on;
    assert_eq!(
        cluster(&pb).unwrap_err(),
        "outlier_detection.enforcing_success_rate: not supported"
    );
}

pub fn mesh_context(sni: &str) -> weft_api::xds::envoy::config::core::v3::TransportSocket {
    use weft_api::xds::envoy::{
        config::core::v3::{TransportSocket, transport_socket},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
            UpstreamTlsContext,
            common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        },
    };
    let secret = |name: &str| SdsSecretConfig { name: name.into(), sds_config: None };
    let name = SubjectAltNameMatcher {
        san_type: 3,
        matcher: Some(PbString {
            match_pattern: Some(string_matcher::MatchPattern::Exact(
                "spiffe://td/ns/a/sa/b".into(),
            )),
            ..PbString::default()
        }),
        ..SubjectAltNameMatcher::default()
    };
    let context = UpstreamTlsContext {
        sni: sni.into(),
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret("default")],
            validation_context_type: Some(ValidationContextType::CombinedValidationContext(
                CombinedCertificateValidationContext {
                    default_validation_context: Some(CertificateValidationContext {
                        match_typed_subject_alt_names: vec![name],
                        ..CertificateValidationContext::default()
                    }),
                    validation_context_sds_secret_config: Some(secret("ROOTCA")),
                    ..CombinedCertificateValidationContext::default()
                },
            )),
            alpn_protocols: vec!["istio".into()],
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    };
    TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
    }
}

#[test]
fn the_meshs_secrets_stand_for_the_proxys_own() {
    use weft_api::xds::envoy::config::cluster::v3::cluster::TransportSocketMatch;
    let mut pb = eds_cluster("c");
    pb.transport_socket_matches = vec![TransportSocketMatch {
        name: "tlsMode-istio".into(),
        r#match: Some(Struct { fields: [("tlsMode".to_owned(), text_value("istio"))].into() }),
        transport_socket: Some(mesh_context("outbound_.80_._.b")),
    }];
    let decoded = cluster(&pb).unwrap();
    let transport = &decoded.transports[0];
    assert_eq!(*transport.matches, [("tlsMode".into(), "istio".into())]);
    let tls = transport.tls.as_deref().unwrap();
    assert_eq!((&tls.identity, &tls.trust), (&Some(TlsSource::Mesh), &Some(TlsSource::Mesh)));
    assert_eq!((tls.versions, &*tls.sni), (TlsVersions::Tls13, "outbound_.80_._.b"));
    assert!(tls.subject_alt_names[0].matches("spiffe://td/ns/a/sa/b"));
}
