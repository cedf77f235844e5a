//! The host as the steps see it.

use bytes::Bytes;
use futures::future::BoxFuture;
use sheaf_api::run::{Call, Report};
use sheaf_core::{Digest, FunctionKind, Manifest};
use sheaf_host::{Handlers, Host, PackageSource};
use sheaf_protocol::{BlobStore, Ports, Runner, functions::package_key};

/// A host as what runs calls.
#[derive(Debug)]
pub struct HostRunner {
    /// What runs them.
    pub host: Host,
    /// The Rust functions that are linked in.
    pub handlers: Handlers,
}

impl Runner for HostRunner {
    fn slots(&self) -> usize {
        self.host.slots()
    }

    /// A handler may be linked in later: after a restart, the chunks that are there are faster than the program.
    fn can_run(&self, manifest: &Manifest) -> bool {
        match &manifest.kind {
            FunctionKind::Handler { revision } => self.handlers.get(&manifest.name, revision).is_some(),
            FunctionKind::Package { .. } | FunctionKind::Command { .. } | FunctionKind::Lambda { .. } => true,
        }
    }

    fn run(&self, call: Call) -> impl Future<Output = Report> + Send {
        self.host.call(call)
    }
}

/// The packages that a grid keeps.
#[derive(Debug, Clone)]
pub struct StoredPackages<P>(pub P);

impl<P: Ports> PackageSource for StoredPackages<P> {
    fn fetch(&self, digest: Digest) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(async move {
            let found = self.0.blobs().get(&[package_key(digest)]).await.pop().expect("one answer per key");
            found.map_err(|error| error.to_string())?.ok_or_else(|| format!("package {digest} is not here"))
        })
    }
}
