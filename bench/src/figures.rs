//! From samples to figures: medians over rounds, ratios within a round, and how far the rounds were apart.

use serde::Serialize;

use crate::{measure::Sample, peer::Peer, scenario};

/// Rounds further apart than this share of their median say that the machine was busy with other things.
const NOISE: f64 = 0.15;

/// The share of the machine that other programs may use.
const FOREIGN: f64 = 0.08;

/// A figure of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Requests (or connections) in a second.
    Rate,
    /// CPU seconds for 10,000.
    Cpu,
    /// Latency.
    P50,
    /// Latency.
    P99,
    /// Latency.
    P999,
    /// Memory before the load.
    Idle,
    /// Memory under load.
    Loaded,
    /// Memory for a connection.
    Connection,
    /// Time to start.
    Start,
}

impl Figure {
    /// Its value in a sample.
    pub fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            Self::Rate => sample.rate,
            Self::Cpu => sample.cpu,
            Self::P50 => sample.p50,
            Self::P99 => sample.p99,
            Self::P999 => sample.p999,
            Self::Idle => sample.idle,
            Self::Loaded => sample.loaded,
            Self::Connection => sample.connection,
            Self::Start => sample.start,
        }
    }
}

/// The samples of one proxy in one case, one for each round.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// The proxy.
    pub peer: Peer,
    /// In the order of the rounds; absent where the proxy failed.
    pub samples: Vec<Option<Sample>>,
    /// Why it failed, the last time.
    pub failure: Option<String>,
}

impl Series {
    /// The median of a figure over the rounds.
    pub fn median(&self, figure: Figure) -> Option<f64> {
        median(self.samples.iter().flatten().filter_map(|sample| figure.of(sample)))
    }

    /// The median of a figure's ratio to another proxy's in the same round: what the machine does to both cancels out.
    pub fn ratio(&self, other: &Self, figure: Figure) -> Option<f64> {
        let pairs = self.samples.iter().zip(&other.samples);
        median(pairs.filter_map(|(one, other)| {
            let (one, other) = (figure.of(one.as_ref()?)?, figure.of(other.as_ref()?)?);
            (other > 0.0).then(|| one / other)
        }))
    }

    /// How far the rounds are apart, as a share of the median.
    pub fn spread(&self, figure: Figure) -> Option<f64> {
        let values = || self.samples.iter().flatten().filter_map(|sample| figure.of(sample));
        let median = median(values())?;
        let most = values().fold(f64::MIN, f64::max);
        let least = values().fold(f64::MAX, f64::min);
        (median > 0.0).then(|| (most - least) / median)
    }

    /// Requests that failed, in all rounds.
    pub fn failed(&self) -> u64 {
        self.samples.iter().flatten().map(|sample| sample.failed).sum()
    }

    /// Why its figures cannot be trusted, if so.
    pub fn noise(&self) -> Option<String> {
        let figure = if self.median(Figure::Cpu).is_some() { Figure::Cpu } else { Figure::Start };
        let spread = self.spread(figure).unwrap_or_default();
        if spread > NOISE {
            return Some(format!("rounds are {:.0}% apart", spread * 100.0));
        }
        let foreign = median(self.samples.iter().flatten().filter_map(|sample| sample.foreign));
        let foreign = foreign.unwrap_or_default();
        (foreign > FOREIGN)
            .then(|| format!("other programs used {:.0}% of the machine", foreign * 100.0))
    }
}

/// The series of one case.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The case's name.
    pub case: String,
    /// The scenario's name.
    pub scenario: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Of its scenario the case that stands for it: one worker, the first size.
    #[serde(skip)]
    pub is_main: bool,
    /// One for each proxy.
    pub series: Vec<Series>,
}

impl Outcome {
    /// The series of a proxy.
    pub fn of(&self, peer: Peer) -> Option<&Series> {
        self.series.iter().find(|series| series.peer == peer)
    }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.filter(|value| value.is_finite()).collect();
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// A figure that Weft is to reach.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// The case.
    pub case: String,
    /// The figure.
    pub figure: Figure,
    /// Relative to this proxy; absolute without.
    pub to: Option<Peer>,
    /// At most this.
    pub limit: f64,
    /// What was measured.
    pub measured: f64,
}

impl Goal {
    /// Whether it is reached.
    pub fn holds(&self) -> bool {
        self.measured <= self.limit
    }
}

