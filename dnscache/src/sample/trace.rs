//! Keys whose frequencies follow Zipf's law, the same for the same seed; for tests.

/// An endless trace: key `n` occurs in proportion to `1 / (n + 1)^exponent`.
#[derive(Debug)]
pub struct Zipf {
    sums: Vec<f64>,
    random: u64,
}

impl Zipf {
    /// A trace of `keys` keys.
    pub fn new(keys: u32, exponent: f64, seed: u64) -> Self {
        let mut sum = 0.0;
        let weights = (1..=keys).map(|rank| 1.0 / f64::from(rank).powf(exponent));
        let sums = weights.map(|weight| {
            sum += weight;
            sum
        });
        Self { sums: sums.collect(), random: seed }
    }
}

impl Iterator for Zipf {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        // Knuth's MMIX generator; its upper bits are good enough for a trace.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005);
        self.random = self.random.wrapping_add(1_442_695_040_888_963_407);
        let fraction = (self.random >> 11) as f64 / (1_u64 << 53) as f64;
        let at = fraction * self.sums.last()?;
        Some(self.sums.partition_point(|&sum| sum <= at) as u64)
    }
}
