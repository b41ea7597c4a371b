//! Cells: numbers that one thread writes and others read.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

/// Upper bounds of the histograms' buckets: Envoy's defaults, in the metric's own unit. Beyond the last is `+Inf`.
pub const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Adds to a cell that only this thread writes.
fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

/// A count that only goes up. A clone counts in the same cell and must stay on the same thread.
#[derive(Clone, Debug, Default)]
pub struct Counter(pub(super) Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Some more.
    pub fn add(&self, by: u64) {
        bump(&self.0, by);
    }

    /// The count of this thread.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down; the threads' numbers are summed.
#[derive(Clone, Debug, Default)]
pub struct Gauge(pub(super) Arc<AtomicI64>);

impl Gauge {
    /// Adds, or subtracts what is negative.
    pub fn add(&self, by: i64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// One more until the guard is dropped.
    #[must_use]
    pub fn hold(&self) -> GaugeGuard {
        self.add(1);
        GaugeGuard(self.clone())
    }

    /// The number of this thread.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Counts in a [`Gauge`] while it lives.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// A histogram with `BUCKETS`.
#[derive(Default)]
pub struct Histogram {
    /// Not cumulative; the last is beyond all bounds.
    counts: [AtomicU64; BUCKETS.len() + 1],
    /// Bits of a float.
    sum: AtomicU64,
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

impl Histogram {
    /// Notes a value.
    pub fn observe(&self, value: f64) {
        let bucket = BUCKETS.partition_point(|bound| *bound < value);
        if let Some(cell) = self.counts.get(bucket) {
            bump(cell, 1);
        }
        let sum = f64::from_bits(self.sum.load(Relaxed)) + value;
        self.sum.store(sum.to_bits(), Relaxed);
    }

    /// What it holds.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: self.counts.each_ref().map(|cell| cell.load(Relaxed)),
            sum: f64::from_bits(self.sum.load(Relaxed)),
        }
    }
}

/// What a histogram held at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// Not cumulative; the last is beyond all bounds.
    pub counts: [u64; BUCKETS.len() + 1],
    /// Sum of the values.
    pub sum: f64,
}

impl HistogramSnapshot {
    /// Adds another thread's.
    pub fn merge(&mut self, other: &Self) {
        for (into, from) in self.counts.iter_mut().zip(other.counts) {
            *into += from;
        }
        self.sum += other.sum;
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}
