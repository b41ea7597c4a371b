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
        &tls.certificates,
        tls.trust.as_ref(),
        &tls.subject_alt_names,
        &tls.alpn,
        tls.versions,
    );
    let mut common = common;
    if !tls.cipher_suites.is_empty() {
        let names: Vec<_> = tls.cipher_suites.iter().map(|suite| format!("{suite:?}")).collect();
        common["tls_params"]["cipher_suites"] = json!(names);
    }
    socket(&pruned(json!({
        "@type": format!("{TYPES}DownstreamTlsContext"),
        "common_tls_context": common,
        "require_client_certificate": tls.require_client_certificate,
        "disable_stateless_session_resumption": !tls.resumption,
    })))
}

pub fn upstream(tls: &UpstreamTls) -> Value {
    let common = common(
        tls.identity.as_slice(),
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
    certificates: &[TlsSource],
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
    let (mut given, mut named) = (Vec::new(), Vec::new());
    for certificate in certificates {
        match certificate {
            TlsSource::Mesh => named.push(json!({"name": SECRET_DEFAULT})),
            TlsSource::Secret(secret) => named.push(json!({"name": secret.name()})),
            TlsSource::Files { certificate, key, .. } => given.push(json!({
                "certificate_chain": {"filename": certificate},
                "private_key": {"filename": key},
            })),
            TlsSource::Inline { .. } => {
                given.push(json!({"private_key": {"inline_string": "[redacted]"}}));
            }
            TlsSource::System => {}
        }
    }
    if !given.is_empty() {
        context["tls_certificates"] = json!(given);
    }
    if !named.is_empty() {
        context["tls_certificate_sds_secret_configs"] = json!(named);
    }
    let names: Vec<_> = names.iter().map(string).collect();
    let validation = pruned(json!({"match_subject_alt_names": names}));
    match trust {
        Some(secret @ (TlsSource::Mesh | TlsSource::Secret(_))) => {
            let name = match secret {
                TlsSource::Secret(secret) => secret.name(),
                _ => SECRET_ROOT_CA,
            };
            context["combined_validation_context"] = pruned(json!({
                "default_validation_context": validation,
                "validation_context_sds_secret_config": {"name": name},
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
