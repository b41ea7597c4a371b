//! Validation of ServiceEntries.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Validation, gateway, text};
use crate::{
    networking::{ServiceEntryResolution, ServiceEntrySpec, WorkloadEntrySpec},
    path::Path,
};

pub(super) fn validate(spec: &ServiceEntrySpec, report: &mut Validation) {
    let path = Path::root("spec");
    hosts(spec, &path.field("hosts"), report);
    addresses(spec, &path.field("addresses"), report);
    ports(spec, &path.field("ports"), report);
    endpoints(spec, report);
    if let Some(selector) = &spec.workload_selector {
        let at = path.field("workloadSelector");
        text::labels(&selector.labels, &at.field("labels"), report);
    }
    text::export_to(&spec.export_to, true, &path.field("exportTo"), report);
}

fn by_dns(resolution: ServiceEntryResolution) -> bool {
    matches!(resolution, ServiceEntryResolution::Dns | ServiceEntryResolution::DnsRoundRobin)
}

fn hosts(spec: &ServiceEntrySpec, path: &Path<'_>, report: &mut Validation) {
    for (index, host) in spec.hosts.iter().enumerate() {
        let at = path.index(index);
        if host == "*" {
            report.error(&at, "a host cannot be *");
            continue;
        }
        report.check(&at, text::wildcard_domain(host));
        if !host.starts_with('*') {
            continue;
        }
        if by_dns(spec.resolution) && spec.endpoints.is_empty() {
            let reason = format!(
                "resolution {} asks DNS for the host, so that it cannot be a wildcard",
                spec.resolution
            );
            report.error(&at, reason);
        }
    }
}

fn addresses(spec: &ServiceEntrySpec, path: &Path<'_>, report: &mut Validation) {
    let ranges =
        matches!(spec.resolution, ServiceEntryResolution::None | ServiceEntryResolution::Static);
    for (index, address) in spec.addresses.iter().enumerate() {
        let at = path.index(index);
        report.check(&at, text::ip_or_cidr(address));
        if address.contains('/') && !ranges {
            report.error(&at, "ranges are allowed with resolution NONE or STATIC only");
        }
    }
}

fn ports(spec: &ServiceEntrySpec, path: &Path<'_>, report: &mut Validation) {
    if spec.ports.is_empty() {
        report.warn(path, "is empty, so that the service cannot be called");
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in spec.ports.iter().enumerate() {
        let at = path.index(index);
        if !text::is_label(&port.name) {
            report.error(&at.field("name"), format!("{:?} is not the name of a port", port.name));
        }
        if !names.insert(&port.name) {
            report.error(&at.field("name"), format!("there are two ports {:?}", port.name));
        }
        if !numbers.insert(port.number) {
            report.error(&at.field("number"), format!("there are two ports {}", port.number));
        }
        if !port.protocol.is_empty() {
            report.check(&at.field("protocol"), gateway::protocol(&port.protocol));
        }
    }
}

fn endpoints(spec: &ServiceEntrySpec, report: &mut Validation) {
    let root = Path::root("spec");
    let list = root.field("endpoints");
    let count = spec.endpoints.len();
    match spec.resolution {
        ServiceEntryResolution::None if count > 0 => {
            report.error(&list, "cannot be set with resolution NONE: use STATIC or DNS");
        }
        ServiceEntryResolution::Static if count == 0 && spec.workload_selector.is_none() => {
            report.warn(&list, "is empty, and resolution STATIC finds no endpoints elsewhere");
        }
        ServiceEntryResolution::DnsRoundRobin if count > 1 => {
            report.error(&list, "resolution DNS_ROUND_ROBIN takes one endpoint at most");
        }
        ServiceEntryResolution::DynamicDns if count > 0 => {
            report.error(&list, "cannot be set with resolution DYNAMIC_DNS");
        }
        _ => {}
    }
    for (index, entry) in spec.endpoints.iter().enumerate() {
        endpoint(entry, spec, &list.index(index), report);
    }
}

fn endpoint(
    entry: &WorkloadEntrySpec,
    spec: &ServiceEntrySpec,
    path: &Path<'_>,
    report: &mut Validation,
) {
    let at = path.field("address");
    if let Some(socket) = entry.address.strip_prefix("unix://") {
        if !socket.starts_with(['/', '@']) {
            report.error(&at, "a unix:// address needs an absolute path");
        }
        if !entry.ports.is_empty() {
            report.error(&path.field("ports"), "a unix:// address has no ports");
        }
        if by_dns(spec.resolution) {
            report.error(&at, "a unix:// address needs resolution STATIC");
        }
    } else if entry.address.is_empty() {
        if entry.network.is_empty() {
            report.error(&at, "is required where network is not set");
        }
    } else if by_dns(spec.resolution) {
        report.check(&at, text::exact_host(&entry.address));
    } else if entry.address.parse::<IpAddr>().is_err() {
        let reason = format!("{:?} is not an IP address: names need resolution DNS", entry.address);
        report.error(&at, reason);
    }
    let list = path.field("ports");
    for (name, number) in &entry.ports {
        report.check(&list.key(name), text::port(*number));
        if !spec.ports.iter().any(|port| port.name == *name) {
            report.error(&list.key(name), "is not a port of the service");
        }
    }
    text::labels(&entry.labels, &path.field("labels"), report);
}
