//! A file's bytes out of their wrapping, under caps: a small upload must not unfold to more than the grid will read.

use std::io::{self, BufReader, Read};

use flate2::read::MultiGzDecoder;

use super::{Compression, IntakeError, limits};

/// The decompressed bytes of a file, as [`inflate`] opens them.
///
/// Reading fails with [`io::ErrorKind::UnexpectedEof`] when a compressed stream ends early and with
/// [`io::ErrorKind::InvalidData`] when it is damaged or over a limit; both hold an [`IntakeError`]. Other errors are the
/// source's own.
pub struct Inflated<R: Read> {
    stream: Stream<R>,
    bytes: u64,
    bytes_max: u64,
}

enum Stream<R: Read> {
    Plain(Counted<R>),
    Gzip(Box<MultiGzDecoder<Counted<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, BufReader<Counted<R>>>),
}

/// A source that counts what was read, and remembers whether an error was its own. It takes up interrupted reads itself:
/// decoders differ in whether they can.
struct Counted<R> {
    source: R,
    bytes: u64,
    failed: bool,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.source.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    self.failed |= result.is_err();
                    self.bytes += *result.as_ref().unwrap_or(&0) as u64;
                    return result;
                }
            }
        }
    }
}

/// Opens a file's bytes. Several gzip members or zstd frames in a row read as one. Memory: the decoder's window, 32 KiB or
/// at most 2^[`limits::ZSTD_WINDOW_LOG_MAX`] bytes.
///
/// # Errors
/// [`IntakeError::Io`] if a decoder cannot be made. (gzip reads its first header here; what is wrong with it comes out of
/// the first read.)
pub fn inflate<R: Read>(source: R, compression: Compression) -> Result<Inflated<R>, IntakeError> {
    let source = Counted { source, bytes: 0, failed: false };
    let stream = match compression {
        Compression::Plain => Stream::Plain(source),
        Compression::Gzip => Stream::Gzip(Box::new(MultiGzDecoder::new(source))),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(source).map_err(IntakeError::Io)?;
            decoder.window_log_max(limits::ZSTD_WINDOW_LOG_MAX).map_err(IntakeError::Io)?;
            Stream::Zstd(decoder)
        }
    };
    Ok(Inflated { stream, bytes: 0, bytes_max: limits::FILE_BYTES_MAX })
}

impl<R: Read> Inflated<R> {
    /// Decompressed bytes read so far.
    pub fn inflated_bytes(&self) -> u64 {
        self.bytes
    }

    fn compression(&self) -> Compression {
        match self.stream {
            Stream::Plain(_) => Compression::Plain,
            Stream::Gzip(_) => Compression::Gzip,
            Stream::Zstd(_) => Compression::Zstd,
        }
    }

    fn counted(&self) -> &Counted<R> {
        match &self.stream {
            Stream::Plain(source) => source,
            Stream::Gzip(decoder) => decoder.get_ref(),
            Stream::Zstd(decoder) => decoder.get_ref().get_ref(),
        }
    }

    /// What a failed read means: the source's trouble, or a bad stream.
    fn failure(&self, error: io::Error) -> Result<usize, IntakeError> {
        let (compression, source) = (self.compression(), self.counted());
        match error.kind() {
            _ if source.failed => Err(IntakeError::Io(error)),
            io::ErrorKind::UnexpectedEof if source.bytes == 0 => Ok(0),
            io::ErrorKind::UnexpectedEof => Err(IntakeError::CompressionTruncated { compression }),
            _ => Err(IntakeError::Corrupt { compression, source: error }),
        }
    }

    fn check(&self) -> Result<(), IntakeError> {
        let (bytes, compressed_bytes) = (self.bytes, self.counted().bytes);
        if bytes > self.bytes_max {
            return Err(IntakeError::FileTooLarge { max: self.bytes_max });
        }
        let ratio_max = limits::INFLATION_RATIO_MAX;
        if bytes > limits::INFLATION_FLOOR_BYTES && bytes / ratio_max > compressed_bytes {
            return Err(IntakeError::Inflated { compression: self.compression(), compressed_bytes, bytes, ratio_max });
        }
        Ok(())
    }
}

impl<R: Read> Read for Inflated<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.stream {
            Stream::Plain(source) => source.read(into),
            Stream::Gzip(decoder) => decoder.read(into),
            Stream::Zstd(decoder) => decoder.read(into),
        };
        let read = match read {
            Err(error) => self.failure(error).map_err(IntakeError::into_io)?,
            Ok(read) => read,
        };
        self.bytes += read as u64;
        self.check().map_err(IntakeError::into_io)?;
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_file_over_the_cap_is_refused() {
        let mut inflated = inflate(&[b' '; 100][..], Compression::Plain).unwrap();
        inflated.bytes_max = 99;
        let error = io::copy(&mut inflated, &mut io::sink()).unwrap_err();
        assert!(matches!(IntakeError::from_io(error), IntakeError::FileTooLarge { max: 99 }));
    }
}
