//! Every cap on a dropped file, each with its source, so that a hostile or broken file costs bounded memory and time.

/// Bytes of one file, decompressed. Source: the largest job that a single upload should start; 100 million commands of 640
/// bytes.
pub const FILE_BYTES_MAX: u64 = 64 << 30;
/// Commands in one file. Source: finding duplicates keeps 128 bits per given id; at this count that is about 2.3 GB (an
/// open-addressed table of 17 bytes a slot, 44 to 88 % full). Ids that are row or line numbers cost nothing.
pub const COMMANDS_MAX: u64 = 100_000_000;
/// One command as written in the file, and its payload. Source: the payload limit of a synchronous Lambda invocation.
pub const COMMAND_BYTES_MAX: usize = sheaf_core::limits::TASK_BYTES_MAX;
/// One id, decoded. Source: an id becomes its task's key.
pub const ID_BYTES_MAX: usize = sheaf_core::limits::TASK_KEY_BYTES_MAX;
/// One function's name, decoded. Longer than any real name: an unknown function is an outcome of its command, and only a
/// senseless one refuses the file.
pub const FUNCTION_BYTES_MAX: usize = 1_024;
/// Functions named by one file. Source: a file is one job, and a job names its functions by index.
pub const FUNCTIONS_MAX: usize = sheaf_core::limits::JOB_FUNCTIONS_MAX;
/// Levels of arrays and objects in a payload. Source: what `serde_json` reads with its default limit of 128.
pub const NESTING_MAX: u32 = 127;
/// Columns of a CSV file. Source: spreadsheets hold at most 16,384.
pub const COLUMNS_MAX: usize = 16_384;
/// Bytes that a compressed file may always unfold to, whatever its ratio. Source: ten million equal lines without ids are
/// a fair file and pack to 1/10,000; reading this much takes seconds and no memory.
pub const INFLATION_FLOOR_BYTES: u64 = 256 << 20;
/// Bytes out per byte in, above the floor. Source: a million commands that differ in their ids pack to 1/11 with `gzip -9`
/// and 1/120 with `zstd -19` (measured); gzip cannot pass 1/1,032, and bombs start near there.
pub const INFLATION_RATIO_MAX: u64 = 1_000;
/// Window of a zstd frame, as a power of two: 128 MiB, which the decoder allocates. Source: the default of the `zstd`
/// tool; its highest level writes no more.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// Bytes read ahead. A longer command makes the window grow, to at most twice [`COMMAND_BYTES_MAX`].
pub const WINDOW_BYTES: usize = 256 * 1024;
/// What a reason quotes of a file, in bytes: it is there to be found again, in a report that people read.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Levels of a result that is printed in Python's form; a deeper one is printed as it is. Source: about half of what
/// Python itself prints before its recursion limit.
pub const PYTHON_NESTING_MAX: usize = 512;
