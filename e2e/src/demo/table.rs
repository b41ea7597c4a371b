//! From the proxies' counters to rows: who called whom, how often, how well, how fast, and whether encrypted.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    time::Instant,
};

use crate::metrics::{Sample, quantile};

/// Rates and quantiles are those of so many samples: smooth enough to read, quick enough to show an edit.
const SAMPLES: usize = 6;

/// Source, destination, version.
type Key = (String, String, String);

/// Counters of a pair of services, as they stand or as they grew.
#[derive(Clone, Debug, Default, PartialEq)]
struct Totals {
    requests: f64,
    failures: f64,
    /// Requests that the destination got over mutual TLS, and without.
    encrypted: f64,
    plain: f64,
    /// Cumulative buckets by upper bound, as text so that it can be a key.
    buckets: BTreeMap<String, f64>,
}

/// The last few scrapes.
#[derive(Debug, Default)]
pub(super) struct Window {
    scrapes: VecDeque<(Instant, BTreeMap<Key, Totals>)>,
}

impl Window {
    /// Takes a scrape in and returns the table of what happened since the oldest one.
    pub(super) fn push(&mut self, samples: &[Sample]) -> String {
        self.scrapes.push_back((Instant::now(), totals(samples)));
        if self.scrapes.len() > SAMPLES {
            self.scrapes.pop_front();
        }
        let (Some((start, before)), Some((end, now))) = (self.scrapes.front(), self.scrapes.back())
        else {
            return String::new();
        };
        render(&growth(before, now), end.duration_since(*start).as_secs_f64())
    }
}

fn key(sample: &Sample) -> Key {
    let known = |name: &str| Some(sample.label(name)).filter(|v| !v.is_empty() && *v != "unknown");
    let destination = known("destination_canonical_service").or(known("destination_service_name"));
    // An endpoint that did not say its version has a revision all the same; `latest` means that nobody knows.
    let revision = known("destination_canonical_revision").filter(|revision| *revision != "latest");
    let version = known("destination_version").or(revision).unwrap_or("-");
    (
        known("source_canonical_service").unwrap_or("outside").to_owned(),
        destination.unwrap_or("nobody").to_owned(),
        version.to_owned(),
    )
}

fn totals(samples: &[Sample]) -> BTreeMap<Key, Totals> {
    let mut all = BTreeMap::<Key, Totals>::new();
    for sample in samples {
        let source = sample.label("reporter") == "source";
        match sample.name.as_str() {
            "istio_requests_total" if source => {
                let totals = all.entry(key(sample)).or_default();
                totals.requests += sample.value;
                if failed(sample) {
                    totals.failures += sample.value;
                }
            }
            "istio_requests_total" => {
                let totals = all.entry(key(sample)).or_default();
                match sample.label("connection_security_policy") {
                    "mutual_tls" => totals.encrypted += sample.value,
                    _ => totals.plain += sample.value,
                }
            }
            "istio_request_duration_milliseconds_bucket" if source => {
                let totals = all.entry(key(sample)).or_default();
                *totals.buckets.entry(sample.label("le").to_owned()).or_default() += sample.value;
            }
            _ => {}
        }
    }
    all
}

fn failed(sample: &Sample) -> bool {
    let code: u16 = sample.label("response_code").parse().unwrap_or(0);
    let grpc = sample.label("grpc_response_status");
    !(100..400).contains(&code) || !matches!(grpc, "" | "0")
}

/// What was added since; a counter that went back belongs to a proxy that was started again.
fn growth(before: &BTreeMap<Key, Totals>, now: &BTreeMap<Key, Totals>) -> BTreeMap<Key, Totals> {
    let nothing = Totals::default();
    let since = |now: f64, before: f64| if now >= before { now - before } else { now };
    let grow = |(key, now): (&Key, &Totals)| {
        let before = before.get(key).unwrap_or(&nothing);
        let bucket = |(le, count): (&String, &f64)| {
            (le.clone(), since(*count, before.buckets.get(le).copied().unwrap_or(0.0)))
        };
        let totals = Totals {
            requests: since(now.requests, before.requests),
            failures: since(now.failures, before.failures),
            encrypted: since(now.encrypted, before.encrypted),
            plain: since(now.plain, before.plain),
            buckets: now.buckets.iter().map(bucket).collect(),
        };
        (key.clone(), totals)
    };
    now.iter().map(grow).collect()
}

fn render(rows: &BTreeMap<Key, Totals>, seconds: f64) -> String {
    let mut text = format!(
        "{:<16} {:<16} {:<8} {:>7} {:>10} {:>9} {:>9}  {}\n",
        "SOURCE", "DESTINATION", "VERSION", "REQ/S", "SUCCESS %", "P50 MS", "P99 MS", "MTLS"
    );
    for ((source, destination, version), totals) in rows {
        if totals.requests == 0.0 {
            continue;
        }
        let mut buckets: Vec<(f64, f64)> = totals
            .buckets
            .iter()
            .map(|(le, count)| (le.parse().unwrap_or(f64::INFINITY), *count))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let shown = |q: f64| quantile(&buckets, q).map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        let mtls = match (totals.encrypted > 0.0, totals.plain > 0.0) {
            (true, false) => "yes",
            (true, true) => "partly",
            (false, true) => "NO",
            (false, false) => "-",
        };
        let rate = totals.requests / seconds.max(f64::MIN_POSITIVE);
        let success = 100.0 * (1.0 - totals.failures / totals.requests);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{source:<16} {destination:<16} {version:<8} {rate:>7.1} {success:>10.1} {:>9} {:>9}  {mtls}",
            shown(0.5),
            shown(0.99),
        );
    }
    if text.lines().count() == 1 {
        text.push_str("(no request yet)\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::parse;

    const LABELS: &str = "source_canonical_service=\"load\",destination_canonical_service=\"shop\",destination_version=\"v1\"";

    fn scrape(ok: u32, failed: u32) -> Vec<Sample> {
        let total = ok + failed;
        parse(&format!(
            "istio_requests_total{{reporter=\"source\",response_code=\"200\",{LABELS}}} {ok}\n\
             istio_requests_total{{reporter=\"source\",response_code=\"503\",{LABELS}}} {failed}\n\
             istio_requests_total{{reporter=\"destination\",connection_security_policy=\"mutual_tls\",{LABELS}}} {total}\n\
             istio_request_duration_milliseconds_bucket{{reporter=\"source\",le=\"10\",{LABELS}}} {total}\n\
             istio_request_duration_milliseconds_bucket{{reporter=\"source\",le=\"+Inf\",{LABELS}}} {total}\n"
        ))
    }

    #[test]
    fn rows_show_what_was_added() {
        let rows = growth(&totals(&scrape(100, 0)), &totals(&scrape(250, 50)));
        let text = render(&rows, 10.0);
        let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["load", "shop", "v1", "20.0", "75.0", "5.0", "9.9", "yes"]);
    }

    #[test]
    fn a_counter_that_went_back_starts_again() {
        let rows = growth(&totals(&scrape(100, 0)), &totals(&scrape(40, 0)));
        assert_eq!(rows.values().next().unwrap().requests, 40.0);
    }
}
