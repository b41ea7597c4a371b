//! ServiceEntries.

use super::*;

#[test]
fn service_entries_are_checked() {
    let ports = "ports: [{number: 80, name: http, protocol: HTTP}]";
    for (entry, errors) in [
        (format!("hosts: [a.com], {ports}, resolution: DNS"), vec![]),
        (format!("hosts: ['*.a.com'], {ports}"), vec![]),
        (format!("hosts: ['*'], {ports}"), vec!["spec.hosts[0]: a host cannot be *"]),
        (
            format!("hosts: ['*.a.com'], {ports}, resolution: DNS"),
            vec![
                "spec.hosts[0]: resolution DNS asks DNS for the host, so that it cannot be a wildcard",
            ],
        ),
        (
            format!("hosts: [a.com], {ports}, resolution: DNS, addresses: [10.0.0.0/8]"),
            vec!["spec.addresses[0]: ranges are allowed with resolution NONE or STATIC only"],
        ),
        (
            format!("hosts: [a.com], {ports}, endpoints: [{{address: 1.2.3.4}}]"),
            vec!["spec.endpoints: cannot be set with resolution NONE: use STATIC or DNS"],
        ),
        (
            format!("hosts: [a.com], {ports}, resolution: STATIC, endpoints: [{{address: b.com}}]"),
            vec![
                "spec.endpoints[0].address: \"b.com\" is not an IP address: names need resolution DNS",
            ],
        ),
        (
            format!(
                "hosts: [a.com], {ports}, resolution: STATIC, endpoints: [{{address: 'unix:///s', ports: {{http: 1}}}}]"
            ),
            vec!["spec.endpoints[0].ports: a unix:// address has no ports"],
        ),
        (
            format!(
                "hosts: [a.com], {ports}, resolution: DNS_ROUND_ROBIN, endpoints: [{{address: b.com}}, {{address: c.com}}]"
            ),
            vec!["spec.endpoints: resolution DNS_ROUND_ROBIN takes one endpoint at most"],
        ),
        (
            format!(
                "hosts: [a.com], {ports}, resolution: STATIC, endpoints: [{{network: n}}, {{labels: {{a: b}}}}]"
            ),
            vec!["spec.endpoints[1].address: is required where network is not set"],
        ),
        (
            format!(
                "hosts: [a.com], {ports}, resolution: STATIC, endpoints: [{{address: 1.2.3.4, ports: {{https: 0}}}}]"
            ),
            vec![
                "spec.endpoints[0].ports[https]: a port must be from 1 to 65535",
                "spec.endpoints[0].ports[https]: is not a port of the service",
            ],
        ),
        (
            "hosts: [a.com], ports: [{number: 80, name: a}, {number: 80, name: a, protocol: X25}]"
                .into(),
            vec![
                "spec.ports[1].name: there are two ports \"a\"",
                "spec.ports[1].number: there are two ports 80",
                "spec.ports[1].protocol: \"X25\" is not a protocol; known are HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, HTTP_PROXY, MONGO, REDIS, MYSQL, TCP, TLS, UDP",
            ],
        ),
        (format!("hosts: [a.com], {ports}, exportTo: ['~']"), vec![]),
    ] {
        assert_errors("ServiceEntry", &[(&format!("{{{entry}}}"), &errors)]);
    }
    assert_warnings(
        "ServiceEntry",
        &[(
            "{hosts: [a.com], resolution: STATIC}",
            &[
                "spec.ports: is empty, so that the service cannot be called",
                "spec.endpoints: is empty, and resolution STATIC finds no endpoints elsewhere",
            ],
        )],
    );
}
