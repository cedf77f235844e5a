//! Reading several sorted partitions as one.

use std::{collections::VecDeque, future::Future};

use futures::future::try_join_all;
use sheaf_protocol::StoreError;

use super::item::Item;

/// A page of one partition: rows with what they are sorted by, and where the next page begins, if there is one.
pub(crate) struct Page<K, T> {
    pub(crate) rows: Vec<(K, T)>,
    pub(crate) next: Option<Item>,
}

struct Partition<K, T> {
    rows: VecDeque<(K, T)>,
    next: Option<Item>,
    is_read: bool,
}

/// The first `limit` rows of all partitions together, in order. Reads one page of each, and further ones of those only whose
/// rows are used up.
pub(crate) async fn merge<K, T, F, Fut>(partitions: u32, limit: usize, fetch: F) -> Result<Vec<(K, T)>, StoreError>
where
    K: Ord,
    F: Fn(u32, Option<Item>) -> Fut,
    Fut: Future<Output = Result<Page<K, T>, StoreError>>,
{
    let mut all: Vec<Partition<K, T>> =
        (0..partitions).map(|_| Partition { rows: VecDeque::new(), next: None, is_read: false }).collect();
    let mut merged = Vec::new();
    while merged.len() < limit {
        let used_up = all.iter_mut().zip(0..).filter(|(partition, _)| partition.rows.is_empty() && !partition.is_read);
        let fetches = used_up.map(|(partition, number)| {
            let fetched = fetch(number, partition.next.take());
            async move {
                let page = fetched.await?;
                partition.rows = page.rows.into();
                partition.is_read = page.next.is_none();
                partition.next = page.next;
                Ok::<(), StoreError>(())
            }
        });
        try_join_all(fetches).await?;
        if all.iter().any(|partition| partition.rows.is_empty() && !partition.is_read) {
            // A page may be empty and not the last.
            continue;
        }
        let first = all
            .iter_mut()
            .filter(|partition| !partition.rows.is_empty())
            .min_by(|a, b| a.rows.front().map(|(key, _)| key).cmp(&b.rows.front().map(|(key, _)| key)));
        match first.and_then(|partition| partition.rows.pop_front()) {
            Some(row) => merged.push(row),
            None => break,
        }
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::item::key;

    /// Number `n` lies in partition `n % 3`; pages hold two rows, and a page may be empty.
    async fn fetch(partition: u32, next: Option<Item>) -> Result<Page<u32, ()>, StoreError> {
        let from = next.map_or(0, |next| next["sk"].as_s().expect("a text").parse().expect("a number"));
        if from == 4 {
            return Ok(Page { rows: Vec::new(), next: Some(key("p", "5")) });
        }
        let from = if from == 5 { 4 } else { from };
        let rows = (from..10_u32).take(2).map(|i| (3 * i + partition, ())).collect();
        let next = (from + 2 < 10).then(|| key("p", (from + 2).to_string()));
        Ok(Page { rows, next })
    }

    #[tokio::test]
    async fn partitions_are_read_as_one() {
        for limit in [0, 1, 7, 30, 100] {
            let rows = merge(3, limit, fetch).await.unwrap();
            let numbers: Vec<u32> = rows.into_iter().map(|(number, ())| number).collect();
            assert_eq!(numbers, (0..30).take(limit).collect::<Vec<_>>());
        }
    }
}
