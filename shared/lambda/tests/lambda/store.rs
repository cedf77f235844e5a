//! A place for bodies in memory, whose URLs are answered by the gateway of the tests.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use sheaf_aws::Taken;
use sheaf_lambda::Bodies;
use sheaf_protocol::StoreError;

#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub(crate) bodies: Arc<Mutex<HashMap<String, Bytes>>>,
    /// What URLs begin with.
    pub(crate) base: Arc<Mutex<String>>,
    pub(crate) taken: Arc<AtomicUsize>,
    pub(crate) given: Arc<AtomicUsize>,
}

impl Bodies for Memory {
    async fn upload_url(&self, name: &str) -> Result<String, StoreError> {
        Ok(format!("{}/bucket/{name}?signature=secret", self.base.lock().unwrap()))
    }

    async fn download_url(&self, name: &str) -> Result<String, StoreError> {
        self.upload_url(name).await
    }

    async fn take(&self, name: &str, bytes_max: u64) -> Result<Taken, StoreError> {
        self.taken.fetch_add(1, Ordering::SeqCst);
        let body = self.bodies.lock().unwrap().get(name).cloned();
        Ok(match body {
            None => Taken::Absent,
            Some(body) if body.starts_with(b"HUGE") => Taken::TooLarge { bytes: bytes_max + 1 },
            Some(body) => Taken::Body(body),
        })
    }

    async fn give(&self, name: &str, body: Bytes) -> Result<(), StoreError> {
        self.given.fetch_add(1, Ordering::SeqCst);
        self.bodies.lock().unwrap().insert(name.to_owned(), body);
        Ok(())
    }
}
