//! The figures as a chart: what each proxy needs beside Envoy, as SVG that needs nothing else.

use std::fmt::Write as _;

use crate::{
    figures::{Figure, Outcome, Series},
    peer::Peer,
};

const WIDTH: usize = 880;
const LEFT: usize = 330;
const RIGHT: usize = 80;
const BAR: usize = 11;
const GAP: usize = 9;
const HEAD: usize = 26;
const TOP: usize = 66;
const BOTTOM: usize = 34;

/// Bars that would be longer end here; the value beside them is right.
const LONGEST: f64 = 1.5;

/// A part of the chart: one figure of some cases.
struct Section {
    title: &'static str,
    figure: Figure,
    unit: &'static str,
    digits: usize,
    shows: fn(&Outcome) -> bool,
}

const SECTIONS: &[Section] = &[
    Section {
        title: "CPU seconds for 10,000 requests, all proxies of the path",
        figure: Figure::Cpu,
        unit: "s",
        digits: 2,
        shows: |outcome| outcome.is_main || outcome.case.ends_with("/64k/1"),
    },
    Section {
        title: "p99 at a fixed rate",
        figure: Figure::P99,
        unit: "ms",
        digits: 2,
        shows: |outcome| outcome.is_main && !outcome.scenario.starts_with("tls-"),
    },
    Section {
        title: "memory of one idle proxy",
        figure: Figure::Idle,
        unit: "MiB",
        digits: 1,
        shows: |outcome| outcome.scenario == "start",
    },
    Section {
        title: "memory for an idle connection",
        figure: Figure::Connection,
        unit: "KiB",
        digits: 1,
        shows: |_| true,
    },
];

struct Group<'a> {
    outcome: &'a Outcome,
    bars: Vec<Bar>,
}

struct Bar {
    peer: Peer,
    value: f64,
    /// The value beside Envoy's.
    share: f64,
}

fn colour(peer: Peer) -> &'static str {
    match peer {
        Peer::Weft => "#d9480f",
        Peer::Envoy => "#7048a8",
        Peer::Haproxy => "#1c7ed6",
        Peer::Nginx => "#2b8a3e",
    }
}

/// Every figure beside Envoy's; shorter is better.
pub fn svg(outcomes: &[Outcome], footer: &str) -> String {
    let sections: Vec<(&Section, Vec<Group<'_>>)> = SECTIONS
        .iter()
        .map(|section| (section, groups(section, outcomes)))
        .filter(|(_, groups)| !groups.is_empty())
        .collect();
    let all = || sections.iter().flat_map(|(_, groups)| groups);
    let high = |group: &Group<'_>| group.bars.len() * BAR + GAP;
    let height = TOP + sections.len() * HEAD + all().map(high).sum::<usize>() + BOTTOM;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"10\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"bold\">What each proxy needs, beside Envoy (shorter is better)</text>\n"
    );
    let mut peers: Vec<_> = all().flat_map(|group| &group.bars).map(|bar| bar.peer).collect();
    peers.sort_unstable();
    peers.dedup();
    legend(&mut text, &peers);
    let mut y = TOP;
    for (section, groups) in &sections {
        let title = escaped(section.title);
        let base = y + HEAD - 9;
        let _ = writeln!(
            text,
            "<text x=\"16\" y=\"{base}\" font-size=\"12\" font-weight=\"bold\">{title}</text>"
        );
        y += HEAD;
        for group in groups {
            draw(&mut text, section, group, y);
            y += high(group);
        }
    }
    let _ = writeln!(
        text,
        "<text x=\"16\" y=\"{}\" fill=\"#666666\">{}</text>\n</svg>",
        height - 12,
        escaped(footer)
    );
    text
}

fn groups<'a>(section: &Section, outcomes: &'a [Outcome]) -> Vec<Group<'a>> {
    let shown = outcomes.iter().filter(|outcome| (section.shows)(outcome));
    let groups = shown.map(|outcome| Group { outcome, bars: bars(outcome, section.figure) });
    groups.filter(|group| !group.bars.is_empty()).collect()
}

/// Beside the slowest where Envoy takes no part.
fn bars(outcome: &Outcome, figure: Figure) -> Vec<Bar> {
    let values = |series: &Series| Some((series.peer, series.median(figure)?));
    let values: Vec<_> = outcome.series.iter().filter_map(values).collect();
    let most = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let envoy = outcome.of(Peer::Envoy).filter(|envoy| envoy.median(figure).is_some());
    let share = |peer: Peer, value: f64| match (envoy, outcome.of(peer)) {
        (Some(envoy), Some(series)) => series.ratio(envoy, figure).unwrap_or_default(),
        _ if most > 0.0 => value / most,
        _ => 0.0,
    };
    values.iter().map(|&(peer, value)| Bar { peer, value, share: share(peer, value) }).collect()
}

