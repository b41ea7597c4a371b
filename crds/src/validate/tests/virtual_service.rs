//! VirtualServices, all but their HTTP routes.

use super::*;

#[test]
fn virtual_service_hosts_and_gateways_are_checked() {
    let route = "http: [{route: [{destination: {host: a}}]}]";
    for (hosts, errors) in [
        ("hosts: [a, a.b.svc.cluster.local, '*.example.com', 10.0.0.1, '2001:db8::1']", vec![]),
        (
            "hosts: ['*']",
            vec![
                "spec.hosts[0]: * is allowed for gateways only, and the gateways here include mesh",
            ],
        ),
        ("hosts: ['*'], gateways: [gw]", vec![]),
        (
            "hosts: ['*'], gateways: [gw, mesh]",
            vec![
                "spec.hosts[0]: * is allowed for gateways only, and the gateways here include mesh",
            ],
        ),
        ("hosts: ['a.*.b']", vec!["spec.hosts[0]: \"a.*.b\": * can only stand at the beginning"]),
        (
            "hosts: ['*foo.com']",
            vec!["spec.hosts[0]: \"*foo.com\": * can only stand for whole labels"],
        ),
        (
            "hosts: ['*.*.com']",
            vec!["spec.hosts[0]: \"*.*.com\": * can only stand at the beginning"],
        ),
        ("hosts: ['']", vec!["spec.hosts[0]: a host cannot be empty"]),
        ("hosts: ['-a']", vec!["spec.hosts[0]: \"-a\" is not a domain name because of \"-a\""]),
        (
            "hosts: ['1.2.3.400']",
            vec!["spec.hosts[0]: \"1.2.3.400\" is neither a domain name nor an IP address"],
        ),
        ("hosts: [a], gateways: [ns/gw, gw, mesh, ./gw]", vec![]),
        (
            "hosts: [a], gateways: ['a/b/c', '']",
            vec![
                "spec.gateways[0]: \"a/b/c\" is not a gateway: name or namespace/name",
                "spec.gateways[1]: \"\" is not a gateway: name or namespace/name",
            ],
        ),
        ("hosts: [a], exportTo: ['.', other]", vec![]),
        (
            "hosts: [a], exportTo: ['~']",
            vec!["spec.exportTo[0]: \"~\" is not a namespace, nor one of . and *"],
        ),
        (
            "hosts: [a], exportTo: ['*', other]",
            vec!["spec.exportTo: * leaves no room for other namespaces"],
        ),
    ] {
        assert_errors("VirtualService", &[(&format!("{{{hosts}, {route}}}"), &errors)]);
    }
}

#[test]
fn virtual_service_without_hosts_is_a_delegate() {
    assert_errors(
        "VirtualService",
        &[
            ("{http: [{route: [{destination: {host: a}}]}]}", &[]),
            (
                "{gateways: [mesh], http: [{route: [{destination: {host: a}}]}]}",
                &["spec.gateways: must be empty in a VirtualService without hosts (a delegate)"],
            ),
            (
                "{http: [{delegate: {name: x}}]}",
                &[
                    "spec.http[0].delegate: a VirtualService without hosts is a delegate itself and cannot have one",
                ],
            ),
            ("{hosts: [a], http: [{delegate: {name: x, namespace: y}}]}", &[]),
            ("{hosts: [a], http: [{delegate: {}}]}", &["spec.http[0].delegate.name: is required"]),
            ("{hosts: [a]}", &["spec: has no routes: http, tls or tcp is required"]),
        ],
    );
}

#[test]
fn tls_and_tcp_routes_are_checked() {
    let to = "route: [{destination: {host: a}}]";
    assert_errors(
        "VirtualService",
        &[
            (
                &format!(
                    "{{hosts: ['*.example.com'], tls: [{{match: [{{sniHosts: [a.example.com, '*.b.example.com']}}], {to}}}]}}"
                ),
                &[],
            ),
            (
                &format!(
                    "{{hosts: [a.example.com], tls: [{{match: [{{sniHosts: [b.example.com]}}], {to}}}]}}"
                ),
                &[
                    "spec.tls[0].match[0].sniHosts[0]: \"b.example.com\" is not covered by the hosts of the resource",
                ],
            ),
            (
                &format!("{{hosts: [a.example.com], tls: [{{match: [{{port: 1}}], {to}}}]}}"),
                &["spec.tls[0].match[0].sniHosts: is required"],
            ),
            (&format!("{{hosts: [a], tls: [{{{to}}}]}}"), &["spec.tls[0].match: is required"]),
            ("{hosts: [a], tcp: [{match: [{port: 1}]}]}", &["spec.tcp[0].route: is required"]),
            (
                &format!(
                    "{{hosts: [a], tcp: [{{match: [{{destinationSubnets: [10.0.0.0/40]}}], {to}}}]}}"
                ),
                &[
                    "spec.tcp[0].match[0].destinationSubnets[0]: \"10.0.0.0/40\" is neither an IP address nor a range such as 10.0.0.0/8",
                ],
            ),
        ],
    );
    assert_warnings(
        "VirtualService",
        &[(
            &format!(
                "{{hosts: [a], tcp: [{{{to}}}, {{match: [{{sourceSubnet: 10.0.0.1}}], {to}}}]}}"
            ),
            &[
                "spec.tcp[1].match[0].sourceSubnet: has no effect: it was never implemented",
                "spec.tcp[1]: is never reached: spec.tcp[0] matches everything",
            ],
        )],
    );
}
