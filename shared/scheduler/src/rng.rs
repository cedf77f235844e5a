//! The simulator's randomness: a seed, and nothing else.

/// SplitMix64 (Steele, Lea and Flood, 2014): a counter through a mixing function. Its output for a seed is fixed by
/// these few lines, so that a figure printed today can be printed again by any later version.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for part of a simulation, so that what one part draws does not shift the others: two
    /// policies then meet the same faults.
    pub fn stream(seed: u64, part: &str, index: u64) -> Self {
        let mut rng = Self(seed);
        for byte in part.bytes() {
            rng.0 = rng.next_u64() ^ u64::from(byte);
        }
        rng.0 = rng.next_u64() ^ index;
        Self(rng.next_u64())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A whole number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((self.unit() * bound as f64) as usize).min(bound.saturating_sub(1))
    }

    /// Seconds until the next event of a Poisson process of `per_s` events a second; infinite when there are none.
    pub fn exponential(&mut self, per_s: f64) -> f64 {
        let unit = self.unit();
        if per_s > 0.0 { -(1.0 - unit).ln() / per_s } else { f64::INFINITY }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_a_seed_is_fixed() {
        // The reference values of SplitMix64 for the seed 1234567.
        let mut rng = Rng::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn exponential_gaps_have_their_mean() {
        let mut rng = Rng::stream(1, "gaps", 0);
        let mean = (0..20_000).map(|_| rng.exponential(0.5)).sum::<f64>() / 20_000.0;
        assert!((mean - 2.0).abs() < 0.06, "{mean}");
        assert_eq!(rng.exponential(0.0), f64::INFINITY);
    }
}
