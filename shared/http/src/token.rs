//! The secret that a caller proves itself with, and the file it lies in.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

const TOKEN_BYTES: usize = 32;
/// A file longer than this holds something else.
const FILE_BYTES_MAX: u64 = 256;

/// A bearer token: 32 random bytes, written as 43 characters of base64url. Never printed by `Debug`.
#[derive(Clone)]
pub struct Token([u8; TOKEN_BYTES]);

/// A token that could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The text is not one.
    #[error("not a token: 43 characters of base64url are wanted")]
    Malformed,
    /// The file does not hold one.
    #[error("{} holds no token: delete it, and a new one is written", path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
    },
    /// Others could read the file, so it may be no secret any more.
    #[error("{} can be read by others (mode {mode:04o}): make it private with chmod 600, or delete it", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file could not be read or written.
    #[error("the token file {} cannot be used", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Token {
    /// A new token from the system's randomness.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads the token in a file that only its owner may read.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let io = |source| TokenError::Io { path: path.into(), source };
        let file = File::open(path).map_err(io)?;
        check_private(&file, path)?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(io)?;
        text.trim().parse().map_err(|_| TokenError::NoToken { path: path.into() })
    }

    /// Reads the token in a file, or writes a new one there (mode 0600) when there is no such file. Its directory must
    /// exist. Two processes that do this at the same time end with the same token, or one of them with an error.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        let io = |source| TokenError::Io { path: path.into(), source };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(path) {
            Ok(mut file) => {
                let token = Self::random();
                let written = writeln!(file, "{}", token.expose()).and_then(|()| file.sync_all());
                written.map_err(io)?;
                Ok(token)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => Err(io(error)),
        }
    }

    /// The secret itself, for the header of a request or a file of one's own. Not for logs.
    pub fn expose(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Whether a text is this token. Takes the same time whichever byte differs.
    pub(crate) fn is(&self, text: &str) -> bool {
        text.parse::<Self>().is_ok_and(|given| given.0.ct_eq(&self.0).into())
    }
}

#[cfg(unix)]
fn check_private(file: &File, path: &Path) -> Result<(), TokenError> {
    use std::os::unix::fs::MetadataExt;
    let mode = file.metadata().map_err(|source| TokenError::Io { path: path.into(), source })?.mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(TokenError::NotPrivate { path: path.into(), mode }) }
}

#[cfg(not(unix))]
fn check_private(_: &File, _: &Path) -> Result<(), TokenError> {
    Ok(())
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)?;
        Ok(Self(bytes.try_into().map_err(|_| TokenError::Malformed)?))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
