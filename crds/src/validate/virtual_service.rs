//! Validation of VirtualServices, all but their HTTP routes.

use super::{Validation, http_route, text};
use crate::{
    networking::{
        Destination, L4MatchAttributes, RouteDestination, TcpRoute, TlsMatchAttributes, TlsRoute,
        VirtualServiceSpec,
    },
    path::Path,
};

/// The gateway that stands for every sidecar.
const MESH: &str = "mesh";

pub(super) fn validate(spec: &VirtualServiceSpec, report: &mut Validation) {
    let path = Path::root("spec");
    let sidecars = spec.gateways.is_empty() || spec.gateways.iter().any(|g| g == MESH);
    hosts(spec, sidecars, report);
    gateways(&spec.gateways, &path.field("gateways"), report);
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        report.error(&path, "has no routes: http, tls or tcp is required");
    }
    http_route::validate_all(spec, report);
    let tls = path.field("tls");
    for (index, route) in spec.tls.iter().enumerate() {
        tls_route(route, &spec.hosts, &tls.index(index), report);
    }
    let tcp = path.field("tcp");
    for (index, route) in spec.tcp.iter().enumerate() {
        tcp_route(route, &tcp.index(index), report);
    }
    if let Some(index) = spec.tcp.iter().position(|route| route.matches.is_empty())
        && index + 1 < spec.tcp.len()
    {
        let reason = format!("is never reached: spec.tcp[{index}] matches everything");
        report.warn(&tcp.index(index + 1), reason);
    }
    text::export_to(&spec.export_to, false, &path.field("exportTo"), report);
}

fn hosts(spec: &VirtualServiceSpec, sidecars: bool, report: &mut Validation) {
    let path = Path::root("spec");
    if spec.hosts.is_empty() {
        // Without hosts it holds routes for another one.
        for (field, empty) in [
            ("gateways", spec.gateways.is_empty()),
            ("tls", spec.tls.is_empty()),
            ("tcp", spec.tcp.is_empty()),
        ] {
            if !empty {
                let reason = "must be empty in a VirtualService without hosts (a delegate)";
                report.error(&path.field(field), reason);
            }
        }
        return;
    }
    let list = path.field("hosts");
    for (index, host) in spec.hosts.iter().enumerate() {
        let at = list.index(index);
        report.check(&at, text::host(host));
        if host == "*" && sidecars {
            let reason = "* is allowed for gateways only, and the gateways here include mesh";
            report.error(&at, reason);
        }
        if spec.hosts[..index].iter().any(|before| before.eq_ignore_ascii_case(host)) {
            report.warn(&at, format!("{host:?} is there twice"));
        }
    }
}

/// Names of gateways.
pub(super) fn gateways(names: &[String], path: &Path<'_>, report: &mut Validation) {
    for (index, name) in names.iter().enumerate() {
        report.check(&path.index(index), text::gateway_name(name));
    }
}

/// A destination of any kind of route.
pub(super) fn destination(destination: &Destination, path: &Path<'_>, report: &mut Validation) {
    let host = path.field("host");
    match destination.host.as_str() {
        "" => report.error(&host, "is required"),
        "*" => report.error(&host, "a destination cannot be *"),
        name => report.check(&host, text::host(name)),
    }
    if !destination.subset.is_empty() {
        report.check(&path.field("subset"), text::subset_name(&destination.subset));
    }
    if let Some(port) = &destination.port {
        report.check(&path.field("port").field("number"), text::port(port.number));
    }
}

/// Shares of several destinations.
pub(super) fn weights(
    weights: impl ExactSizeIterator<Item = u32>,
    path: &Path<'_>,
    report: &mut Validation,
) {
    let count = weights.len();
    let total: u64 = weights.map(u64::from).sum();
    if count > 1 && total == 0 {
        report.error(path, "the weights of several destinations cannot all be 0");
    }
    if total > u64::from(u32::MAX) {
        report.error(path, "the weights add up to more than 4294967295");
    }
}

fn destinations(route: &[RouteDestination], path: &Path<'_>, report: &mut Validation) {
    let list = path.field("route");
    if route.is_empty() {
        report.error(&list, "is required");
    }
    weights(route.iter().map(|d| d.weight), &list, report);
    for (index, target) in route.iter().enumerate() {
        destination(&target.destination, &list.index(index).field("destination"), report);
    }
}

fn tls_route(route: &TlsRoute, hosts: &[String], path: &Path<'_>, report: &mut Validation) {
    let list = path.field("match");
    if route.matches.is_empty() {
        report.error(&list, "is required");
    }
    for (index, attributes) in route.matches.iter().enumerate() {
        tls_match(attributes, hosts, &list.index(index), report);
    }
    destinations(&route.route, path, report);
}

fn tls_match(
    attributes: &TlsMatchAttributes,
    hosts: &[String],
    path: &Path<'_>,
    report: &mut Validation,
) {
    let names = path.field("sniHosts");
    if attributes.sni_hosts.is_empty() {
        report.error(&names, "is required");
    }
    for (index, name) in attributes.sni_hosts.iter().enumerate() {
        let at = names.index(index);
        report.check(&at, text::wildcard_domain(name));
        if !hosts.is_empty() && !hosts.iter().any(|host| covers(host, name)) {
            report.error(&at, format!("{name:?} is not covered by the hosts of the resource"));
        }
    }
    subnets(&attributes.destination_subnets, path, report);
    source(attributes.port, &attributes.source_labels, path, report);
    gateways(&attributes.gateways, &path.field("gateways"), report);
}

/// Whether every name that `name` stands for is one that `host` stands for.
fn covers(host: &str, name: &str) -> bool {
    let (host, name) = (host.to_ascii_lowercase(), name.to_ascii_lowercase());
    match host.strip_prefix('*') {
        Some(suffix) => name.trim_start_matches('*').ends_with(suffix),
        // A short name gets its domain later, so that it may turn out to be the same.
        None => host == name || name.strip_prefix(&host).is_some_and(|rest| rest.starts_with('.')),
    }
}

fn tcp_route(route: &TcpRoute, path: &Path<'_>, report: &mut Validation) {
    let list = path.field("match");
    for (index, attributes) in route.matches.iter().enumerate() {
        tcp_match(attributes, &list.index(index), report);
    }
    destinations(&route.route, path, report);
}

fn tcp_match(attributes: &L4MatchAttributes, path: &Path<'_>, report: &mut Validation) {
    if !attributes.source_subnet.is_empty() {
        report.warn(&path.field("sourceSubnet"), "has no effect: it was never implemented");
    }
    subnets(&attributes.destination_subnets, path, report);
    source(attributes.port, &attributes.source_labels, path, report);
    gateways(&attributes.gateways, &path.field("gateways"), report);
}

fn subnets(subnets: &[String], path: &Path<'_>, report: &mut Validation) {
    let list = path.field("destinationSubnets");
    for (index, subnet) in subnets.iter().enumerate() {
        report.check(&list.index(index), text::ip_or_cidr(subnet));
    }
}

/// The port that was called and the caller's labels.
pub(super) fn source(
    port: Option<u16>,
    labels: &std::collections::BTreeMap<String, String>,
    path: &Path<'_>,
    report: &mut Validation,
) {
    if let Some(port) = port {
        report.check(&path.field("port"), text::port(port));
    }
    text::labels(labels, &path.field("sourceLabels"), report);
}
