//! Validation of load balancers.

use std::collections::BTreeSet;

use super::{NOT_YET, Validation, text};
use crate::{
    networking::{
        ConsistentHashLb, LoadBalancerSettings, LocalityDistribute, LocalityFailover,
        LocalityLbSetting, SimpleLb,
    },
    path::Path,
};

pub(super) fn validate(balancer: &LoadBalancerSettings, path: &Path<'_>, report: &mut Validation) {
    if balancer.simple == SimpleLb::LeastConn {
        let reason = "LEAST_CONN is deprecated: it counts as LEAST_REQUEST";
        report.warn(&path.field("simple"), reason);
    }
    if let Some(hash) = &balancer.consistent_hash {
        consistent_hash(hash, &path.field("consistentHash"), report);
    }
    warmup(balancer, path, report);
    if let Some(setting) = &balancer.locality_lb_setting {
        locality(setting, &path.field("localityLbSetting"), report);
        report.warn(&path.field("localityLbSetting"), NOT_YET);
    }
    if let Some(setting) = &balancer.zone_aware_lb_setting {
        report.warn(&path.field("zoneAwareLbSetting"), NOT_YET);
        failovers(&setting.failover, &path.field("zoneAwareLbSetting").field("failover"), report);
        if balancer.locality_lb_setting.is_some() {
            report.error(path, "only one of localityLbSetting, zoneAwareLbSetting can be set");
        }
    }
}

fn consistent_hash(hash: &ConsistentHashLb, path: &Path<'_>, report: &mut Validation) {
    let keyless = hash.http_header_name.is_none()
        && hash.http_cookie.is_none()
        && hash.use_source_ip.is_none()
        && hash.http_query_parameter_name.is_none();
    if keyless {
        let reason = "must say what to look at: httpHeaderName, httpCookie, useSourceIp or httpQueryParameterName";
        report.error(path, reason);
    }
    if let Some(name) = &hash.http_header_name {
        report.check(&path.field("httpHeaderName"), text::header_name(name));
    }
    if hash.http_query_parameter_name.as_deref() == Some("") {
        report.error(&path.field("httpQueryParameterName"), "must not be empty");
    }
    if let Some(cookie) = &hash.http_cookie {
        let at = path.field("httpCookie");
        report.check(
            &at.field("name"),
            text::header_name(&cookie.name).map_err(|_| "is not the name of a cookie".into()),
        );
        report.check(&at.field("ttl"), text::duration_or_zero(cookie.ttl));
    }
    if hash.minimum_ring_size > 0 {
        report.warn(&path.field("minimumRingSize"), "is deprecated: use ringHash.minimumRingSize");
    }
    if let Some(maglev) = &hash.maglev
        && maglev.table_size > 0
        && (maglev.table_size > 5_000_011 || !is_prime(maglev.table_size))
    {
        let reason = "must be a prime, at most 5000011";
        report.error(&path.field("maglev").field("tableSize"), reason);
    }
}

fn is_prime(number: u64) -> bool {
    number >= 2
        && (2..).take_while(|d| d * d <= number).all(|divisor| !number.is_multiple_of(divisor))
}

fn warmup(balancer: &LoadBalancerSettings, path: &Path<'_>, report: &mut Validation) {
    if balancer.warmup_duration_secs.is_some() {
        let at = path.field("warmupDurationSecs");
        report.warn(&at, "is deprecated: use warmup.duration");
        report.warn(&at, NOT_YET);
        report.check(&at, text::duration(balancer.warmup_duration_secs));
        if balancer.warmup.is_some() {
            report.error(path, "only one of warmup, warmupDurationSecs can be set");
        }
    }
    let Some(warmup) = &balancer.warmup else { return };
    let at = path.field("warmup");
    report.warn(&at, NOT_YET);
    report.check(&at.field("duration"), text::duration(warmup.duration));
    if warmup.minimum_percent.is_some_and(|share| !(0.0..=100.0).contains(&share)) {
        report.error(&at.field("minimumPercent"), "a share must be from 0 to 100");
    }
    if warmup.aggression.is_some_and(|aggression| aggression.is_nan() || aggression < 1.0) {
        report.error(&at.field("aggression"), "must be 1 at least");
    }
    if balancer.consistent_hash.is_some()
        || matches!(balancer.simple, SimpleLb::Random | SimpleLb::Passthrough)
    {
        report.warn(&at, "takes effect with ROUND_ROBIN and LEAST_REQUEST only");
    }
}

fn locality(setting: &LocalityLbSetting, path: &Path<'_>, report: &mut Validation) {
    if !setting.distribute.is_empty() && !setting.failover.is_empty() {
        report.error(path, "only one of distribute, failover can be set");
    }
    if !setting.distribute.is_empty() && !setting.failover_priority.is_empty() {
        report.error(path, "only one of distribute, failoverPriority can be set");
    }
    let (list, mut origins) = (path.field("distribute"), BTreeSet::new());
    for (index, distribute) in setting.distribute.iter().enumerate() {
        let at = list.index(index);
        if !origins.insert(&distribute.from) {
            report.error(&at.field("from"), format!("{:?} is there twice", distribute.from));
        }
        self::distribute(distribute, &at, report);
    }
    failovers(&setting.failover, &path.field("failover"), report);
    let list = path.field("failoverPriority");
    for (index, label) in setting.failover_priority.iter().enumerate() {
        if label.is_empty() || setting.failover_priority[..index].contains(label) {
            report.error(&list.index(index), "must not be empty or there twice");
        }
    }
}

fn distribute(distribute: &LocalityDistribute, path: &Path<'_>, report: &mut Validation) {
    report.check(&path.field("from"), locality_name(&distribute.from));
    let list = path.field("to");
    for (locality, weight) in &distribute.to {
        report.check(&list.key(locality), locality_name(locality));
        if !(1..=100).contains(weight) {
            report.error(&list.key(locality), "a share must be from 1 to 100");
        }
    }
    let total: u64 = distribute.to.values().map(|weight| u64::from(*weight)).sum();
    if total != 100 {
        report.error(&list, format!("the shares add up to {total}, not to 100"));
    }
}

/// `region/zone/subzone`, parts from the right left out, `*` only as the last part.
fn locality_name(name: &str) -> Result<(), String> {
    let parts: Vec<&str> = name.split('/').collect();
    let star = parts.iter().position(|part| part.contains('*'));
    let star_last = star.is_none_or(|at| at + 1 == parts.len() && parts[at] == "*");
    if (1..=3).contains(&parts.len()) && parts.iter().all(|part| !part.is_empty()) && star_last {
        return Ok(());
    }
    Err(format!("{name:?} is not a locality: region/zone/subzone, * only at the end"))
}

fn failovers(failovers: &[LocalityFailover], path: &Path<'_>, report: &mut Validation) {
    for (index, failover) in failovers.iter().enumerate() {
        let at = path.index(index);
        if failover.from == failover.to {
            report.error(&at, "a region cannot stand in for itself");
        }
        for (field, region) in [("from", &failover.from), ("to", &failover.to)] {
            if region.is_empty() || region.contains(['/', '*']) {
                report.error(&at.field(field), format!("{region:?} is not a region"));
            }
        }
    }
}
