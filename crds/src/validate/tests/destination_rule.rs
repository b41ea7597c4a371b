//! DestinationRules.

use super::*;

#[test]
fn destination_rules_are_checked() {
    assert_errors(
        "DestinationRule",
        &[
            ("{host: '*.example.com', subsets: [{name: v1, labels: {version: v1}}]}", &[]),
            ("{host: 'a b'}", &["spec.host: \"a b\" is not a domain name because of \"a b\""]),
            (
                "{host: a, subsets: [{name: v1}, {name: v1}, {name: 'a/b'}]}",
                &[
                    "spec.subsets[1].name: there are two subsets \"v1\"",
                    "spec.subsets[2].name: \"a/b\" is not a name for a subset: letters, digits, - _ and . only",
                ],
            ),
            ("{host: a, trafficPolicy: {}}", &["spec.trafficPolicy: must not be empty"]),
            (
                "{host: a, subsets: [{name: b, trafficPolicy: {connectionPool: {}}}]}",
                &["spec.subsets[0].trafficPolicy.connectionPool: must have tcp or http"],
            ),
            (
                "{host: a, workloadSelector: {matchLabels: {app: b}}, exportTo: ['*']}",
                &[
                    "spec.exportTo: a rule with a workloadSelector is for its own namespace only: leave it out, or say .",
                ],
            ),
            ("{host: a, workloadSelector: {matchLabels: {app: b}}, exportTo: [b]}", &[]),
        ],
    );
}

#[test]
fn traffic_policies_are_checked() {
    for (policy, errors) in [
        (
            "connectionPool: {tcp: {connectTimeout: 0s, idleTimeout: 0s, tcpKeepalive: {time: 0s}}}",
            vec![
                ".connectionPool.tcp.connectTimeout: a duration must be 1ms at least",
                ".connectionPool.tcp.tcpKeepalive.time: a duration must be 1ms at least",
            ],
        ),
        (
            "connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}",
            vec![
                ".connectionPool.http.useClientProtocol: cannot be set together with h2UpgradePolicy UPGRADE",
            ],
        ),
        (
            "outlierDetection: {interval: 0s, consecutiveLocalOriginFailures: 3}",
            vec![
                ".outlierDetection.interval: a duration must be 1ms at least",
                ".outlierDetection.consecutiveLocalOriginFailures: needs splitExternalLocalOriginErrors: true",
            ],
        ),
        (
            "loadBalancer: {consistentHash: {}}",
            vec![
                ".loadBalancer.consistentHash: must say what to look at: httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName",
            ],
        ),
        (
            "loadBalancer: {consistentHash: {httpHeaderName: 'a b', maglev: {tableSize: 100}}}",
            vec![
                ".loadBalancer.consistentHash.httpHeaderName: \"a b\" is not the name of a header",
                ".loadBalancer.consistentHash.maglev.tableSize: must be a prime, at most 5000011",
            ],
        ),
        (
            "loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 0s}, maglev: {tableSize: 65537}}}",
            vec![],
        ),
        (
            "loadBalancer: {localityLbSetting: {distribute: [{from: 'a/*', to: {a/b: 60, 'c/*': 30}}], failover: [{from: a, to: a}]}}",
            vec![
                ".loadBalancer.localityLbSetting: only one of distribute, failover can be set",
                ".loadBalancer.localityLbSetting.distribute[0].to: the shares add up to 90, not to 100",
                ".loadBalancer.localityLbSetting.failover[0]: a region cannot stand in for itself",
            ],
        ),
        (
            "loadBalancer: {localityLbSetting: {distribute: [{from: '*/a', to: {a: 100}}]}}",
            vec![
                ".loadBalancer.localityLbSetting.distribute[0].from: \"*/a\" is not a locality: region/zone/subzone, * only at the end",
            ],
        ),
        (
            "loadBalancer: {simple: ROUND_ROBIN, warmup: {duration: 0s, minimumPercent: 101, aggression: 0.5}}",
            vec![
                ".loadBalancer.warmup.duration: a duration must be 1ms at least",
                ".loadBalancer.warmup.minimumPercent: a share must be from 0 to 100",
                ".loadBalancer.warmup.aggression: must be 1 at least",
            ],
        ),
        ("tls: {mode: ISTIO_MUTUAL}", vec![]),
        (
            "tls: {mode: MUTUAL}",
            vec![
                ".tls.clientCertificate: is required for mode MUTUAL without credentialName",
                ".tls.privateKey: is required for mode MUTUAL without credentialName",
            ],
        ),
        (
            "tls: {mode: MUTUAL, credentialName: c, privateKey: /k}",
            vec![".tls.privateKey: cannot be set together with credentialName"],
        ),
        (
            "tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: /ca}",
            vec![".tls.insecureSkipVerify: cannot be set together with caCertificates or caCrl"],
        ),
        (
            "portLevelSettings: [{tls: {mode: DISABLE}}, {port: {number: 0}}]",
            vec![
                ".portLevelSettings[0].port: is required",
                ".portLevelSettings[1].port.number: a port must be from 1 to 65535",
            ],
        ),
        (
            "tunnel: {protocol: GET, targetHost: 'a b', targetPort: 1}",
            vec![
                ".tunnel.protocol: \"GET\" is neither CONNECT nor POST",
                ".tunnel.targetHost: \"a b\" is not a domain name because of \"a b\"",
            ],
        ),
        (
            "retryBudget: {percent: 101}",
            vec![".retryBudget.percent: a share must be from 0 to 100"],
        ),
    ] {
        let spec = format!("{{host: a, trafficPolicy: {{{policy}}}}}");
        let errors: Vec<String> = errors.iter().map(|e| format!("spec.trafficPolicy{e}")).collect();
        assert_eq!(
            lines(&validate(&resource("DestinationRule", &spec)).errors),
            errors,
            "{policy}"
        );
    }
}

