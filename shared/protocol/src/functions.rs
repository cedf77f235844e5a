//! Declaring functions and finding them.

use bytes::Bytes;
use sheaf_api::{
    ApiError, Code,
    stream::manifest_json,
    wire::{FunctionView, PutFunction},
};
use sheaf_core::{Digest, FunctionKind, FunctionName, FunctionRef, Manifest, limits};

use crate::{
    ports::{BlobStore, Ports, StateStore},
    write::retrying,
};

/// The key of a package's blob.
pub fn package_key(digest: Digest) -> String {
    format!("f/{digest}")
}

/// Declares a function: its package durable, then its manifest. Repeating it is harmless.
pub async fn put<P: Ports>(ports: &P, request: PutFunction) -> Result<FunctionView, ApiError> {
    let PutFunction { manifest, package } = request;
    manifest.check().map_err(|error| ApiError::invalid(error.to_string()))?;
    let reference = manifest.reference(&manifest_json(&manifest));
    if let FunctionKind::Package { digest, .. } = &manifest.kind {
        put_package(ports, &manifest.name, *digest, package).await?;
    }
    retrying(ports, || ports.state().put_function(&reference, &manifest)).await?;
    let estimate = ports.state().estimate(&reference).await;
    Ok(FunctionView { reference, manifest, estimate })
}

async fn put_package<P: Ports>(
    ports: &P,
    name: &FunctionName,
    digest: Digest,
    package: Option<Bytes>,
) -> Result<(), ApiError> {
    let key = package_key(digest);
    let Some(package) = package else {
        let keys = [key];
        let stored =
            retrying(ports, || async { ports.blobs().get(&keys).await.pop().expect("one answer per key") }).await?;
        return if stored.is_some() {
            Ok(())
        } else {
            Err(ApiError::invalid(format!("function {name}: no package with digest {digest} is here")))
        };
    };
    if package.len() as u64 > limits::PACKAGE_BYTES_MAX {
        let message = format!(
            "function {name}: its package has {} bytes, the limit is {}",
            package.len(),
            limits::PACKAGE_BYTES_MAX
        );
        return Err(ApiError::new(Code::TooLarge, message));
    }
    if Digest::of(&package) != digest {
        return Err(ApiError::invalid(format!("function {name}: its package does not have the digest {digest}")));
    }
    retrying(ports, || async {
        ports.blobs().put(vec![(key.clone(), package.clone())]).await.pop().expect("one answer per blob")
    })
    .await?;
    Ok(())
}

/// Finds a function by `name` (its newest version) or `name@version`.
pub async fn resolve<P: Ports>(ports: &P, name: &str) -> Result<(FunctionRef, Manifest), ApiError> {
    let unknown = || {
        ApiError::new(Code::NotFound, format!("there is no function {name} here"))
            .with_hint("`sheaf function list` shows those there are; `sheaf function add` declares one")
    };
    let reference = if name.contains('@') {
        name.parse().map_err(|error| ApiError::invalid(format!("{error}")))?
    } else {
        let parsed: FunctionName = name.parse().map_err(|error| ApiError::invalid(format!("{error}")))?;
        retrying(ports, || ports.state().newest(&parsed)).await?.ok_or_else(unknown)?
    };
    let manifest = retrying(ports, || ports.state().function(&reference)).await?.ok_or_else(unknown)?;
    Ok((reference, manifest))
}

/// A function, as it is shown.
pub async fn view<P: Ports>(ports: &P, name: &str) -> Result<FunctionView, ApiError> {
    let (reference, manifest) = resolve(ports, name).await?;
    let estimate = ports.state().estimate(&reference).await;
    Ok(FunctionView { reference, manifest, estimate })
}

/// The newest version of every function.
pub async fn list<P: Ports>(ports: &P) -> Result<Vec<FunctionView>, ApiError> {
    let mut views = Vec::new();
    for reference in retrying(ports, || ports.state().functions()).await? {
        if let Some(manifest) = retrying(ports, || ports.state().function(&reference)).await? {
            let estimate = ports.state().estimate(&reference).await;
            views.push(FunctionView { reference, manifest, estimate });
        }
    }
    Ok(views)
}
