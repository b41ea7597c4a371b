//! An open-loop load: requests leave at their scheduled time whatever the answers do, and latency counts from the
//! schedule, so that a stall is seen by every request that should have been sent meanwhile.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::request::{Client, Reply};

/// Requests in flight at most; those beyond wait, and their latency shows it.
const MAX_IN_FLIGHT: usize = 512;

/// How many different failures are described.
const MAX_FAILURES: usize = 20;

/// What happened to the requests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered as they should be.
    pub succeeded: u64,
    /// Failures by what went wrong.
    pub failures: BTreeMap<String, u64>,
    /// Latencies in microseconds from the scheduled time, sorted.
    pub latencies: Vec<u64>,
    /// How long requests were sent.
    pub elapsed: Duration,
}

impl Report {
    /// A latency quantile in milliseconds; 0 when nothing was sent.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        let Some(last) = self.latencies.len().checked_sub(1) else { return 0.0 };
        let index = ((last as f64) * quantile).round() as usize;
        self.latencies[index.min(last)] as f64 / 1_000.0
    }

    /// The number of failed requests.
    pub fn failed(&self) -> u64 {
        self.sent - self.succeeded
    }

    /// Panics unless every request succeeded, and some were sent.
    ///
    /// # Panics
    /// With the failures by kind.
    pub fn assert_no_failure(&self) {
        assert!(self.sent > 0, "no request was sent");
        assert!(
            self.failures.is_empty() && self.failed() == 0,
            "{} of {} requests failed: {:#?}",
            self.failed(),
            self.sent,
            self.failures
        );
    }

    /// Keeps so many latencies as show how they are spread.
    pub fn thin_out(&mut self) {
        let step = self.latencies.len().div_ceil(10_000).max(1);
        self.latencies = self.latencies.iter().copied().step_by(step).collect();
    }

    fn note(&mut self, outcome: Result<(), String>, latency: Duration) {
        self.sent += 1;
        self.latencies.push(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        match outcome {
            Ok(()) => self.succeeded += 1,
            Err(failure) => {
                let known =
                    self.failures.len() < MAX_FAILURES || self.failures.contains_key(&failure);
                let failure = if known { failure } else { "others".to_owned() };
                *self.failures.entry(failure).or_default() += 1;
            }
        }
    }
}

/// A success is a status of 2xx; anything else says why not.
pub fn success(reply: &Reply) -> Result<(), String> {
    if reply.status.is_success() {
        return Ok(());
    }
    let text: String = reply.text().chars().take(200).collect();
    Err(format!("{} {text}", reply.status))
}

/// Sends `rate` requests a second until `until` is ready, then waits for the answers under way.
pub async fn run<T>(
    client: &Client,
    rate: u32,
    make: impl Fn(u64) -> Request<Full<Bytes>> + Send,
    judge: impl Fn(&Reply) -> Result<(), String> + Send + Sync + 'static,
    until: impl Future<Output = T>,
) -> (Report, T) {
    let report = Arc::new(Mutex::new(Report::default()));
    let slots = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let judge = Arc::new(judge);
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let mut sent = 0;
    tokio::pin!(until);
    let output = loop {
        tokio::select! {
            output = &mut until => break output,
            _ = tick.tick() => {}
        }
        while sent < due(start.elapsed(), rate) {
            let scheduled = start + Duration::from_secs_f64(sent as f64 / f64::from(rate));
            let request = make(sent);
            let (client, slots) = (client.clone(), Arc::clone(&slots));
            let (report, judge) = (Arc::clone(&report), Arc::clone(&judge));
            tasks.spawn(async move {
                let _slot = slots.acquire_owned().await;
                let outcome = match client.send(request).await {
                    Ok(reply) => judge(&reply),
                    Err(error) => Err(format!("{error:#}")),
                };
                let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                report.note(outcome, scheduled.elapsed());
            });
            sent += 1;
        }
        while tasks.try_join_next().is_some() {}
    };
    let elapsed = start.elapsed();
    while tasks.join_next().await.is_some() {}
    let mut report = std::mem::take(&mut *report.lock().unwrap_or_else(PoisonError::into_inner));
    report.latencies.sort_unstable();
    report.elapsed = elapsed;
    (report, output)
}

/// How many requests should have been sent by now: the first at once, the others at even intervals.
fn due(elapsed: Duration, rate: u32) -> u64 {
    (elapsed.as_secs_f64() * f64::from(rate)) as u64 + u64::from(rate > 0)
}

/// Requests that are wanted, as many at once as is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burst {
    /// The method.
    pub method: String,
    /// The absolute URI.
    pub uri: String,
    /// Headers.
    pub headers: Vec<(String, String)>,
    /// How many.
    pub count: u64,
    /// How many at the same time, at most.
    pub at_once: usize,
}

impl Burst {
    /// One GET.
    pub fn get(uri: &str) -> Self {
        Self::new("GET", uri)
    }

    /// One request.
    pub fn new(method: &str, uri: &str) -> Self {
        let (method, uri) = (method.to_owned(), uri.to_owned());
        Self { method, uri, headers: Vec::new(), count: 1, at_once: 1 }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// So many.
    #[must_use]
    pub fn count(self, count: u64) -> Self {
        Self { count, ..self }
    }

    /// So many at the same time.
    #[must_use]
    pub fn at_once(self, at_once: usize) -> Self {
        Self { at_once, ..self }
    }
}

/// What became of one request of a burst.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The status; 0 when there was no answer.
    pub status: u16,
    /// The version of the sample that answered, or "".
    pub version: String,
    /// Its pod, or "".
    pub pod: String,
    /// What went wrong, or what an answer that is not the sample's says.
    pub text: String,
    /// How long it took.
    pub milliseconds: u64,
}

impl Outcome {
    /// What an answer says.
    pub fn of(reply: anyhow::Result<Reply>, elapsed: Duration) -> Self {
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                return Self { text: format!("{error:#}"), milliseconds, ..Self::default() };
            }
        };
        let status = reply.status.as_u16();
        match reply.answer() {
            Ok(answer) => Self {
                status,
                version: answer.version,
                pod: answer.pod,
                text: String::new(),
                milliseconds,
            },
            Err(_) => {
                let text = reply.text().chars().take(200).collect();
                Self { status, text, milliseconds, ..Self::default() }
            }
        }
    }
}

/// Sends `count` requests, at most `at_once` at a time, and returns the outcomes in no particular order.
pub async fn burst<T: Send + 'static>(
    client: &Client,
    count: u64,
    at_once: usize,
    make: impl Fn(u64) -> Request<Full<Bytes>>,
    judge: impl Fn(anyhow::Result<Reply>, Duration) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let slots = Arc::new(Semaphore::new(at_once));
    let judge = Arc::new(judge);
    let mut tasks = JoinSet::new();
    for index in 0..count {
        let request = make(index);
        let (client, slots, judge) = (client.clone(), Arc::clone(&slots), Arc::clone(&judge));
        tasks.spawn(async move {
            let _slot = slots.acquire_owned().await;
            let start = Instant::now();
            let reply = client.send(request).await;
            judge(reply, start.elapsed())
        });
    }
    tasks.join_all().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_their_scheduled_time_and_not_an_interval_later() {
        let at = |millis, rate| due(Duration::from_millis(millis), rate);
        assert_eq!([0, 24, 25, 49, 50, 1_000].map(|millis| at(millis, 40)), [1, 1, 2, 2, 3, 41]);
        assert_eq!([0, 1, 1_000].map(|millis| at(millis, 2_000)), [1, 3, 2_001]);
        assert_eq!(at(1_000, 0), 0);
    }
}
