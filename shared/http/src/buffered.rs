//! Answers that are held whole before they are passed on.

use tokio::time::Instant;

/// The header of a set of results as lines that is not the rest of them: what to give as `have` to read on. Without it, the
/// lines are all there are.
pub const HAVE_HEADER: &str = "x-sheaf-have";

/// An extension for requests whose answer is held whole before it is passed on, by something that waits only so long: a
/// Lambda behind an HTTP API.
///
/// Long polls end by then with what there is. Results as lines stop behind some chunk and say in [`HAVE_HEADER`] how to read
/// on; to follow a job in this way is refused.
#[derive(Debug, Clone, Copy)]
pub struct Buffered {
    /// When the answer must be on its way.
    pub answer_by: Instant,
    /// Lines of results end behind the chunk that takes them over so many bytes.
    pub lines_bytes_max: usize,
}
