//! Metrics in Prometheus' text format, under the names that dashboards for Istio ask for.
//!
//! The registry writes OpenMetrics, where every counter ends in `_total`. Istio's own counters (`pilot_xds_pushes`,
//! `citadel_server_csr_count`) do not, so the text is translated: counters of those families lose the suffix, the type
//! line of all others gains it.

use std::{
    fmt::Write,
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{encoding::text::encode, registry::Registry};

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Families that count without saying so in their names.
const PLAIN_NAMES: [&str; 3] = ["pilot_", "citadel_", "galley_"];
/// Clock ticks of `/proc` in a second: the same on every Linux.
const TICKS: f64 = 100.0;

/// The registry's metrics, and those of the process.
pub fn text(registry: &Registry) -> String {
    let mut open_metrics = String::new();
    if encode(&mut open_metrics, registry).is_err() {
        tracing::error!("a metric cannot be written");
    }
    let mut text = translate(&open_metrics);
    process(&mut text);
    text
}

fn translate(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // The counter family that the following samples belong to.
    let mut counter: Option<&str> = None;
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, help)| help.trim_end_matches('.'));
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            counter = (kind == "counter").then_some(name);
            let suffix = if kind == "counter" && !is_plain(name) { "_total" } else { "" };
            let kind = if kind == "unknown" || kind == "info" { "gauge" } else { kind };
            let help = help.take().unwrap_or_default();
            _ = writeln!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            let plain = counter
                .filter(|name| is_plain(name))
                .and_then(|name| Some((name, line.strip_prefix(name)?.strip_prefix("_total")?)));
            match plain {
                Some((name, rest)) => _ = writeln!(text, "{name}{rest}"),
                None => _ = writeln!(text, "{line}"),
            }
        }
    }
    text
}

fn is_plain(name: &str) -> bool {
    PLAIN_NAMES.iter().any(|prefix| name.starts_with(prefix))
}

fn process(text: &mut String) {
    let version = env!("CARGO_PKG_VERSION");
    let mut metric = |name: &str, labels: &str, kind: &str, help: &str, value: f64| {
        _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}");
    };
    let tag = format!("{{component=\"pilot\",tag=\"{version}\"}}");
    metric("istio_build", &tag, "gauge", "The program and its version", 1.0);
    let mut gauge = |name: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            metric(name, "", kind, help, value);
        }
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok().map(|kib| kib * 1024.0)
    };
    gauge("process_resident_memory_bytes", "Memory in use", kibibytes("VmRSS:"));
    gauge("process_virtual_memory_bytes", "Memory reserved", kibibytes("VmSize:"));
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name is in parentheses and may hold anything; the third field follows it.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|n| n.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let cpu = fields.get(11).zip(fields.get(12)).map(|(user, system)| (user + system) / TICKS);
    gauge("process_cpu_seconds_total", "Processor time used", cpu);
    gauge("process_start_time_seconds", "When the process started", started(&fields));
    let files = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    gauge("process_open_fds", "Open files", files);
}

fn started(fields: &[f64]) -> Option<f64> {
    let uptime: f64 =
        fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    Some(now - uptime + fields.get(19)? / TICKS)
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

    use super::*;

    #[test]
    fn counters_have_istios_names_where_istio_has_one() {
        let mut registry = Registry::default();
        let pushes = Family::<Vec<(String, String)>, Counter>::default();
        pushes.get_or_create(&vec![("type".into(), "cds".into())]).inc_by(3);
        registry.register("pilot_xds_pushes", "Pushes", pushes);
        let refused = Counter::<u64>::default();
        registry.register("weft_refused", "Refused", refused);
        let connected = Gauge::<i64>::default();
        connected.set(2);
        registry.register("pilot_xds", "Connected", connected);
        let mut open_metrics = String::new();
        encode(&mut open_metrics, &registry).unwrap();
        assert_eq!(
            translate(&open_metrics),
            "# HELP pilot_xds_pushes Pushes\n# TYPE pilot_xds_pushes counter\n\
             pilot_xds_pushes{type=\"cds\"} 3\n\
             # HELP weft_refused_total Refused\n# TYPE weft_refused_total counter\n\
             weft_refused_total 0\n\
             # HELP pilot_xds Connected\n# TYPE pilot_xds gauge\npilot_xds 2\n"
        );
    }

    #[test]
    fn the_process_tells_its_version_memory_and_age() {
        let text = text(&Registry::default());
        for name in [
            "istio_build{component=\"pilot\",tag=\"0.1.0\"} 1",
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
            "process_start_time_seconds ",
            "process_open_fds ",
        ] {
            assert!(text.contains(&format!("\n{name}")), "{name} in {text}");
        }
    }
}
