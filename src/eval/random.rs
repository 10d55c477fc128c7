//! A small seeded generator whose numbers never change with a library's version, so that a figure measured today can be
//! measured again. SplitMix64 (Steele, Lea, Flood 2014), normal variates by Box and Muller. Not for secrets.

use sha2::{Digest, Sha256};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
    spare: Option<f64>,
}

impl Random {
    /// Starts from a number.
    pub fn new(seed: u64) -> Self {
        Self { state: seed, spare: None }
    }

    /// Starts from a text: the first 48 bits of its SHA-256, as the data's own renderer does.
    pub fn from_text(text: &str) -> Self {
        let digest = Sha256::digest(text.as_bytes());
        Self::new(digest.iter().take(6).fold(0u64, |n, b| (n << 8) | u64::from(*b)))
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..bound`; 0 if `bound` is 0. By the high half of a product: no modulo, bias below 2⁻⁴⁰ at our sizes.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next_u64()) * (bound as u128);
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal with mean 0 and variance 1.
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.unit()).sin_cos();
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// A sample of `n` of the numbers `0..len`, in ascending order (all of them if there aren't as many).
    pub fn sample(&mut self, len: usize, n: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..len).collect();
        let take = n.min(len);
        for i in 0..take {
            let j = i + self.below(len - i);
            all.swap(i, j);
        }
        all.truncate(take);
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_numbers() {
        // SplitMix64 from seed 1234567, as listed with the reference code.
        let mut r = Random::new(1_234_567);
        assert_eq!(r.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(r.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut r = Random::from_text("normal");
        let xs: Vec<f64> = (0..100_000).map(|_| r.normal()).collect();
        let mean = xs.iter().sum::<f64>() / xs.len() as f64;
        let var = xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / xs.len() as f64;
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.02, "{mean} {var}");
    }

    #[test]
    fn a_sample_has_no_doubles_and_is_the_same_again() {
        let a = Random::new(7).sample(100, 30);
        assert_eq!(a, Random::new(7).sample(100, 30));
        assert_ne!(a, Random::new(8).sample(100, 30));
        assert_eq!(a.len(), 30);
        assert!(a.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(Random::new(7).sample(3, 30), [0, 1, 2]);
    }
}
