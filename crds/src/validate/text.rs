//! Whether texts are what their fields say: hosts, names, ports, addresses, regular expressions.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::Validation;
use crate::{Duration, Percent, StringMatch, WorkloadSelector, path::Path};

/// Regular expressions longer than this are refused.
const MAX_REGEX: usize = 1024;

type Checked = Result<(), String>;

/// A DNS label: letters, digits and inner hyphens.
pub(super) fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A domain name without wildcards; a dot at the end is allowed.
pub(super) fn domain(name: &str) -> Checked {
    let labels = name.strip_suffix('.').unwrap_or(name);
    if labels.is_empty() {
        return Err("a host cannot be empty".into());
    }
    if name.len() > 255 {
        return Err("a host has at most 255 characters".into());
    }
    if let Some(bad) = labels.split('.').find(|label| !is_label(label)) {
        return Err(format!("{name:?} is not a domain name because of {bad:?}"));
    }
    let last = labels.rsplit('.').next().unwrap_or_default();
    if labels.contains('.') && last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{name:?} is neither a domain name nor an IP address"));
    }
    Ok(())
}

/// A domain name; its first label can be `*` or begin with `*-`.
pub(super) fn wildcard_domain(name: &str) -> Checked {
    if name == "*" {
        return Ok(());
    }
    match name.strip_prefix('*') {
        Some(rest) => {
            let rest = rest.strip_prefix('.').or_else(|| rest.strip_prefix('-'));
            rest.ok_or_else(|| format!("{name:?}: * can only stand for whole labels"))
                .and_then(domain)
                .map_err(|reason| if name.matches('*').count() > 1 { star(name) } else { reason })
        }
        None if name.contains('*') => Err(star(name)),
        None => domain(name),
    }
}

fn star(name: &str) -> String {
    format!("{name:?}: * can only stand at the beginning")
}

/// A domain name with wildcards, or an IP address.
pub(super) fn host(name: &str) -> Checked {
    if name.parse::<IpAddr>().is_ok() { Ok(()) } else { wildcard_domain(name) }
}

/// A domain name without wildcards, or an IP address.
pub(super) fn exact_host(name: &str) -> Checked {
    if name.parse::<IpAddr>().is_ok() { Ok(()) } else { domain(name) }
}

/// The name of a gateway: `mesh`, `name`, `namespace/name` or the old `name.namespace`.
pub(super) fn gateway_name(name: &str) -> Checked {
    let parts: Vec<&str> = name.split('/').collect();
    let valid = match parts.as_slice() {
        [name] => domain(name).is_ok(),
        [namespace, name] => (*namespace == "." || is_label(namespace)) && domain(name).is_ok(),
        _ => false,
    };
    if valid { Ok(()) } else { Err(format!("{name:?} is not a gateway: name or namespace/name")) }
}

/// A port that can be called.
pub(super) fn port(number: u16) -> Checked {
    if number == 0 { Err("a port must be from 1 to 65535".into()) } else { Ok(()) }
}

/// An IP address or a range in CIDR notation.
pub(super) fn ip_or_cidr(text: &str) -> Checked {
    if text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
        return Ok(());
    }
    Err(format!("{text:?} is neither an IP address nor a range such as 10.0.0.0/8"))
}

/// A header's name.
pub(super) fn header_name(name: &str) -> Checked {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !name.is_empty() && name.bytes().all(token) {
        return Ok(());
    }
    Err(format!("{name:?} is not the name of a header"))
}

/// A header's value.
pub(super) fn header_value(value: &str) -> Checked {
    if value.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err("a header's value cannot contain a line break".into());
    }
    Ok(())
}

/// A method.
pub(super) fn method(name: &str) -> Checked {
    header_name(name).map_err(|_| format!("{name:?} is not a method"))
}

/// A regular expression.
pub(super) fn regex(pattern: &str) -> Checked {
    if pattern.len() > MAX_REGEX {
        return Err(format!("a regular expression has at most {MAX_REGEX} characters"));
    }
    weft_regex::whole(pattern).map(drop).map_err(|error| {
        // The parser's message draws the place over several lines; its last line says what is wrong.
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("not a regular expression: {last}")
    })
}

/// What a text is compared with. `*` as a regular expression asks for presence of headers and parameters.
pub(super) fn string_match(text: &StringMatch, presence: bool) -> Checked {
    match text {
        StringMatch::Regex(_) if presence && text.is_presence() => Ok(()),
        StringMatch::Regex(pattern) => regex(pattern),
        StringMatch::Unset | StringMatch::Exact(_) | StringMatch::Prefix(_) => Ok(()),
    }
}

/// A duration of a millisecond at least.
pub(super) fn duration(duration: Option<Duration>) -> Checked {
    match duration {
        Some(duration) if duration < Duration::from_millis(1) => {
            Err("a duration must be 1ms at least".into())
        }
        _ => Ok(()),
    }
}

/// A duration of no time, which means no limit, or of a millisecond at least.
pub(super) fn duration_or_zero(value: Option<Duration>) -> Checked {
    duration(value.filter(|d| !d.is_zero()))
}

/// A share.
pub(super) fn percent(share: Option<Percent>) -> Checked {
    match share {
        Some(Percent { value }) if !(0.0..=100.0).contains(&value) => {
            Err(format!("a share must be from 0 to 100, not {value}"))
        }
        _ => Ok(()),
    }
}

/// The name of a subset; it becomes a part of cluster names.
pub(super) fn subset_name(name: &str) -> Checked {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if name.is_empty() {
        return Err("a subset needs a name".into());
    }
    if name.len() > 63 || !name.bytes().all(valid) {
        return Err(format!(
            "{name:?} is not a name for a subset: letters, digits, - _ and . only"
        ));
    }
    Ok(())
}

/// Labels.
pub(super) fn labels(labels: &BTreeMap<String, String>, path: &Path<'_>, report: &mut Validation) {
    for (key, value) in labels {
        report.check(&path.key(key), label_key(key).and_then(|()| label_value(value)));
    }
}

fn label_key(key: &str) -> Checked {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    if prefix.is_some_and(|prefix| domain(prefix).is_err()) || name.is_empty() || !is_tag(name) {
        return Err(format!("{key:?} is not the name of a label"));
    }
    Ok(())
}

fn label_value(value: &str) -> Checked {
    if is_tag(value) { Ok(()) } else { Err(format!("{value:?} is not the value of a label")) }
}

fn is_tag(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_none_or(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

/// The labels of a selector.
pub(super) fn selector(
    selector: Option<&WorkloadSelector>,
    path: &Path<'_>,
    report: &mut Validation,
) {
    if let Some(selector) = selector {
        labels(&selector.match_labels, &path.field("matchLabels"), report);
    }
}

/// The namespaces that see a resource. `nowhere` is whether `~` is allowed.
pub(super) fn export_to(
    namespaces: &[String],
    nowhere: bool,
    path: &Path<'_>,
    report: &mut Validation,
) {
    for (index, namespace) in namespaces.iter().enumerate() {
        let at = path.index(index);
        match namespace.as_str() {
            "." | "*" => {}
            "~" if nowhere => {}
            name if is_label(name) => {}
            name => report.error(&at, format!("{name:?} is not a namespace, nor one of . and *")),
        }
        if namespaces[..index].contains(namespace) {
            report.warn(&at, format!("{namespace:?} is there twice"));
        }
    }
    let has = |name: &str| namespaces.iter().any(|n| n == name);
    for alone in ["*", "~"] {
        if has(alone) && namespaces.len() > 1 {
            report.error(path, format!("{alone} leaves no room for other namespaces"));
        }
    }
}
