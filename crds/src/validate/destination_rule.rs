//! Validation of DestinationRules, all but their load balancers.

use std::collections::BTreeSet;

use super::{NOT_YET, Validation, load_balancer, text};
use crate::{
    networking::{
        ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, DestinationRuleSpec,
        H2UpgradePolicy, HttpSettings, OutlierDetection, PortTrafficPolicy, TcpSettings,
        TrafficPolicy, TunnelSettings,
    },
    path::Path,
};

pub(super) fn validate(spec: &DestinationRuleSpec, namespace: &str, report: &mut Validation) {
    let path = Path::root("spec");
    report.check(&path.field("host"), text::host(&spec.host));
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy(policy, &path.field("trafficPolicy"), report);
    }
    let (list, mut names) = (path.field("subsets"), BTreeSet::new());
    for (index, subset) in spec.subsets.iter().enumerate() {
        let at = list.index(index);
        report.check(&at.field("name"), text::subset_name(&subset.name));
        if !names.insert(&subset.name) {
            report.error(&at.field("name"), format!("there are two subsets {:?}", subset.name));
        }
        text::labels(&subset.labels, &at.field("labels"), report);
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(policy, &at.field("trafficPolicy"), report);
        }
    }
    text::export_to(&spec.export_to, false, &path.field("exportTo"), report);
    text::selector(spec.workload_selector.as_ref(), &path.field("workloadSelector"), report);
    if spec.workload_selector.is_some() && spec.export_to.iter().any(|n| n != "." && n != namespace)
    {
        let reason =
            "a rule with a workloadSelector is for its own namespace only: leave it out, or say .";
        report.error(&path.field("exportTo"), reason);
    }
    if spec.workload_selector.is_none() {
        credentials(spec, report);
    }
}

/// Sidecars may read secrets only for a rule that names the workloads.
fn credentials(spec: &DestinationRuleSpec, report: &mut Validation) {
    let tls = spec.traffic_policy.as_ref().and_then(|policy| policy.tls.as_ref());
    if tls.is_some_and(|tls| !tls.credential_name.is_empty()) {
        let root = Path::root("spec");
        let (policy, name) = (root.field("trafficPolicy"), "credentialName");
        let reason = "takes effect in gateways only: sidecars need a workloadSelector for it";
        report.warn(&policy.field("tls").field(name), reason);
    }
}

fn traffic_policy(policy: &TrafficPolicy, path: &Path<'_>, report: &mut Validation) {
    if *policy == TrafficPolicy::default() {
        report.error(path, "must not be empty");
    }
    // One port's policy and the general one are made of the same parts.
    let common = PortTrafficPolicy {
        port: None,
        load_balancer: policy.load_balancer.clone(),
        connection_pool: policy.connection_pool.clone(),
        outlier_detection: policy.outlier_detection.clone(),
        tls: policy.tls.clone(),
    };
    parts(&common, path, report);
    let (list, mut ports) = (path.field("portLevelSettings"), BTreeSet::new());
    for (index, settings) in policy.port_level_settings.iter().enumerate() {
        let at = list.index(index);
        match &settings.port {
            None => report.error(&at.field("port"), "is required"),
            Some(port) => {
                report.check(&at.field("port").field("number"), text::port(port.number));
                if !ports.insert(port.number) {
                    report
                        .warn(&at, format!("port {} is there before: the first wins", port.number));
                }
            }
        }
        parts(settings, &at, report);
    }
    if let Some(tunnel) = &policy.tunnel {
        self::tunnel(tunnel, &path.field("tunnel"), report);
        report.warn(&path.field("tunnel"), NOT_YET);
    }
    if policy.proxy_protocol.is_some() {
        report.warn(&path.field("proxyProtocol"), NOT_YET);
    }
    if let Some(budget) = &policy.retry_budget {
        let at = path.field("retryBudget");
        if budget.percent.is_some_and(|share| !(0.0..=100.0).contains(&share)) {
            report.error(&at.field("percent"), "a share must be from 0 to 100");
        }
        report.check(&at.field("budgetInterval"), text::duration_or_zero(budget.budget_interval));
    }
}

fn parts(policy: &PortTrafficPolicy, path: &Path<'_>, report: &mut Validation) {
    if let Some(balancer) = &policy.load_balancer {
        load_balancer::validate(balancer, &path.field("loadBalancer"), report);
    }
    if let Some(pool) = &policy.connection_pool {
        connection_pool(pool, &path.field("connectionPool"), report);
    }
    if let Some(outlier) = &policy.outlier_detection {
        outlier_detection(outlier, &path.field("outlierDetection"), report);
    }
    if let Some(tls) = &policy.tls {
        client_tls(tls, &path.field("tls"), report);
    }
}

fn connection_pool(pool: &ConnectionPoolSettings, path: &Path<'_>, report: &mut Validation) {
    if pool.tcp.is_none() && pool.http.is_none() {
        report.error(path, "must have tcp or http");
    }
    if let Some(tcp) = &pool.tcp {
        tcp_settings(tcp, &path.field("tcp"), report);
    }
    if let Some(http) = &pool.http {
        http_settings(http, &path.field("http"), report);
    }
}

