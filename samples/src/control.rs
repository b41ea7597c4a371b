//! What a test can see and steer: counters of what arrived, and failures to come.
//!
//! Fed by the HTTP and gRPC servers; read over `/_sample/counters`. Everything is bounded.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Paths beyond this number are counted in the total alone.
const MAX_PATHS: usize = 1_000;

/// What arrived since the start or the last reset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// All requests, HTTP and gRPC.
    pub requests: u64,
    /// Requests by path without query.
    pub by_path: BTreeMap<String, u64>,
    /// Requests being answered now.
    pub in_flight: u64,
    /// The most requests that were being answered at once.
    pub max_in_flight: u64,
    /// Connections accepted on the HTTP port.
    pub connections: u64,
}

/// How a request is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Answer with this status.
    Status(u16),
    /// Close the connection without an answer.
    Reset,
}

impl Failure {
    /// Reads `503` or `reset`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "reset" {
            return Some(Self::Reset);
        }
        text.parse().ok().filter(|status| (200..=599).contains(status)).map(Self::Status)
    }
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    failure: Failure,
    next: u64,
    rate: f64,
}

#[derive(Debug, Default)]
struct State {
    counters: Counters,
    plan: Option<Plan>,
    seed: u64,
}

/// Shared by the servers of one process.
#[derive(Debug, Default)]
pub struct Control {
    state: Mutex<State>,
}

/// Counts a request as being answered until it is dropped.
#[derive(Debug)]
pub struct InFlight<'a>(&'a Control);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.counters.in_flight = state.counters.in_flight.saturating_sub(1);
    }
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request that arrived.
    pub fn begin(&self, path: &str) -> InFlight<'_> {
        let counters = &mut self.lock().counters;
        counters.requests += 1;
        counters.in_flight += 1;
        counters.max_in_flight = counters.max_in_flight.max(counters.in_flight);
        if counters.by_path.len() < MAX_PATHS || counters.by_path.contains_key(path) {
            *counters.by_path.entry(path.to_owned()).or_default() += 1;
        }
        InFlight(self)
    }

    /// Counts a connection that was accepted.
    pub fn connected(&self) {
        self.lock().counters.connections += 1;
    }

    /// What arrived so far.
    pub fn counters(&self) -> Counters {
        self.lock().counters.clone()
    }

    /// Forgets counters and planned failures; requests being answered stay counted.
    pub fn reset(&self) {
        let mut state = self.lock();
        let in_flight = state.counters.in_flight;
        state.counters = Counters { in_flight, max_in_flight: in_flight, ..Counters::default() };
        state.plan = None;
    }

    /// Makes the next requests fail, or a share of all requests (in percent).
    pub fn plan(&self, failure: Failure, next: u64, rate: f64) {
        self.lock().plan = Some(Plan { failure, next, rate });
    }

    /// Whether the request that is being answered is to fail by plan.
    pub fn planned(&self) -> Option<Failure> {
        let mut state = self.lock();
        let roll = state.roll();
        let plan = state.plan.as_mut()?;
        if plan.next > 0 {
            plan.next -= 1;
            return Some(plan.failure);
        }
        (roll < plan.rate).then_some(plan.failure)
    }

    /// Whether an event of this probability (in percent) happens now.
    pub fn happens(&self, percent: f64) -> bool {
        self.lock().roll() < percent
    }
}

impl State {
    /// A number in `0.0..100.0` (SplitMix64: good enough to fail a share of requests).
    fn roll(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        ((z >> 11) as f64) / ((1_u64 << 53) as f64) * 100.0
    }
}

/// Reads `250ms`, `2s` or `1m`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(split);
    let seconds = number.parse::<f64>().ok()?
        * match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            _ => return None,
        };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_requests_fail_and_then_no_more() {
        let control = Control::default();
        control.plan(Failure::Status(503), 2, 0.0);
        let outcomes: Vec<_> = (0..4).map(|_| control.planned()).collect();
        assert_eq!(outcomes, [Some(Failure::Status(503)), Some(Failure::Status(503)), None, None]);
    }

    #[test]
    fn a_rate_fails_about_its_share() {
        let control = Control::default();
        control.plan(Failure::Reset, 0, 10.0);
        let failed = (0..100_000).filter(|_| control.planned().is_some()).count();
        assert!((9_000..11_000).contains(&failed), "{failed}");
    }

    #[test]
    fn counters_follow_requests() {
        let control = Control::default();
        let first = control.begin("/a");
        let second = control.begin("/a");
        drop(first);
        let expected = Counters {
            requests: 2,
            by_path: [("/a".to_owned(), 2)].into(),
            in_flight: 1,
            max_in_flight: 2,
            connections: 0,
        };
        assert_eq!(control.counters(), expected);
        drop(second);
        control.reset();
        assert_eq!(control.counters(), Counters::default());
    }

    #[test]
    fn durations_have_units() {
        for (text, expected) in [
            ("250ms", Some(Duration::from_millis(250))),
            ("2s", Some(Duration::from_secs(2))),
            ("1m", Some(Duration::from_secs(60))),
            ("7", None),
            ("s", None),
            ("1h", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }
}
