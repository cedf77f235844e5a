//! Weighted round-robin, as in Linux Virtual Server: those of the highest weight first, then those too of the next.

/// The least and the greatest weight of HADS.
const WEIGHTS: (f64, f64) = (1.0, 3.0);

/// Hands out items in turn, an item of weight 3 three times as often as one of weight 1.
#[derive(Debug, Clone)]
pub(super) struct RoundRobin {
    items: Vec<(usize, u32)>,
    at: usize,
    level: u32,
}

impl RoundRobin {
    /// Weighs `items` by rank: the worst 1, the best 3, the others in between and rounded up. All 1 where they are
    /// equal.
    pub(super) fn by_rank(items: &[(usize, f64)]) -> Self {
        let least = items.iter().map(|(_, rank)| *rank).fold(f64::INFINITY, f64::min);
        let greatest = items.iter().map(|(_, rank)| *rank).fold(f64::NEG_INFINITY, f64::max);
        let weight = |rank: f64| {
            let share = if greatest > least { (rank - least) / (greatest - least) } else { 0.0 };
            (share * (WEIGHTS.1 - WEIGHTS.0)).ceil() as u32 + WEIGHTS.0 as u32
        };
        Self { items: items.iter().map(|&(item, rank)| (item, weight(rank))).collect(), at: 0, level: 0 }
    }

    /// The next one; none only where there are no items.
    pub(super) fn next(&mut self) -> Option<usize> {
        let greatest = self.items.iter().map(|(_, weight)| *weight).max()?;
        loop {
            if self.at == 0 {
                self.level = if self.level <= 1 { greatest } else { self.level - 1 };
            }
            let (item, weight) = self.items[self.at];
            self.at = (self.at + 1) % self.items.len();
            if weight >= self.level {
                return Some(item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_ranks_come_oftener() {
        // Shares of the range: 0, 0.2 and 1: weights 1, 2 and 3.
        let mut turns = RoundRobin::by_rank(&[(0, 100.0), (1, 120.0), (2, 200.0)]);
        let order: Vec<usize> = (0..7).map(|_| turns.next().unwrap()).collect();
        assert_eq!(order, [2, 1, 2, 0, 1, 2, 2]);
        let mut equal = RoundRobin::by_rank(&[(4, 1.0), (5, 1.0)]);
        assert_eq!([equal.next(), equal.next(), equal.next()], [Some(4), Some(5), Some(4)]);
        assert_eq!(RoundRobin::by_rank(&[]).next(), None);
    }
}