fn draw(text: &mut String, section: &Section, group: &Group<'_>, top: usize) {
    let middle = top + group.bars.len() * BAR / 2 + 3;
    let (name, about) = (escaped(&group.outcome.case), escaped(&label(group.outcome)));
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{about}<title>{name}</title></text>",
        LEFT - 8
    );
    for (index, Bar { peer, value, share }) in group.bars.iter().enumerate() {
        let y = top + index * BAR;
        let full = (WIDTH - LEFT - RIGHT) as f64 / LONGEST;
        let width = (share.clamp(0.0, LONGEST) * full).max(1.0);
        let (digits, unit) = (section.digits, section.unit);
        let _ = writeln!(
            text,
            "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{value:.digits$} {unit}</text>",
            BAR - 1,
            colour(*peer),
            LEFT as f64 + width + 5.0,
            y + BAR - 2
        );
    }
}

/// What the case is, with the size of its answers where others of its scenario have another one.
fn label(outcome: &Outcome) -> String {
    let size = outcome.case.split('/').nth(1).filter(|_| !outcome.is_main);
    size.map_or_else(|| outcome.about.to_owned(), |size| format!("{}, {size}", outcome.about))
}

fn legend(text: &mut String, peers: &[Peer]) {
    for (index, peer) in peers.iter().enumerate() {
        let x = LEFT + index * 90;
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"38\" width=\"11\" height=\"11\" fill=\"{}\"/><text x=\"{}\" y=\"48\" font-size=\"12\">{}</text>",
            colour(*peer),
            x + 16,
            peer.title()
        );
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            _ if character.is_control() => safe.push(' '),
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{figures::Series, measure::Sample};

    /// Every start tag has its end, and nothing is left open.
    fn well_formed(text: &str) -> bool {
        let mut open = Vec::new();
        let mut rest = text;
        while let Some(begin) = rest.find('<') {
            let Some(end) = rest[begin..].find('>') else { return false };
            let tag = &rest[begin + 1..begin + end];
            rest = &rest[begin + end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name.to_owned()) {
                    return false;
                }
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap_or("").to_owned());
            }
            if tag.contains('<') || !tag.matches('"').count().is_multiple_of(2) {
                return false;
            }
        }
        open.is_empty() && !rest.contains('>')
    }

    fn series(peer: Peer, cpu: &[f64]) -> Series {
        let sample = |cpu: &f64| Some(Sample { cpu: Some(*cpu), ..Sample::default() });
        Series { peer, samples: cpu.iter().map(sample).collect(), failure: None }
    }

    fn outcome(case: &str, series: Vec<Series>) -> Outcome {
        Outcome { case: case.to_owned(), scenario: "a", about: "x < y", is_main: true, series }
    }

    #[test]
    fn the_chart_is_well_formed_whatever_the_names_are() {
        let both = vec![series(Peer::Weft, &[0.2]), series(Peer::Envoy, &[0.0])];
        let outcomes = [outcome("a<b>&\"c\"", both), outcome("none", Vec::new())];
        let text = svg(&outcomes, "on <this> machine");
        assert!(well_formed(&text), "{text}");
        assert!(text.contains("a&lt;b&gt;&amp;&quot;c&quot;") && !text.contains("none"));
        assert!(text.contains("x &lt; y"));
        assert_eq!(text.matches("<rect").count(), 1 + 2 + 2, "ground, legend, bars");
        assert!(well_formed(&svg(&[], "")));
        assert!(!well_formed("<svg><g></svg>"));
    }

    #[test]
    fn bars_are_as_long_as_their_share_of_envoys() {
        let three = vec![
            series(Peer::Weft, &[0.2, 0.5]),
            series(Peer::Envoy, &[0.4, 1.0]),
            series(Peer::Haproxy, &[0.8, 2.0]),
        ];
        let shares = |outcome: &Outcome| {
            bars(outcome, Figure::Cpu).iter().map(|bar| bar.share).collect::<Vec<_>>()
        };
        let mut outcome = outcome("h1/1k/1", three);
        assert_eq!(shares(&outcome), [0.5, 1.0, 2.0]);
        // Longer than the chart is wide.
        let text = svg(std::slice::from_ref(&outcome), "");
        assert!(text.contains("width=\"470.0\"") && text.contains("1.40 s"), "{text}");
        outcome.series.remove(1);
        assert_eq!(shares(&outcome), [0.25, 1.0], "beside the slowest");
    }
}
