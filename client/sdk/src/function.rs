//! Functions as the client knows them: a name, and how items become payloads and results become values.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{chunk_results::ResultBytes, error::ItemError};

/// Makes an item's payload: either what lies in the item already, or what it writes into the buffer.
pub(crate) type Encode<I> = for<'a> fn(&'a I, &'a mut Vec<u8>) -> Result<&'a [u8], ItemError>;
/// Makes a value of a result's bytes, or says what is wrong with them.
pub(crate) type Decode<O> = fn(ResultBytes<'_>) -> Result<O, String>;

/// A function of the grid that takes an `I` and gives an `O`: its name, and how both are written. Says nothing of whether
/// the grid has such a function; the first job of it does.
///
/// ```
/// use sheaf::Function;
/// let price = Function::<(String, f64), f64>::named("price");          // JSON
/// let noop = Function::<[u8; 64], sheaf::Bytes>::raw("noop@0123456789ab"); // bytes, and one certain version
/// ```
pub struct Function<I, O> {
    name: Arc<str>,
    pub(crate) encode: Encode<I>,
    pub(crate) decode: Decode<O>,
}

impl<I: Serialize, O: DeserializeOwned> Function<I, O> {
    /// A function whose payloads and results are JSON. `name` means its newest version when the job is created,
    /// `name@version` that one.
    ///
    /// A job that is resumed from its journal must write its items the same way again: a `HashMap` in an item does not, a
    /// `BTreeMap` does.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), encode: encode_json, decode: decode_json }
    }
}

impl<I: AsRef<[u8]>> Function<I, Bytes> {
    /// A function whose payloads and results are bytes, passed through as they are. A result shares the memory it came
    /// in: keeping one keeps its whole chunk.
    pub fn raw(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), encode: |item, _| Ok(item.as_ref()), decode: decode_raw }
    }
}

impl<I, O> Function<I, O> {
    /// Its name, with the version where one was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Two handles of one grid name the same function the same way.
    pub(crate) fn name_shared(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }
}

fn encode_json<'a, I: Serialize>(item: &'a I, buffer: &'a mut Vec<u8>) -> Result<&'a [u8], ItemError> {
    buffer.clear();
    serde_json::to_writer(&mut *buffer, item).map_err(|error| ItemError::Json(Arc::new(error)))?;
    Ok(buffer)
}

pub(crate) fn decode_json<O: DeserializeOwned>(result: ResultBytes<'_>) -> Result<O, String> {
    serde_json::from_slice(result.as_slice()).map_err(|error| error.to_string())
}

pub(crate) fn decode_raw(result: ResultBytes<'_>) -> Result<Bytes, String> {
    Ok(result.to_bytes())
}

impl<I, O> Clone for Function<I, O> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), encode: self.encode, decode: self.decode }
    }
}

impl<I, O> fmt::Debug for Function<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Function").field(&self.name).finish()
    }
}
