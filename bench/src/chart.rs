//! The figures as a chart: one bar for each proxy in each case, as SVG that needs nothing else.

use std::fmt::Write as _;

use crate::{
    figures::{Figure, Outcome},
    peer::Peer,
};

const WIDTH: usize = 760;
const LEFT: usize = 200;
const RIGHT: usize = 70;
const BAR: usize = 13;
const GAP: usize = 12;
const TOP: usize = 62;
const BOTTOM: usize = 34;

fn colour(peer: Peer) -> &'static str {
    match peer {
        Peer::Weft => "#d9480f",
        Peer::Envoy => "#7048a8",
        Peer::Haproxy => "#1c7ed6",
        Peer::Nginx => "#2b8a3e",
    }
}

/// CPU time for 10,000 requests; shorter is better.
pub fn svg(outcomes: &[Outcome], footer: &str) -> String {
    let groups: Vec<(&Outcome, Vec<(Peer, f64)>)> = outcomes
        .iter()
        .map(|outcome| {
            let bars = outcome.series.iter();
            (outcome, bars.filter_map(|bar| Some((bar.peer, bar.median(Figure::Cpu)?))).collect())
        })
        .filter(|(_, bars): &(_, Vec<_>)| !bars.is_empty())
        .collect();
    let most =
        groups.iter().flat_map(|(_, bars)| bars).map(|(_, value)| *value).fold(0.0, f64::max);
    let bars: usize = groups.iter().map(|(_, bars)| bars.len()).sum();
    let height = TOP + bars * BAR + groups.len() * GAP + BOTTOM;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"bold\">CPU seconds for 10,000 requests, all proxies of the \
         path (shorter is better)</text>\n"
    );
    legend(&mut text, &groups);
    let mut y = TOP;
    for (outcome, bars) in &groups {
        let middle = y + bars.len() * BAR / 2 + 4;
        let name = escaped(&outcome.case);
        let about = escaped(outcome.about);
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{name}<title>{about}</title></text>",
            LEFT - 8
        );
        for (peer, value) in bars {
            let share = if most > 0.0 { value / most } else { 0.0 };
            let width = (share * (WIDTH - LEFT - RIGHT) as f64).max(1.0);
            let _ = writeln!(
                text,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{value:.3}</text>",
                BAR - 1,
                colour(*peer),
                LEFT as f64 + width + 5.0,
                y + BAR - 3
            );
            y += BAR;
        }
        y += GAP;
    }
    let _ = writeln!(
        text,
        "<text x=\"16\" y=\"{}\" fill=\"#666666\" font-size=\"10\">{}</text>\n</svg>",
        height - 12,
        escaped(footer)
    );
    text
}

fn legend(text: &mut String, groups: &[(&Outcome, Vec<(Peer, f64)>)]) {
    let mut peers: Vec<_> =
        groups.iter().flat_map(|(_, bars)| bars).map(|(peer, _)| *peer).collect();
    peers.sort_unstable();
    peers.dedup();
    for (index, peer) in peers.into_iter().enumerate() {
        let x = LEFT + index * 90;
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"38\" width=\"11\" height=\"11\" fill=\"{}\"/><text x=\"{}\" y=\"48\">{}</text>",
            colour(peer),
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

    #[test]
    fn the_chart_is_well_formed_whatever_the_names_are() {
        let series = |peer, cpu: f64| Series {
            peer,
            samples: vec![Some(Sample { cpu: Some(cpu), ..Sample::default() })],
            failure: None,
        };
        let outcomes = [
            Outcome {
                case: "a<b>&\"c\"".to_owned(),
                scenario: "a",
                about: "x < y",
                series: vec![series(Peer::Weft, 0.2), series(Peer::Envoy, 0.0)],
            },
            Outcome { case: "none".to_owned(), scenario: "n", about: "", series: Vec::new() },
        ];
        let text = svg(&outcomes, "on <this> machine");
        assert!(well_formed(&text), "{text}");
        assert!(text.contains("a&lt;b&gt;&amp;&quot;c&quot;") && !text.contains("none"));
        assert_eq!(text.matches("<rect").count(), 1 + 2 + 2, "ground, legend, bars");
        assert!(well_formed(&svg(&[], "")));
        assert!(!well_formed("<svg><g></svg>"));
    }
}
