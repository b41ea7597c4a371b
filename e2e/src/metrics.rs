//! Prometheus text, read back: samples with their labels, sums, and quantiles of histograms.

use std::collections::BTreeMap;

/// One line of the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// A label's value, or "".
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Reads the text format; lines that are not samples are passed over.
pub fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Labels up to the closing brace, and what follows it.
fn parse_labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        rest = &after[end + 1..];
    }
}

/// The sum of a metric over all samples that have these label values.
pub fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let matches = |sample: &&Sample| {
        sample.name == name && labels.iter().all(|(key, value)| sample.label(key) == *value)
    };
    samples.iter().filter(matches).map(|sample| sample.value).sum()
}

/// A quantile of a histogram from its cumulative buckets `(upper bound, count)`, by linear interpolation as
/// Prometheus does it; `None` when it is empty.
pub fn quantile(buckets: &[(f64, f64)], quantile: f64) -> Option<f64> {
    let total = buckets.last()?.1;
    if total <= 0.0 {
        return None;
    }
    let rank = total * quantile;
    let mut lower = (0.0, 0.0);
    for &(bound, count) in buckets {
        if count >= rank {
            if bound.is_infinite() {
                return Some(lower.0);
            }
            let share = (rank - lower.1) / (count - lower.1).max(f64::MIN_POSITIVE);
            return Some(lower.0 + (bound - lower.0) * share);
        }
        lower = (bound, count);
    }
    Some(lower.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"q\\\"\\\\\\n\"} 3\na{x=\"2\"} 4.5\nb 1e3 1700000000\nnonsense\n";
        let samples = parse(text);
        let labels = [("x".to_owned(), "1".to_owned()), ("y".to_owned(), "q\"\\\n".to_owned())];
        assert_eq!(samples[0], Sample { name: "a".into(), labels: labels.into(), value: 3.0 });
        assert_eq!(samples.len(), 3);
        assert_eq!(sum(&samples, "a", &[]), 7.5);
        assert_eq!(sum(&samples, "a", &[("x", "2")]), 4.5);
        assert_eq!(sum(&samples, "b", &[]), 1_000.0);
    }

    #[test]
    fn quantiles_are_interpolated() {
        let buckets = [(1.0, 50.0), (5.0, 90.0), (10.0, 100.0), (f64::INFINITY, 100.0)];
        assert_eq!(quantile(&buckets, 0.25), Some(0.5));
        assert_eq!(quantile(&buckets, 0.7), Some(3.0));
        assert_eq!(quantile(&buckets, 0.95), Some(7.5));
        assert_eq!(quantile(&[(1.0, 0.0)], 0.5), None);
    }
}
