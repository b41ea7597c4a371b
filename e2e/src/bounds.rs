//! What chance allows: bounds that a correct mesh misses once in a million.

/// Probability of a correct mesh falling outside, split over both sides.
const ERROR: f64 = 1e-6;

/// The numbers of successes that are plausible for `trials` independent events of probability `share`.
///
/// Exact: the smallest range `low..=high` with `P(X < low) <= 0.5e-6` and `P(X > high) <= 0.5e-6`, by summing the
/// binomial distribution from both ends. An event that is certain or impossible has a range of one number.
pub fn binomial(trials: u64, share: f64) -> std::ops::RangeInclusive<u64> {
    let low = tail(trials, share);
    let high = trials - tail(trials, 1.0 - share);
    low..=high
}

/// The largest `k` with `P(X < k) <= ERROR / 2`.
fn tail(trials: u64, share: f64) -> u64 {
    if share <= 0.0 {
        return 0;
    }
    if share >= 1.0 {
        return trials;
    }
    // ln P(X = 0), then P(X = k + 1) from P(X = k): in logarithms, so that nothing underflows.
    let mut log = (trials as f64) * (-share).ln_1p();
    let odds = share.ln() - (-share).ln_1p();
    let mut below = 0.0;
    for k in 0..trials {
        below += log.exp();
        if below > ERROR / 2.0 {
            return k;
        }
        log += ((trials - k) as f64).ln() - ((k + 1) as f64).ln() + odds;
    }
    trials
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_should() {
        // Computed with exact rational arithmetic.
        let cases = [
            (10, 0.0, 0..=0),
            (10, 1.0, 10..=10),
            (10, 0.5, 0..=10),
            (25, 0.5, 1..=24),
            (100, 0.1, 0..=27),
        ];
        for (trials, share, expected) in cases {
            assert_eq!(binomial(trials, share), expected, "{trials} x {share}");
        }
    }

    #[test]
    fn wide_samples_are_about_five_sigma() {
        let range = binomial(10_000, 0.1);
        let sigma = (10_000.0_f64 * 0.1 * 0.9).sqrt();
        for (end, sign) in [(*range.start(), -1.0), (*range.end(), 1.0)] {
            let sigmas = sign * (end as f64 - 1_000.0) / sigma;
            assert!((4.6..5.3).contains(&sigmas), "{range:?}: {sigmas}");
        }
    }
}
