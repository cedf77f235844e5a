//! Factorials of any size that an answer can hold.

use std::ops::RangeInclusive;

use num_bigint::BigUint;

/// Bounds of `n`: the 6.17 million digits of 1,100,000! are about the most that an answer of 6 MiB holds.
pub(crate) const N_RANGE: RangeInclusive<i64> = i64::MIN..=1_100_000;

/// `n!` in decimal, or `undefined` for a negative `n`.
pub(crate) fn decimal(n: i64) -> String {
    match u64::try_from(n) {
        Ok(n) => product(1, n).to_string(),
        Err(_) => "undefined".into(),
    }
}

/// The product of `first..=last`, halved again and again so that the factors of each multiplication are of like size.
fn product(first: u64, last: u64) -> BigUint {
    /// Below this many factors, one after the other is as fast.
    const LEAF_FACTORS: u64 = 32;
    if last.saturating_sub(first) < LEAF_FACTORS {
        return (first..=last).product();
    }
    let middle = first.midpoint(last);
    product(first, middle) * product(middle + 1, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ones() {
        let expected = [(0, "1"), (1, "1"), (5, "120"), (25, "15511210043330985984000000"), (-1, "undefined")];
        for (n, decimals) in expected {
            assert_eq!(decimal(n), decimals, "{n}!");
        }
    }

    #[test]
    fn halving_changes_nothing() {
        let one_by_one: BigUint = (1..=1_000_u64).product();
        assert_eq!(product(1, 1_000), one_by_one);
        assert_eq!(decimal(1_000).len(), 2_568);
    }
}