#[test]
fn deprecated_and_surprising_parts_of_traffic_policies_are_warned_of() {
    for (policy, warnings) in [
        (
            "loadBalancer: {simple: LEAST_CONN, warmupDurationSecs: 10s}",
            vec![
                "loadBalancer.simple: LEAST_CONN is deprecated: it counts as LEAST_REQUEST",
                "loadBalancer.warmupDurationSecs: is deprecated: use warmup.duration",
                "loadBalancer.warmupDurationSecs: has no effect in this version of Weft",
            ],
        ),
        (
            "loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 10}}",
            vec![
                "loadBalancer.consistentHash.minimumRingSize: is deprecated: use ringHash.minimumRingSize",
            ],
        ),
        (
            "outlierDetection: {consecutiveErrors: 5, consecutive5xxErrors: 3}",
            vec![
                "outlierDetection.consecutiveErrors: is deprecated, and consecutive5xxErrors counts in its place",
            ],
        ),
        (
            "portLevelSettings: [{port: {number: 1}}, {port: {number: 1}}]",
            vec!["portLevelSettings[1]: port 1 is there before: the first wins"],
        ),
        (
            "tls: {mode: SIMPLE, credentialName: c}",
            vec![
                "tls.credentialName: takes effect in gateways only: sidecars need a workloadSelector for it",
            ],
        ),
        (
            "tls: {mode: DISABLE, privateKey: /k}",
            vec!["tls.privateKey: has no effect with mode DISABLE"],
        ),
    ] {
        let warnings: Vec<String> =
            warnings.iter().map(|w| format!("spec.trafficPolicy.{w}")).collect();
        let warnings: Vec<&str> = warnings.iter().map(String::as_str).collect();
        assert_warnings(
            "DestinationRule",
            &[(&format!("{{host: a, trafficPolicy: {{{policy}}}}}"), &warnings)],
        );
    }
}
