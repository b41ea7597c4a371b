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
                "spec.selector: is empty, so that every gateway of the mesh is meant",
                "spec.servers[0].defaultEndpoint: has no effect: it was never implemented",
            ],
        )],
    );
    assert_warnings(
        "Gateway",
        &[(
            &format!(
                "{{selector: {{app: gw}}, servers: [{{{https}, hosts: [a.com], bind: 'unix:///tmp/s', tls: {{mode: MUTUAL, \
                 credentialName: c, caCrl: /crl, insecureSkipVerify: true, cipherSuites: [AES128-SHA, \
                 ECDHE-RSA-AES128-GCM-SHA256]}}}}]}}"
            ),
            &[
                "spec.servers[0].bind: the server is left out: only IP addresses can be bound to",
                "spec.servers[0].tls.caCrl: the server is left out: this version of Weft does not check it",
                "spec.servers[0].tls.insecureSkipVerify: the server is left out: this version of Weft does not check it",
                "spec.servers[0].tls.cipherSuites[0]: \"AES128-SHA\" is not offered; offered are \
                 ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-RSA-AES128-GCM-SHA256, ECDHE-ECDSA-AES256-GCM-SHA384, \
                 ECDHE-RSA-AES256-GCM-SHA384, ECDHE-ECDSA-CHACHA20-POLY1305, ECDHE-RSA-CHACHA20-POLY1305",
            ],
        )],
    );
}
