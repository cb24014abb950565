//! Latencies, counted in buckets that grow with the value: exact to 1.6 %, a few KiB, one increment per value.
//!
//! The highest bit of a value chooses a row, the six bits below it a bucket in the row; values below 64 have a bucket each.
//! Percentiles are the upper ends of buckets, so they never flatter.

/// Bits below the highest one that choose the bucket: 64 buckets per power of two.
const FINE_BITS: u32 = 6;
const FINE: usize = 1 << FINE_BITS;
/// Rows above the first: values of 64 bits.
const ROWS: usize = (u64::BITS - FINE_BITS) as usize;

/// A histogram of nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; FINE * (ROWS + 1)].into(), total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The largest value, exactly.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value that `percent` of all values do not exceed, up to 1.6 % too large; 0 if there are none.
    pub fn percentile(&self, percent: f64) -> u64 {
        let rank = (self.total as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_end(index).min(self.max);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    if value < FINE as u64 {
        return value as usize;
    }
    let row = value.ilog2() - FINE_BITS;
    // The highest bit is in it and counts for one row, hence no "+ 1".
    (row as usize) * FINE + (value >> row) as usize
}

fn upper_end(index: usize) -> u64 {
    if index < 2 * FINE {
        return index as u64;
    }
    let row = index / FINE - 1;
    let start = (index - row * FINE) as u64;
    // In 128 bits, because the last bucket ends where 64 bits do.
    (((u128::from(start) + 1) << row) - 1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_without_gaps_and_narrow() {
        let mut values: Vec<u64> = (0..5000).collect();
        values.extend((12..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + (1 << (bit - 1))]));
        values.push(u64::MAX);
        values.sort_unstable();
        for pair in values.windows(2) {
            assert!(bucket(pair[0]) <= bucket(pair[1]), "{pair:?}");
        }
        for value in values {
            let end = upper_end(bucket(value));
            assert!(end >= value, "{value} is above its bucket's end {end}");
            assert!(end - value <= value / FINE as u64, "{value} is reported as {end}");
            assert!(
                bucket(end) == bucket(value) && (end == u64::MAX || bucket(end + 1) == bucket(value) + 1)
            );
        }
    }

    #[test]
    fn percentiles_of_known_values() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.percentile(50.0), histogram.max()), (0, 0));
        (1..=1000).for_each(|value| histogram.record(value * 1000));
        for (percent, exact) in [(50.0, 500_000), (99.0, 990_000), (99.9, 999_000), (100.0, 1_000_000)] {
            let found = histogram.percentile(percent);
            assert!(found >= exact && found <= exact + exact / 64, "p{percent}: {found}, not {exact}");
        }
        assert_eq!((histogram.count(), histogram.max()), (1000, 1_000_000));
    }

    #[test]
    fn merging_is_counting_both() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        (0..100).for_each(|_| one.record(10));
        (0..100).for_each(|_| other.record(20));
        one.merge(&other);
        assert_eq!((one.count(), one.percentile(50.0), one.percentile(51.0), one.max()), (200, 10, 20, 20));
    }
}
