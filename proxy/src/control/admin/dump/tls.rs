//! TLS contexts.

use serde_json::{Value, json};
use weft_api::names::{SECRET_DEFAULT, SECRET_ROOT_CA};

use super::{pruned, string};
use crate::config::{
    matcher::StringMatcher,
    tls::{DownstreamTls, TlsSource, TlsVersions, UpstreamTls},
};

const TYPES: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.";

pub fn downstream(tls: &DownstreamTls) -> Value {
    let common = common(
        Some(&tls.identity),
        tls.trust.as_ref(),
        &tls.subject_alt_names,
        &tls.alpn,
        tls.versions,
    );
    socket(&pruned(json!({
        "@type": format!("{TYPES}DownstreamTlsContext"),
        "common_tls_context": common,
        "require_client_certificate": tls.require_client_certificate,
    })))
}

pub fn upstream(tls: &UpstreamTls) -> Value {
    let common = common(
        tls.identity.as_ref(),
        tls.trust.as_ref(),
        &tls.subject_alt_names,
        &tls.alpn,
        tls.versions,
    );
    socket(&pruned(json!({
        "@type": format!("{TYPES}UpstreamTlsContext"),
        "common_tls_context": common,
        "sni": tls.sni,
    })))
}

pub fn raw_buffer() -> Value {
    json!({
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
        },
    })
}

fn socket(context: &Value) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

fn common(
    identity: Option<&TlsSource>,
    trust: Option<&TlsSource>,
    names: &[StringMatcher],
    alpn: &[Box<[u8]>],
    versions: TlsVersions,
) -> Value {
    let (minimum, maximum) = match versions {
        TlsVersions::Tls13 => ("TLSv1_3", "TLSv1_3"),
        TlsVersions::Tls12And13 => ("TLSv1_2", "TLSv1_3"),
        TlsVersions::Tls12 => ("TLSv1_2", "TLSv1_2"),
    };
    let alpn: Vec<_> = alpn.iter().map(|name| String::from_utf8_lossy(name)).collect();
    let mut context = pruned(json!({
        "tls_params": {
            "tls_minimum_protocol_version": minimum,
            "tls_maximum_protocol_version": maximum,
        },
        "alpn_protocols": alpn,
    }));
    match identity {
        Some(TlsSource::Mesh) => {
            context["tls_certificate_sds_secret_configs"] = json!([{"name": SECRET_DEFAULT}]);
        }
        Some(TlsSource::Files { certificate, key, .. }) => {
            context["tls_certificates"] = json!([{
                "certificate_chain": {"filename": certificate},
                "private_key": {"filename": key},
            }]);
        }
        Some(TlsSource::Inline { .. }) => {
            context["tls_certificates"] = json!([{"private_key": {"inline_string": "[redacted]"}}]);
        }
        Some(TlsSource::System) | None => {}
    }
    let names: Vec<_> = names.iter().map(string).collect();
    let validation = pruned(json!({"match_subject_alt_names": names}));
    match trust {
        Some(TlsSource::Mesh) => {
            context["combined_validation_context"] = pruned(json!({
                "default_validation_context": validation,
                "validation_context_sds_secret_config": {"name": SECRET_ROOT_CA},
            }));
        }
        Some(TlsSource::Files { ca, .. }) => {
            let mut validation = validation;
            validation["trusted_ca"] = json!({"filename": ca});
            context["validation_context"] = validation;
        }
        Some(TlsSource::Inline { .. }) => {
            let mut validation = validation;
            validation["trusted_ca"] = json!({"inline_string": "[given]"});
            context["validation_context"] = validation;
        }
        Some(TlsSource::System) => {
            let mut validation = validation;
            validation["system_root_certs"] = json!({});
            context["validation_context"] = validation;
        }
        None => {}
    }
    context
}