/// What Weft is to reach: cases (a glob), figure, to whom, limit.
const GOALS: &[(&str, Figure, Option<Peer>, f64)] = &[
    ("h1/1k/1", Figure::Cpu, Some(Peer::Envoy), 0.40),
    ("h1/1k/1", Figure::Cpu, Some(Peer::Haproxy), 1.1),
    ("sidecars-h2/1k/1", Figure::Cpu, Some(Peer::Envoy), 0.35),
    ("sidecars-h2/1k/1", Figure::Cpu, Some(Peer::Haproxy), 1.0),
    ("h2/1k/1", Figure::Cpu, Some(Peer::Envoy), 0.60),
    ("sidecars-*/1k/1", Figure::P99, Some(Peer::Envoy), 0.50),
    ("sidecars-*/1k/1", Figure::P99, Some(Peer::Haproxy), 1.0),
    ("*/64k/1", Figure::Cpu, Some(Peer::Envoy), 0.9),
    ("start", Figure::Idle, Some(Peer::Envoy), 0.12),
    ("idle-1*", Figure::Connection, None, 2.0),
    ("idle-mtls-*", Figure::Connection, None, 12.0),
    ("tls-churn/1k/1", Figure::Cpu, Some(Peer::Envoy), 0.5),
];

/// The goals that these outcomes can speak about.
pub fn goals(outcomes: &[Outcome]) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (name, figure, to, limit) in GOALS {
        let meant = |outcome: &&Outcome| scenario::matches(name, &outcome.case);
        for outcome in outcomes.iter().filter(meant) {
            let Some(ours) = outcome.of(Peer::Weft) else { continue };
            let measured = match to {
                Some(peer) => outcome.of(*peer).and_then(|other| ours.ratio(other, *figure)),
                None => ours.median(*figure),
            };
            goals.extend(measured.map(|measured| Goal {
                case: outcome.case.clone(),
                figure: *figure,
                to: *to,
                limit: *limit,
                measured,
            }));
        }
    }
    goals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(peer: Peer, cpu: &[f64]) -> Series {
        let sample = |cpu: &f64| Some(Sample { cpu: Some(*cpu), ..Sample::default() });
        Series { peer, samples: cpu.iter().map(sample).collect(), failure: None }
    }

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median([f64::NAN].into_iter()), None);
    }

    #[test]
    fn ratios_are_made_within_a_round() {
        // The machine was twice as slow in the second round, for both.
        let (ours, theirs) = (series(Peer::Weft, &[1.0, 2.0]), series(Peer::Envoy, &[2.0, 4.0]));
        assert_eq!(ours.ratio(&theirs, Figure::Cpu), Some(0.5));
        assert_eq!(ours.ratio(&theirs, Figure::Rate), None);
    }

    #[test]
    fn a_round_that_failed_counts_for_nobody() {
        let mut ours = series(Peer::Weft, &[1.0, 9.0, 1.0]);
        ours.samples[1] = None;
        let theirs = series(Peer::Envoy, &[2.0, 1.0, 2.0]);
        assert_eq!(ours.ratio(&theirs, Figure::Cpu), Some(0.5));
        assert_eq!(ours.median(Figure::Cpu), Some(1.0));
    }

    #[test]
    fn rounds_far_apart_are_noise() {
        assert_eq!(series(Peer::Weft, &[1.0, 1.05]).noise(), None);
        assert!(series(Peer::Weft, &[1.0, 1.3]).noise().unwrap().contains("26%"));
        let mut busy = series(Peer::Weft, &[1.0]);
        busy.samples[0].as_mut().unwrap().foreign = Some(0.5);
        assert!(busy.noise().unwrap().contains("50%"));
    }

    #[test]
    fn goals_are_judged_by_ratio_or_value() {
        let outcome = |case: &str, series| {
            let case = case.to_owned();
            Outcome { case, scenario: "", about: "", is_main: true, series }
        };
        let mut idle = series(Peer::Weft, &[]);
        idle.samples.push(Some(Sample { connection: Some(2.5), ..Sample::default() }));
        let judged = goals(&[
            outcome("h1/1k/1", vec![series(Peer::Weft, &[0.2]), series(Peer::Envoy, &[0.5])]),
            outcome("h2/64k/1", vec![series(Peer::Weft, &[0.5]), series(Peer::Envoy, &[0.5])]),
            outcome("idle-1k", vec![idle]),
        ]);
        let judged: Vec<_> =
            judged.iter().map(|goal| (goal.case.as_str(), goal.measured, goal.holds())).collect();
        assert_eq!(
            judged,
            [("h1/1k/1", 0.4, true), ("h2/64k/1", 1.0, false), ("idle-1k", 2.5, false)]
        );
    }
}
