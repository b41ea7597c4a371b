//! Validation of Gateways.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Validation, text};
use crate::{
    cipher_suites,
    networking::{GatewaySpec, Server, ServerTlsMode, ServerTlsSettings, TlsProtocol},
    path::Path,
};

/// The protocols of ports, in gateways and service entries.
const PROTOCOLS: [&str; 12] = [
    "HTTP",
    "HTTPS",
    "GRPC",
    "GRPC-WEB",
    "HTTP2",
    "HTTP_PROXY",
    "MONGO",
    "REDIS",
    "MYSQL",
    "TCP",
    "TLS",
    "UDP",
];

pub(super) fn validate(spec: &GatewaySpec, report: &mut Validation) {
    let path = Path::root("spec");
    if spec.servers.is_empty() {
        report.error(&path.field("servers"), "is required");
    }
    if spec.selector.is_empty() {
        report
            .warn(&path.field("selector"), "is empty, so that every gateway of the mesh is meant");
    }
    text::labels(&spec.selector, &path.field("selector"), report);
    let (list, mut names) = (path.field("servers"), BTreeSet::new());
    for (index, server) in spec.servers.iter().enumerate() {
        let at = list.index(index);
        self::server(server, &at, report);
        if let Some(port) = &server.port
            && !names.insert(&port.name)
        {
            let reason = format!("there are two ports {:?}", port.name);
            report.error(&at.field("port").field("name"), reason);
        }
    }
}

fn server(server: &Server, path: &Path<'_>, report: &mut Validation) {
    let list = path.field("hosts");
    for (index, host) in server.hosts.iter().enumerate() {
        report.check(&list.index(index), server_host(host));
    }
    if !server.bind.is_empty() {
        report.check(&path.field("bind"), bind(&server.bind));
        if server.bind.starts_with("unix:") {
            let reason = "the server is left out: only IP addresses can be bound to";
            report.warn(&path.field("bind"), reason);
        }
    }
    if !server.default_endpoint.is_empty() {
        report.warn(&path.field("defaultEndpoint"), "has no effect: it was never implemented");
    }
    let Some(port) = &server.port else { return };
    let at = path.field("port");
    if !server.bind.starts_with("unix://") {
        report.check(&at.field("number"), text::port(port.number));
    }
    report.check(&at.field("protocol"), protocol(&port.protocol));
    if port.target_port > 0 {
        report.warn(&at.field("targetPort"), "has no effect: it was never implemented");
    }
    let encrypted = matches!(port.protocol.to_ascii_uppercase().as_str(), "HTTPS" | "TLS");
    match &server.tls {
        Some(tls) if encrypted => server_tls(tls, &path.field("tls"), report),
        Some(tls) => {
            let rest = ServerTlsSettings { https_redirect: false, ..tls.clone() };
            if rest != ServerTlsSettings::default() {
                let reason = format!(
                    "a port of protocol {} can have httpsRedirect only: use HTTPS or TLS",
                    port.protocol
                );
                report.error(&path.field("tls"), reason);
            }
        }
        None if encrypted => {
            let reason = format!("is required for protocol {}", port.protocol);
            report.error(&path.field("tls"), reason);
        }
        None => {}
    }
}

/// `[namespace/]host`.
fn server_host(host: &str) -> Result<(), String> {
    let (namespace, name) = host.split_once('/').unwrap_or(("*", host));
    if !matches!(namespace, "*" | ".") && !text::is_label(namespace) {
        return Err(format!("{namespace:?} is not a namespace, nor one of . and *"));
    }
    text::host(name)
}

fn bind(address: &str) -> Result<(), String> {
    let socket = address.strip_prefix("unix://").is_some_and(|path| !path.is_empty());
    if socket || address.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("{address:?} is neither an IP address nor a path after unix://"))
}

/// The protocol of a port.
pub(super) fn protocol(name: &str) -> Result<(), String> {
    if PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    Err(format!("{name:?} is not a protocol; known are {}", PROTOCOLS.join(", ")))
}

