//! Uploaded files and their results, as objects: read in ranges, written in parts, each whole or not at all.

use std::{
    collections::HashMap,
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use sheaf_aws::{AwsBlobs, Found, ObjectVersion, Objects, Replaces, Settings, StoredObject, Written, loopback};
use sheaf_protocol::{BlobStore, Put};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::spawn_blocking,
};

const MIB: usize = 1024 * 1024;

/// Objects of an account of its own, with its endpoint, its name and where its things are.
async fn fresh() -> Result<(Objects, &'static str, String, Settings), &'static str> {
    let (endpoint, account) = (loopback::aws_on_loopback()?, loopback::account());
    let (config, settings) = (loopback::config(endpoint, &account).await, loopback::settings(&format!("s{account}")));
    loopback::ports(&config, &settings).await;
    Ok((Objects::over(&config, &settings), endpoint, account, settings))
}

macro_rules! fresh {
    () => {
        match fresh().await {
            Ok(fresh) => fresh,
            Err(reason) => return loopback::skipped(reason),
        }
    };
}

/// Bytes that differ from range to range.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

async fn put(objects: &Objects, key: &str, bytes: &[u8]) -> StoredObject {
    let copy = Bytes::copy_from_slice(bytes);
    objects.put(key, copy, "text/plain", HashMap::new()).await.expect("put");
    let etag = objects.head(key).await.expect("a head").expect("it is there").etag;
    match objects.find(key, &ObjectVersion { etag, id: None }).await.expect("found") {
        Found::Same(object) => object,
        other => panic!("{other:?}"),
    }
}

async fn read(object: &StoredObject) -> std::io::Result<Vec<u8>> {
    let mut reader = object.reader();
    let mut bytes = Vec::new();
    spawn_blocking(move || reader.read_to_end(&mut bytes).map(|_| bytes)).await.expect("reading does not panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_read_in_ranges() {
    let (objects, ..) = fresh!();
    for count in [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB] {
        let bytes = bytes(count);
        let object = put(&objects, "inbox/a", &bytes).await;
        assert_eq!(object.bytes(), count as u64);
        for _ in 0..2 {
            assert!(read(&object).await.expect("read") == bytes, "{count} bytes");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_changes_is_gone() {
    let (objects, ..) = fresh!();
    let object = put(&objects, "inbox/a", &bytes(30 * MIB)).await;
    let mut reader = object.reader();
    let (mut reader, first) = spawn_blocking(move || {
        let mut first = vec![0; MIB];
        reader.read_exact(&mut first).expect("the first bytes");
        (reader, first)
    })
    .await
    .expect("reading does not panic");
    assert!(first == bytes(MIB) && !object.is_gone());
    let other = put(&objects, "inbox/a", &bytes(30 * MIB + 1)).await;
    let rest = spawn_blocking(move || reader.read_to_end(&mut Vec::new())).await.expect("reading does not panic");
    assert_eq!(rest.expect_err("another object").kind(), std::io::ErrorKind::NotFound);
    assert!(object.is_gone() && !other.is_gone());

    let version = |etag: &str| ObjectVersion { etag: etag.to_owned(), id: None };
    assert!(matches!(objects.find("inbox/a", &version("0")).await.expect("found"), Found::Replaced));
    objects.delete("inbox/a").await.expect("deleted");
    assert!(matches!(objects.find("inbox/a", &version("0")).await.expect("found"), Found::Gone));
    assert!(read(&other).await.is_err() && other.is_gone());
    objects.delete("inbox/a").await.expect("deleted again");
    assert_eq!(objects.get("inbox/a").await.expect("got"), None);
}

/// A way to a server on which every other connection breaks when it has passed on so many bytes of answers.
async fn breaking(endpoint: &str, after_bytes: usize) -> (String, Arc<AtomicU32>) {
    let server = endpoint.strip_prefix("http://").expect("an endpoint on loopback").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let broken = Arc::new(AtomicU32::new(0));
    let count = broken.clone();
    tokio::spawn(async move {
        for number in 0_u32.. {
            let Ok((client, _)) = listener.accept().await else { return };
            let server = TcpStream::connect(&server).await.expect("the server");
            let count = count.clone();
            tokio::spawn(async move {
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let requests = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut left = if number.is_multiple_of(2) { after_bytes } else { usize::MAX };
                let mut answer = vec![0; 64 * 1024];
                while let Ok(bytes @ 1..) = from_server.read(&mut answer).await {
                    left = left.saturating_sub(bytes);
                    if left == 0 {
                        count.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    if to_client.write_all(&answer[..bytes]).await.is_err() {
                        break;
                    }
                }
                requests.abort();
            });
        }
    });
    (format!("http://{address}"), broken)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_off_are_made_again() {
    let (objects, endpoint, account, settings) = fresh!();
    let bytes = bytes(20 * MIB);
    let etag = {
        put(&objects, "inbox/a", &bytes).await;
        objects.head("inbox/a").await.expect("a head").expect("it is there").etag
    };
    let (endpoint, broken) = breaking(endpoint, 3 * MIB).await;
    let objects = Objects::over(&loopback::config(&endpoint, &account).await, &settings);
    let Found::Same(object) = objects.find("inbox/a", &ObjectVersion { etag, id: None }).await.expect("found") else {
        panic!("it is there")
    };
    assert!(read(&object).await.expect("read") == bytes);
    assert!(broken.load(Ordering::Relaxed) > 0);
}

async fn write(objects: &Objects, key: &str, bytes: Vec<u8>, replaces: &Replaces) -> Written {
    let metadata = HashMap::from([("sheaf-job".to_owned(), "j".to_owned())]);
    let mut writer = objects.write(key, "text/plain", metadata);
    let written = spawn_blocking(move || {
        for piece in bytes.chunks(777_777) {
            writer.write_all(piece).expect("written");
            writer.flush().expect("flushed");
        }
        writer
    });
    written.await.expect("writing does not panic").complete(replaces).await.expect("completed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_appear_when_they_are_complete() {
    let (objects, ..) = fresh!();
    let mut there = Replaces::Nothing;
    for count in [0, 5, 8 * MIB, 8 * MIB + 1, 30 * MIB] {
        let Written::Done { etag } = write(&objects, "outbox/a", bytes(count), &there).await else {
            panic!("{count} bytes are refused")
        };
        let head = objects.head("outbox/a").await.expect("a head").expect("it is there");
        assert_eq!(
            (head.bytes, &head.etag, head.metadata.get("sheaf-job").map(String::as_str)),
            (count as u64, &etag, Some("j"))
        );
        let version = ObjectVersion { etag: etag.clone(), id: None };
        let Found::Same(object) = objects.find("outbox/a", &version).await.expect("found") else {
            panic!("it is there")
        };
        assert!(read(&object).await.expect("read") == bytes(count), "{count} bytes");
        // Neither in the place of something else than was seen, nor where something is.
        for count in [7, 9 * MIB] {
            for replaces in [Replaces::Nothing, Replaces::Etag("0123456789abcdef0123456789abcdef".to_owned())] {
                assert_eq!(write(&objects, "outbox/a", bytes(count), &replaces).await, Written::Refused);
            }
        }
        assert_eq!(objects.head("outbox/a").await.expect("a head").expect("it is there").etag, etag);
        there = Replaces::Etag(etag);
    }
    no_uploads_open(&objects).await;
}

async fn no_uploads_open(objects: &Objects) {
    let mut tries = 0;
    while objects.uploads_open().await > 0 {
        tries += 1;
        assert!(tries < 100, "uploads were left behind");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_completed_is_given_up() {
    let (objects, ..) = fresh!();
    let mut writer = objects.write("outbox/a", "text/plain", HashMap::new());
    let writer = spawn_blocking(move || writer.write_all(&bytes(20 * MIB)).map(|()| writer));
    let writer = writer.await.expect("writing does not panic").expect("written");
    assert_eq!(objects.uploads_open().await, 1);
    assert_eq!(objects.head("outbox/a").await.expect("a head"), None);
    drop(writer);
    no_uploads_open(&objects).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_one_has_a_name() {
    let (objects, ..) = fresh!();
    let tries = (0..8).map(|i| {
        let objects = objects.clone();
        tokio::spawn(async move { objects.put_if_absent("outbox/.names/a", Bytes::from(format!("{i}"))).await })
    });
    let mut winners = Vec::new();
    for (i, one) in futures::future::join_all(tries).await.into_iter().enumerate() {
        if one.expect("putting does not panic").expect("put") == Put::Created {
            winners.push(i.to_string());
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(objects.get("outbox/.names/a").await.expect("got"), Some(Bytes::from(winners.remove(0))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_stays_what_it_is() {
    let (objects, ..) = fresh!();
    objects.keep_versions().await;
    objects.make_uploads_queue().await;
    put(&objects, "inbox/a", b"first").await;
    let mut told = Vec::new();
    while told.is_empty() {
        told = objects.take_from_uploads(5).await;
        told.retain(|message| message.contains("versionId"));
    }
    let message: serde_json::Value = serde_json::from_str(&told[0]).expect("JSON");
    let object = &message["Records"][0]["s3"]["object"];
    let text = |name: &str| object[name].as_str().expect("text").to_owned();
    let version = ObjectVersion { etag: text("eTag"), id: Some(text("versionId")) };
    put(&objects, "inbox/a", b"second").await;
    objects.delete("inbox/a").await.expect("deleted");
    let Found::Same(first) = objects.find("inbox/a", &version).await.expect("found") else { panic!("it is kept") };
    assert_eq!(read(&first).await.expect("read"), b"first");
    let never = ObjectVersion { etag: version.etag, id: Some("00000000-0000-0000-0000-000000000000".to_owned()) };
    assert!(matches!(objects.find("inbox/a", &never).await.expect("found"), Found::Gone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_left_unfinished_is_gone_on_with() {
    let (objects, ..) = fresh!();
    let (whole, metadata) = (bytes(30 * MIB + 5), HashMap::from([("of".to_owned(), "a".to_owned())]));
    // Before the first part, between parts, in the midst of one; and nothing between two of them.
    let mut writer = objects.write("outbox/a", "text/plain", metadata.clone());
    let mut from = 0;
    for to in [5, 5, 8 * MIB, 19 * MIB, 30 * MIB] {
        let piece = whole[from..to].to_vec();
        let write = spawn_blocking(move || writer.write_all(&piece).map(|()| writer));
        let unfinished = write.await.expect("writing does not panic").expect("written").leave().await.expect("left");
        writer = objects.go_on("outbox/a", "text/plain", metadata.clone(), unfinished);
        from = to;
    }
    let unfinished = writer.leave().await.expect("left");
    let last = whole[from..].to_vec();
    let mut first = objects.go_on("outbox/a", "text/plain", metadata.clone(), unfinished.clone());
    first.write_all(&last).expect("written");
    assert!(matches!(first.complete(&Replaces::Nothing).await, Ok(Written::Done { .. })));
    let head = objects.head("outbox/a").await.expect("a head").expect("it is there");
    assert_eq!((head.bytes, &head.metadata), (whole.len() as u64, &metadata));
    let found = objects.find("outbox/a", &ObjectVersion { etag: head.etag, id: None }).await.expect("found");
    let Found::Same(object) = found else { panic!("{found:?}") };
    assert!(read(&object).await.expect("read") == whole);
    // Whoever goes on with what is complete changes nothing.
    let second = objects.go_on("outbox/a", "text/plain", metadata, unfinished);
    assert!(!matches!(second.complete(&Replaces::Nothing).await, Ok(Written::Done { .. })));
    assert_eq!(objects.uploads_open().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_blob_goes_in_parts_and_only_once() {
    let (objects, endpoint, account, settings) = fresh!();
    let config = loopback::config(endpoint, &account).await;
    let blobs = AwsBlobs::new(&config, &settings.bucket);
    let (key, blob) = ("r/large".to_owned(), Bytes::from(bytes(65 * MIB + 1)));
    let put = |bytes: &Bytes| blobs.put(vec![(key.clone(), bytes.clone())]);
    assert_eq!(put(&blob).await, [Ok(Put::Created)]);
    assert_eq!(put(&Bytes::from(vec![0; 40 * MIB])).await, [Ok(Put::Exists)]);
    let got = blobs.get(std::slice::from_ref(&key)).await.remove(0).expect("got").expect("it is there");
    assert!(got == blob, "{} bytes came back", got.len());
    // An ETag of parts says how many they were.
    let etag = objects.head(&key).await.expect("a head").expect("it is there").etag;
    assert!(etag.ends_with("-3"), "{etag}");
    assert_eq!(objects.uploads_open().await, 0);
}
