//! Checks of the blob store.

use bytes::Bytes;
use futures::future::join_all;
use sheaf_protocol::{BlobStore, Ports, Put};

async fn put<P: Ports>(ports: &P, key: &str, bytes: impl Into<Bytes>) -> Put {
    let mut answers = ports.blobs().put(vec![(key.to_owned(), bytes.into())]).await;
    assert_eq!(answers.len(), 1, "one answer per blob");
    answers.remove(0).expect("a put succeeds")
}

async fn get<P: Ports>(ports: &P, key: &str) -> Option<Bytes> {
    ports.blobs().get(&[key.to_owned()]).await.remove(0).expect("a get succeeds")
}

/// The first put creates the blob, later ones leave it as it is.
pub async fn one_put_creates<P: Ports>(ports: P) {
    assert_eq!(get(&ports, "p/a/1").await, None);
    assert_eq!(put(&ports, "p/a/1", "first").await, Put::Created);
    assert_eq!(put(&ports, "p/a/1", "second").await, Put::Exists);
    assert_eq!(get(&ports, "p/a/1").await.as_deref(), Some(&b"first"[..]));
}

/// Of several puts at once, one creates the blob.
pub async fn puts_race_with_one_winner<P: Ports>(ports: P) {
    for round in 0..10 {
        let key = format!("p/race/{round}");
        let puts = join_all((0..16_u8).map(|i| put(&ports, &key, vec![i; 100])));
        let created: Vec<usize> =
            puts.await.iter().enumerate().filter(|(_, put)| **put == Put::Created).map(|(i, _)| i).collect();
        assert_eq!(created.len(), 1, "one winner");
        assert_eq!(get(&ports, &key).await.expect("it is there")[0] as usize, created[0]);
    }
}

/// Blobs of any size come back as they were.
pub async fn blobs_of_any_size_come_back<P: Ports>(ports: P) {
    for bytes in [0, 1, 4_095, 4_096, 70_000, 9_000_000] {
        let (key, blob) = (format!("r/size/{bytes}"), Bytes::from(vec![b'x'; bytes]));
        assert_eq!(put(&ports, &key, blob.clone()).await, Put::Created);
        assert_eq!(get(&ports, &key).await, Some(blob));
    }
}

/// Deleting a prefix deletes what starts with it and nothing else.
pub async fn a_prefix_is_deleted<P: Ports>(ports: P) {
    for number in 0..50 {
        put(&ports, &format!("p/a/{number}"), vec![1; 5_000]).await;
    }
    put(&ports, "p/ab/1", "other").await;
    put(&ports, "r/a/1", "other").await;
    for _ in 0..2 {
        ports.blobs().delete_prefix("p/a/").await.expect("a deletion succeeds");
    }
    for number in 0..50 {
        assert_eq!(get(&ports, &format!("p/a/{number}")).await, None);
    }
    assert!(get(&ports, "p/ab/1").await.is_some() && get(&ports, "r/a/1").await.is_some());
    assert_eq!(put(&ports, "p/a/0", "again").await, Put::Created);
}

/// Several blobs in one call are answered one by one, in their order.
pub async fn answers_are_in_order<P: Ports>(ports: P) {
    put(&ports, "p/order/1", "old").await;
    let blobs = (0..3).map(|i| (format!("p/order/{i}"), Bytes::from(format!("{i}")))).collect();
    let answers: Vec<Put> =
        ports.blobs().put(blobs).await.into_iter().map(|put| put.expect("a put succeeds")).collect();
    assert_eq!(answers, [Put::Created, Put::Exists, Put::Created]);
    let keys: Vec<String> = ["p/order/2", "p/order/none", "p/order/1"].map(str::to_owned).to_vec();
    let found: Vec<Option<Bytes>> =
        ports.blobs().get(&keys).await.into_iter().map(|blob| blob.expect("a get succeeds")).collect();
    assert_eq!(found, [Some("2".into()), None, Some("old".into())]);
}
