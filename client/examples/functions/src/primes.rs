//! Primes: a sieve that is fast, and a trial division that is slow on purpose, as work to hand out.

use std::ops::RangeInclusive;

/// Bounds of `n`: the sieve takes a byte for each number up to it.
pub(crate) const N_RANGE: RangeInclusive<i64> = i64::MIN..=100_000_000;

/// The primes up to `n`, by the sieve of Eratosthenes.
pub(crate) fn sieve(n: i64) -> Vec<u32> {
    let n = u32::try_from(n).unwrap_or(0);
    let mut composite = vec![false; n as usize + 1];
    let mut primes = Vec::new();
    for candidate in 2..=n {
        if composite[candidate as usize] {
            continue;
        }
        primes.push(candidate);
        let square = (candidate as usize).saturating_mul(candidate as usize);
        for multiple in (square..=n as usize).step_by(candidate as usize) {
            composite[multiple] = true;
        }
    }
    primes
}

/// The sum of the primes up to `n`.
pub(crate) fn sum(n: i64) -> u64 {
    sieve(n).into_iter().map(u64::from).sum()
}

/// The primes up to `n`, each found by trying every number up to its half: about `n² / 4 ln n` divisions.
pub(crate) fn naive(n: i64) -> Vec<u32> {
    let n = u32::try_from(n).unwrap_or(0);
    (2..=n).filter(|candidate| (2..=candidate / 2).all(|divisor| candidate % divisor != 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_find_the_same() {
        for n in [-1, 0, 1, 2, 3, 4, 9, 25, 1_000, 7_919] {
            assert_eq!(sieve(n), naive(n), "n = {n}");
        }
    }

    #[test]
    fn known_counts_and_sums() {
        assert_eq!(sieve(500_000).len(), 41_538);
        assert_eq!(sum(2_000_000), 142_913_828_922);
        assert_eq!(sum(-5), 0);
    }
}
