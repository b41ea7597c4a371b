//! Gateways.

use super::*;

#[test]
fn gateways_are_checked() {
    let http = "port: {number: 80, name: http, protocol: HTTP}";
    let https = "port: {number: 443, name: https, protocol: HTTPS}";
    for (server, errors) in [
        (format!("{http}, hosts: ['*', ns/a.com, ./b.com, '*/c.com']"), vec![]),
        (
            format!("{http}, hosts: ['n s/a.com']"),
            vec![".hosts[0]: \"n s\" is not a namespace, nor one of . and *"],
        ),
        (
            format!("{http}, hosts: [a.com], bind: nowhere"),
            vec![".bind: \"nowhere\" is neither an IP address nor a path after unix://"],
        ),
        (format!("{http}, hosts: [a.com], tls: {{httpsRedirect: true}}"), vec![]),
        (
            format!("{http}, hosts: [a.com], tls: {{mode: SIMPLE, credentialName: c}}"),
            vec![".tls: a port of protocol HTTP can have httpsRedirect only: use HTTPS or TLS"],
        ),
        (
            "port: {number: 0, name: x, protocol: FTP}, hosts: [a.com]".into(),
            vec![
                ".port.number: a port must be from 1 to 65535",
                ".port.protocol: \"FTP\" is not a protocol; known are HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, HTTP_PROXY, MONGO, REDIS, MYSQL, TCP, TLS, UDP",
            ],
        ),
        (format!("{https}, hosts: [a.com]"), vec![".tls: is required for protocol HTTPS"]),
        (format!("{https}, hosts: [a.com], tls: {{mode: SIMPLE, credentialName: c}}"), vec![]),
        (format!("{https}, hosts: [a.com], tls: {{mode: PASSTHROUGH}}"), vec![]),
        (
            format!("{https}, hosts: [a.com], tls: {{mode: MUTUAL, serverCertificate: /c}}"),
            vec![
                ".tls.privateKey: is required for mode MUTUAL without credentialName",
                ".tls.caCertificates: is required for mode MUTUAL without credentialName",
            ],
        ),
        (
            format!("{https}, hosts: [a.com], tls: {{mode: ISTIO_MUTUAL, credentialName: c}}"),
            vec![
                ".tls.credentialName: cannot be set with mode ISTIO_MUTUAL, which uses the gateway's own identity",
            ],
        ),
        (
            format!(
                "{https}, hosts: [a.com], tls: {{mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}}"
            ),
            vec![".tls.minProtocolVersion: is greater than maxProtocolVersion"],
        ),
    ] {
        let errors: Vec<String> = errors.iter().map(|e| format!("spec.servers[0]{e}")).collect();
        let spec = format!("{{selector: {{app: gw}}, servers: [{{{server}}}]}}");
        assert_eq!(lines(&validate(&resource("Gateway", &spec)).errors), errors, "{server}");
    }
    assert_errors(
        "Gateway",
        &[
            ("{selector: {app: gw}}", &["spec.servers: is required"]),
            (
                &format!(
                    "{{selector: {{app: gw}}, servers: [{{{http}, hosts: [a.com]}}, {{{http}, hosts: [b.com]}}]}}"
                ),
                &["spec.servers[1].port.name: there are two ports \"http\""],
            ),
        ],
    );
    assert_warnings(
        "Gateway",
        &[(
            &format!("{{servers: [{{{http}, hosts: [a.com], defaultEndpoint: x}}]}}"),
            &[
                "spec: has no effect in this version of Weft",
                "spec.selector: is empty, so that every gateway of the mesh is meant",
                "spec.servers[0].defaultEndpoint: has no effect: it was never implemented",
            ],
        )],
    );
}
