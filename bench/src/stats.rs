//! Summaries: three numbers of a few runs, percentiles of many latencies.
//!
//! *In*: samples. *Out*: [`Spread`], [`Latency`]. *Never*: a mean.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Least, middle and greatest of some runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one sample; all zero without any.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = samples.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else { return Self::default() };
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        Self { min: *min, median, max: *max }
    }
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Samples.
    pub count: u64,
    /// Half are faster.
    pub p50: f64,
    /// 95 %.
    pub p95: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
    /// For plots: samples per bucket, by the bucket's upper bound in milliseconds (`null`: above).
    pub buckets: Vec<(Option<f64>, u64)>,
}

/// Upper bounds of the buckets, microseconds.
const BOUNDS: [u64; 12] =
    [250, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000, 1_000_000, 10_000_000];

/// Collects latencies: microseconds up to an hour, to three digits.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    histogram: Histogram<u64>,
}

impl Default for Recorder {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3);
        Self { histogram: histogram.expect("bounds and digits are in range") }
    }
}

impl Recorder {
    /// Adds one; below a microsecond counts as one.
    pub(crate) fn add(&mut self, latency: std::time::Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(micros.max(1));
    }

    /// Adds all samples of another.
    pub(crate) fn merge(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.histogram.add(&other.histogram);
    }

    /// Samples so far.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The summary.
    pub(crate) fn summary(&self) -> Latency {
        let ms = |micros: u64| micros as f64 / 1000.0;
        let at = |share: f64| ms(self.histogram.value_at_quantile(share));
        let mut buckets: Vec<(Option<f64>, u64)> =
            BOUNDS.iter().map(|bound| (Some(ms(*bound)), 0)).chain([(None, 0)]).collect();
        for step in self.histogram.iter_recorded() {
            let value = self.histogram.lowest_equivalent(step.value_iterated_to());
            let bucket = BOUNDS.partition_point(|bound| *bound < value);
            buckets[bucket].1 += step.count_at_value();
        }
        Latency {
            count: self.histogram.len(),
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: ms(self.histogram.max()),
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn spreads() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { min: 1.0, median: 2.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0]), Spread { min: 1.0, median: 2.5, max: 4.0 });
        assert_eq!(Spread::of([]), Spread::default());
    }

    #[test]
    fn latencies() {
        let mut recorder = Recorder::default();
        (1..=1000).for_each(|n| recorder.add(Duration::from_micros(n * 10)));
        let summary = recorder.summary();
        assert_eq!(summary.count, 1000);
        assert!((summary.p50 - 5.0).abs() < 0.01 && (summary.p99 - 9.9).abs() < 0.02, "{summary:?}");
        assert!((summary.max - 10.0).abs() < 0.02);
        assert_eq!(summary.buckets.iter().map(|(_, n)| n).sum::<u64>(), 1000);
    }
}
