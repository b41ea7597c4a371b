//! Which traffic of a pod goes through its proxy.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::names as annotation;
use crate::config::InjectConfig;

/// Inbound ports that are the proxy's own: never captured.
const OWN_PORTS: [u16; 3] = [15090, 15021, 15020];

/// How traffic is captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Interception {
    /// Redirected to the proxy.
    #[default]
    Redirect,
    /// Not at all.
    None,
}

impl Interception {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "REDIRECT",
            Self::None => "NONE",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "REDIRECT" => Ok(Self::Redirect),
            "NONE" => Ok(Self::None),
            "TPROXY" => Err("TPROXY is not supported by Weft; use REDIRECT".to_owned()),
            _ => Err(format!("{text:?} is neither REDIRECT nor NONE")),
        }
    }
}

/// What is captured, as `weft-proxy init` takes it. Lists are normalised: separated by commas, without blanks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Capture {
    pub(crate) mode: Interception,
    pub(crate) include_outbound_ip_ranges: String,
    pub(crate) exclude_outbound_ip_ranges: String,
    pub(crate) include_outbound_ports: String,
    pub(crate) exclude_outbound_ports: String,
    pub(crate) include_inbound_ports: String,
    pub(crate) exclude_inbound_ports: String,
    pub(crate) exclude_interfaces: String,
    pub(crate) virtual_interfaces: String,
}

type Check = fn(&str) -> Result<String, String>;

impl Capture {
    /// What the configuration says for every pod.
    pub(crate) fn of(config: &InjectConfig) -> Result<Self, (&'static str, String)> {
        let (capture, mut problems) = Self::build(config, |_| None);
        problems.pop().map_or(Ok(capture), |(place, reason)| Err((place.field, reason)))
    }

    /// What the configuration says, with a pod's annotations over it; and what is wrong with those.
    pub(crate) fn read<'a>(
        config: &InjectConfig,
        annotation: impl Fn(&str) -> Option<&'a str>,
    ) -> (Self, Vec<(&'static str, String)>) {
        let (capture, problems) = Self::build(config, annotation);
        let told = problems.into_iter().map(|(place, reason)| (place.annotation, reason));
        (capture, told.collect())
    }

    fn build<'a>(
        config: &InjectConfig,
        get: impl Fn(&str) -> Option<&'a str>,
    ) -> (Self, Vec<(Place, String)>) {
        let mut problems = Vec::new();
        let mut read = |field, annotation, check: Check, default: &str| {
            let text = get(annotation).unwrap_or(default);
            check(text).unwrap_or_else(|reason| {
                problems.push((Place { field, annotation }, reason));
                default.to_owned()
            })
        };
        let mut capture = Self {
            mode: config.interception_mode,
            include_outbound_ip_ranges: read(
                "includeOutboundIPRanges",
                annotation::INCLUDE_OUTBOUND_IP_RANGES,
                any_or_ranges,
                &config.include_outbound_ip_ranges,
            ),
            exclude_outbound_ip_ranges: read(
                "excludeOutboundIPRanges",
                annotation::EXCLUDE_OUTBOUND_IP_RANGES,
                ranges,
                &config.exclude_outbound_ip_ranges,
            ),
            include_outbound_ports: read(
                "includeOutboundPorts",
                annotation::INCLUDE_OUTBOUND_PORTS,
                any_or_ports,
                &config.include_outbound_ports,
            ),
            exclude_outbound_ports: read(
                "excludeOutboundPorts",
                annotation::EXCLUDE_OUTBOUND_PORTS,
                ports,
                &config.exclude_outbound_ports,
            ),
            include_inbound_ports: read(
                "includeInboundPorts",
                annotation::INCLUDE_INBOUND_PORTS,
                any_or_ports,
                &config.include_inbound_ports,
            ),
            exclude_inbound_ports: read(
                "excludeInboundPorts",
                annotation::EXCLUDE_INBOUND_PORTS,
                ports,
                &config.exclude_inbound_ports,
            ),
            exclude_interfaces: read(
                "excludeInterfaces",
                annotation::EXCLUDE_INTERFACES,
                interfaces,
                &config.exclude_interfaces,
            ),
            virtual_interfaces: read(
                "",
                match get(annotation::VIRTUAL_INTERFACES) {
                    Some(_) => annotation::VIRTUAL_INTERFACES,
                    None => annotation::KUBEVIRT_INTERFACES,
                },
                interfaces,
                "",
            ),
        };
        if let Some(text) = get(annotation::INTERCEPTION_MODE) {
            match Interception::parse(text) {
                Ok(mode) => capture.mode = mode,
                Err(reason) => {
                    let annotation = annotation::INTERCEPTION_MODE;
                    problems.push((Place { field: "interceptionMode", annotation }, reason));
                }
            }
        }
        (capture, problems)
    }

    /// Inbound ports that are not captured: the proxy's own, then those that were asked for.
    pub(crate) fn excluded_inbound_ports(&self, status_port: Option<u16>) -> String {
        let own = OWN_PORTS.into_iter().chain(status_port);
        let asked = self.exclude_inbound_ports.split(',').filter_map(|port| port.parse().ok());
        let mut seen = BTreeSet::new();
        let ports = own.chain(asked).filter(|port| seen.insert(*port));
        ports.map(|port| port.to_string()).collect::<Vec<_>>().join(",")
    }
}

/// Where a value was written: a field of the configuration, or an annotation.
struct Place {
    field: &'static str,
    annotation: &'static str,
}

/// Checks each item of a list.
fn items(text: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<String, String> {
    let items: Vec<_> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    items.iter().try_for_each(|item| check(item))?;
    Ok(items.join(","))
}

fn range(text: &str) -> Result<(), String> {
    let parsed = text.parse::<IpNet>();
    parsed.map(|_| ()).map_err(|_| format!("{text:?} is not a CIDR such as 10.0.0.0/8"))
}

fn ranges(text: &str) -> Result<String, String> {
    if text == "*" {
        return Err("\"*\" is not a CIDR; to capture nothing, include nothing".to_owned());
    }
    items(text, range)
}

fn any_or_ranges(text: &str) -> Result<String, String> {
    if text == "*" { Ok(text.to_owned()) } else { items(text, range) }
}

fn ports(text: &str) -> Result<String, String> {
    items(text, |item| match item.parse::<u16>() {
        Ok(port) if port > 0 => Ok(()),
        _ => Err(format!("{item:?} is not a port from 1 to 65535")),
    })
}

fn any_or_ports(text: &str) -> Result<String, String> {
    if text == "*" { Ok(text.to_owned()) } else { ports(text) }
}

/// Names as `weft-proxy init` takes them: up to 15 bytes; `+` at the end stands for any end.
fn interfaces(text: &str) -> Result<String, String> {
    items(text, |item| {
        let name = item.strip_suffix('+').unwrap_or(item);
        let usable = |b: u8| b.is_ascii_graphic() && !b"/\"*\\:".contains(&b);
        // A dash in front would be taken for a flag.
        if matches!(name.len(), 1..=15) && !name.starts_with('-') && name.bytes().all(usable) {
            Ok(())
        } else {
            Err(format!("{item:?} is not the name of an interface"))
        }
    })
}