fn server_tls(tls: &ServerTlsSettings, path: &Path<'_>, report: &mut Validation) {
    if tls.https_redirect {
        report.warn(&path.field("httpsRedirect"), "has no effect on a port that is HTTPS already");
    }
    certificates(tls, path, report);
    for (field, version) in [
        ("minProtocolVersion", tls.min_protocol_version),
        ("maxProtocolVersion", tls.max_protocol_version),
    ] {
        if matches!(version, TlsProtocol::V1_0 | TlsProtocol::V1_1) {
            report.warn(
                &path.field(field),
                format!("{version} is not offered: TLSV1_2 is the least"),
            );
        }
    }
    unchecked(tls, path, report);
    let suites = path.field("cipherSuites");
    for (index, suite) in tls.cipher_suites.iter().enumerate() {
        if cipher_suites::offered(suite).is_none() {
            let all: Vec<&str> = cipher_suites::all().collect();
            let reason = format!("{suite:?} is not offered; offered are {}", all.join(", "));
            report.warn(&suites.index(index), reason);
        }
    }
    let (least, most) = (tls.min_protocol_version, tls.max_protocol_version);
    if least != TlsProtocol::Auto && most != TlsProtocol::Auto && least > most {
        report.error(&path.field("minProtocolVersion"), "is greater than maxProtocolVersion");
    }
}

/// What would be asked of clients and is not looked at: rather no server than an open one.
fn unchecked(tls: &ServerTlsSettings, path: &Path<'_>, report: &mut Validation) {
    let mutual = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    for (set, field) in [
        (!tls.ca_crl.is_empty(), "caCrl"),
        (!tls.verify_certificate_spki.is_empty(), "verifyCertificateSpki"),
        (!tls.verify_certificate_hash.is_empty(), "verifyCertificateHash"),
        (mutual && tls.insecure_skip_verify == Some(true), "insecureSkipVerify"),
    ] {
        if set {
            let reason = "the server is left out: this version of Weft does not check it";
            report.warn(&path.field(field), reason);
        }
    }
    if tls.mode == ServerTlsMode::AutoPassthrough {
        let reason = "the server is left out: this version of Weft does not serve AUTO_PASSTHROUGH";
        report.warn(&path.field("mode"), reason);
    }
}

fn certificates(tls: &ServerTlsSettings, path: &Path<'_>, report: &mut Validation) {
    let secret = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    let files = [
        ("serverCertificate", &tls.server_certificate),
        ("privateKey", &tls.private_key),
        ("caCertificates", &tls.ca_certificates),
    ];
    match tls.mode {
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
            let list = path.field("tlsCertificates");
            for (index, pair) in tls.tls_certificates.iter().enumerate() {
                if pair.server_certificate.is_empty() || pair.private_key.is_empty() {
                    let reason = "must have serverCertificate and privateKey";
                    report.error(&list.index(index), reason);
                }
            }
            if secret || !tls.tls_certificates.is_empty() {
                return;
            }
            let needed = if tls.mode == ServerTlsMode::Simple { 2 } else { 3 };
            let ca_elsewhere = !tls.ca_cert_credential_name.is_empty();
            for (field, file) in &files[..needed] {
                if file.is_empty() && !(*field == "caCertificates" && ca_elsewhere) {
                    let reason =
                        format!("is required for mode {} without credentialName", tls.mode);
                    report.error(&path.field(field), reason);
                }
            }
        }
        ServerTlsMode::IstioMutual => {
            let reason =
                "cannot be set with mode ISTIO_MUTUAL, which uses the gateway's own identity";
            for (field, _) in files.iter().filter(|(_, file)| !file.is_empty()) {
                report.error(&path.field(field), reason);
            }
            if secret {
                report.error(&path.field("credentialName"), reason);
            }
        }
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
            if secret || files.iter().any(|(_, file)| !file.is_empty()) {
                let reason =
                    format!("mode {} terminates no TLS: certificates have no effect", tls.mode);
                report.warn(path, reason);
            }
        }
    }
}