fn tcp_settings(tcp: &TcpSettings, path: &Path<'_>, report: &mut Validation) {
    report.check(&path.field("connectTimeout"), text::duration(tcp.connect_timeout));
    report.check(&path.field("maxConnectionDuration"), text::duration(tcp.max_connection_duration));
    report.check(&path.field("idleTimeout"), text::duration_or_zero(tcp.idle_timeout));
    if let Some(keepalive) = &tcp.tcp_keepalive {
        let at = path.field("tcpKeepalive");
        report.check(&at.field("time"), text::duration(keepalive.time));
        report.check(&at.field("interval"), text::duration(keepalive.interval));
    }
}

fn http_settings(http: &HttpSettings, path: &Path<'_>, report: &mut Validation) {
    report.check(&path.field("idleTimeout"), text::duration_or_zero(http.idle_timeout));
    if http.use_client_protocol && http.h2_upgrade_policy == H2UpgradePolicy::Upgrade {
        let reason = "cannot be set together with h2UpgradePolicy UPGRADE";
        report.error(&path.field("useClientProtocol"), reason);
    }
    if let Some(keep_alive) = &http.http2_keep_alive {
        let at = path.field("http2KeepAlive");
        report.check(&at.field("interval"), text::duration(keep_alive.interval));
        report.check(&at.field("timeout"), text::duration(keep_alive.timeout));
    }
}

fn outlier_detection(outlier: &OutlierDetection, path: &Path<'_>, report: &mut Validation) {
    report.check(&path.field("interval"), text::duration(outlier.interval));
    report.check(&path.field("baseEjectionTime"), text::duration(outlier.base_ejection_time));
    if outlier.consecutive_errors > 0 {
        let at = path.field("consecutiveErrors");
        let reason = if outlier.consecutive_5xx_errors.is_some() {
            "is deprecated, and consecutive5xxErrors counts in its place"
        } else {
            "is deprecated: it counts as consecutive5xxErrors"
        };
        report.warn(&at, reason);
    }
    if !outlier.split_external_local_origin_errors
        && outlier.consecutive_local_origin_failures.is_some_and(|count| count > 0)
    {
        let reason = "needs splitExternalLocalOriginErrors: true";
        report.error(&path.field("consecutiveLocalOriginFailures"), reason);
    }
    let list = path.field("outlierDetectionHttpErrorCodes");
    for (index, status) in outlier.outlier_detection_http_error_codes.iter().enumerate() {
        if !(100..600).contains(status) {
            report.error(&list.index(index), format!("{status} is not a status code"));
        }
    }
}

fn client_tls(tls: &ClientTlsSettings, path: &Path<'_>, report: &mut Validation) {
    let files = [
        ("clientCertificate", &tls.client_certificate),
        ("privateKey", &tls.private_key),
        ("caCertificates", &tls.ca_certificates),
    ];
    let skip = tls.insecure_skip_verify == Some(true);
    if skip && !(tls.ca_certificates.is_empty() && tls.ca_crl.is_empty()) {
        let reason = "cannot be set together with caCertificates or caCrl";
        report.error(&path.field("insecureSkipVerify"), reason);
    }
    if skip && !tls.subject_alt_names.is_empty() {
        let reason = "has no effect: with insecureSkipVerify nothing is verified";
        report.warn(&path.field("subjectAltNames"), reason);
    }
    match tls.mode {
        ClientTlsMode::Mutual => {
            if !tls.credential_name.is_empty() {
                for (field, _) in files.iter().filter(|(_, file)| !file.is_empty()) {
                    report.error(&path.field(field), "cannot be set together with credentialName");
                }
                return;
            }
            for (field, file) in &files[..2] {
                if file.is_empty() {
                    let reason = "is required for mode MUTUAL without credentialName";
                    report.error(&path.field(field), reason);
                }
            }
        }
        ClientTlsMode::Simple => {
            for (field, file) in &files[..2] {
                if !file.is_empty() {
                    report.warn(&path.field(field), "has no effect with mode SIMPLE");
                }
            }
            if !tls.credential_name.is_empty() && !tls.ca_certificates.is_empty() {
                report.error(
                    &path.field("caCertificates"),
                    "cannot be set together with credentialName",
                );
            }
        }
        ClientTlsMode::IstioMutual | ClientTlsMode::Disable => {
            for (field, _) in files.iter().filter(|(_, file)| !file.is_empty()) {
                report.warn(&path.field(field), format!("has no effect with mode {}", tls.mode));
            }
        }
    }
}

fn tunnel(tunnel: &TunnelSettings, path: &Path<'_>, report: &mut Validation) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        let reason = format!("{:?} is neither CONNECT nor POST", tunnel.protocol);
        report.error(&path.field("protocol"), reason);
    }
    report.check(&path.field("targetHost"), text::exact_host(&tunnel.target_host));
}
