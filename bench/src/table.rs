//! The figures as plain text.

use std::fmt::Write as _;

use crate::{
    figures::{Figure, Goal, Outcome},
    peer::Peer,
};

const COLUMNS: &[(Figure, &str, usize)] = &[
    (Figure::Rate, "per second", 0),
    (Figure::Cpu, "CPU s/10k", 3),
    (Figure::P50, "p50 ms", 2),
    (Figure::P99, "p99 ms", 2),
    (Figure::P999, "p99.9 ms", 2),
    (Figure::Idle, "idle MiB", 1),
    (Figure::Loaded, "load MiB", 1),
    (Figure::Connection, "KiB/conn", 1),
    (Figure::Start, "start ms", 0),
];

/// Ratios are shown for these figures, where they are measured.
const RATIOS: &[(Figure, &str)] = &[
    (Figure::Cpu, "CPU"),
    (Figure::P99, "p99"),
    (Figure::Connection, "conn"),
    (Figure::Start, "start"),
    (Figure::Idle, "idle"),
];

/// The table of one case.
pub fn outcome(outcome: &Outcome) -> String {
    let shown =
        |figure: Figure| outcome.series.iter().any(|series| series.median(figure).is_some());
    let columns: Vec<_> = COLUMNS.iter().filter(|(figure, ..)| shown(*figure)).collect();
    let ratios: Vec<_> = RATIOS.iter().filter(|(figure, _)| shown(*figure)).take(2).collect();
    let mut head = vec!["proxy".to_owned()];
    head.extend(columns.iter().map(|(_, title, _)| (*title).to_owned()));
    let others = [Peer::Envoy, Peer::Haproxy].into_iter().filter_map(|peer| outcome.of(peer));
    let others: Vec<_> = others.collect();
    for other in &others {
        head.extend(ratios.iter().map(|(_, name)| format!("{name}/{}", other.peer.title())));
    }
    let mut lines = vec![head];
    for series in &outcome.series {
        let mut line = vec![series.peer.title().to_owned()];
        line.extend(
            columns.iter().map(|(figure, _, digits)| value(series.median(*figure), *digits)),
        );
        for other in &others {
            line.extend(ratios.iter().map(|(figure, _)| value(series.ratio(other, *figure), 2)));
        }
        lines.push(line);
    }
    let mut text = format!("{}: {}\n", outcome.case, outcome.about);
    text.push_str(&aligned(&lines));
    text.push_str(&remarks(outcome));
    text
}

/// What must be known before the figures are believed.
fn remarks(outcome: &Outcome) -> String {
    let (mut text, mut noisy, mut idle) = (String::new(), Vec::new(), Vec::new());
    for series in &outcome.series {
        let name = series.peer.title();
        if let Some(failure) = &series.failure {
            let _ = writeln!(text, "  {name} FAILED: {}", one_line(failure));
        }
        let resumed = series.samples.iter().flatten().filter_map(|sample| sample.resumed);
        if let Some(share) = resumed.reduce(f64::min) {
            let _ = writeln!(
                text,
                "  {name}: {:.0}% of the handshakes were resumptions",
                share * 100.0
            );
        }
        if series.failed() > 0 {
            let _ = writeln!(text, "  {name}: {} requests failed", series.failed());
        }
        noisy.extend(series.noise().map(|noise| format!("{name} ({noise})")));
        let busy = series.samples.iter().flatten().filter_map(|sample| sample.busy);
        let busy = busy.fold(f64::MIN, f64::max);
        if (0.0..0.85).contains(&busy) {
            idle.push(format!("{name} ({:.0}% busy)", busy * 100.0));
        }
    }
    if !idle.is_empty() {
        let _ = writeln!(
            text,
            "  `per second` is the load's limit, not the proxy's: {}",
            idle.join(", ")
        );
    }
    if !noisy.is_empty() {
        let _ = writeln!(text, "  NOISY, not to be trusted: {}", noisy.join(", "));
    }
    text
}

/// The beginning of what programs wrote about their failure.
fn one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").chars().take(400).collect()
}

/// What is to be reached, and what was.
pub fn goals(goals: &[Goal]) -> String {
    let mut lines =
        vec![["goal", "figure", "to", "at most", "measured", ""].map(str::to_owned).to_vec()];
    for goal in goals {
        lines.push(vec![
            goal.case.clone(),
            COLUMNS
                .iter()
                .find(|(figure, ..)| *figure == goal.figure)
                .map_or("", |(_, title, _)| title)
                .to_owned(),
            goal.to.map_or("-", Peer::title).to_owned(),
            format!("{:.2}", goal.limit),
            format!("{:.2}", goal.measured),
            if goal.holds() { "holds" } else { "MISSED" }.to_owned(),
        ]);
    }
    aligned(&lines)
}

fn value(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// The first column to the left, all others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    let mut text = String::new();
    for line in lines {
        let mut shown = String::new();
        for (column, cell) in line.iter().enumerate() {
            let width = width(column).unwrap_or_default();
            let _ = match column {
                0 => write!(shown, "  {cell:<width$}"),
                _ => write!(shown, "  {cell:>width$}"),
            };
        }
        let _ = writeln!(text, "{}", shown.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{figures::Series, measure::Sample};

    #[test]
    fn columns_stand_below_each_other_and_nothing_is_made_up() {
        let sample = |cpu| {
            Some(Sample {
                cpu: Some(cpu),
                rate: Some(1000.0),
                busy: Some(1.0),
                ..Sample::default()
            })
        };
        let series = |peer, samples| Series { peer, samples, failure: None };
        let mut failed = series(Peer::Haproxy, vec![None]);
        failed.failure = Some("no\n  port".to_owned());
        let text = outcome(&Outcome {
            case: "h1/1k/1".to_owned(),
            scenario: "h1",
            about: "one hop",
            is_main: true,
            series: vec![
                series(Peer::Weft, vec![sample(0.25)]),
                series(Peer::Envoy, vec![sample(0.5)]),
                failed,
            ],
        });
        let expected = "h1/1k/1: one hop\n\
            \x20 proxy    per second  CPU s/10k  CPU/Envoy  CPU/HAProxy\n\
            \x20 Weft           1000      0.250       0.50            -\n\
            \x20 Envoy          1000      0.500       1.00            -\n\
            \x20 HAProxy           -          -          -            -\n\
            \x20 HAProxy FAILED: no port\n";
        assert_eq!(text, expected);
    }
}
