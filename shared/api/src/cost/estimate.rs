//! What a job makes the steps ask for, from its shape alone.
//!
//! Each line follows a step of `sheaf-protocol` over the ports of `sheaf-aws`; a test beside those ports runs jobs of chunks
//! of 1, 100 and 1,000 tasks through all steps, counts every request, and holds this model to what it counted.
//!
//! It assumes a busy grid: full batches, warm processes, no throttling, nothing lost; and a job that was submitted at once, whose
//! chunks ended evenly while it was alive. It leaves out what a grid costs while it has nothing to do.

use serde::{Deserialize, Serialize};
use sheaf_core::{Lane, limits};

use super::{GB, Item, MESSAGE_BYTES_BILLED, Step, Usage};

/// Entries per batch of SQS, and messages that Lambda takes at once.
const QUEUE_BATCH: f64 = limits::QUEUE_BATCH_MAX as f64;
/// Chunks per call, of submissions and of what the stream tells.
const CALL_CHUNKS: f64 = limits::WRITES_PER_CALL_MAX as f64;
/// Bytes of packs after which a client closes a call.
const CALL_BYTES: f64 = 8.0 * 1024.0 * 1024.0;
/// A message besides its pack.
const MESSAGE_BYTES: f64 = 110.0;
/// An item of a chunk besides its marks, roughly.
const CHUNK_BYTES: f64 = 450.0;
/// What a chunk adds to the keys of the table's indexes and to what DynamoDB bills per item, roughly.
const CHUNK_INDEX_BYTES: f64 = 350.0;
/// What a submitted chunk takes in the items of the summary that are not complete.
const SUM_BYTES: f64 = 4.0;
/// Chunks in one item of the summary.
const SUM_CHUNKS: f64 = 64.0;
/// One write unit and one read unit. Source: DynamoDB.
const WRITE_BYTES: f64 = 1_024.0;
const READ_BYTES: f64 = 4_096.0;
/// A claim this long after the submission moves the chunk in the index of due chunks, which costs two writes; an earlier one
/// leaves it where it is. Source: `sheaf_core::due_of_lease`.
const CLAIM_EARLY_S: f64 = ms(limits::HINT_AGE_MS - limits::LEASE_MS - limits::CLOCK_MARGIN_MS);
/// The sweeper looks at a waiting chunk when it is so old, and again when it is this many times as old. Source:
/// `sheaf_protocol::sweep`.
const WAITING_LOOK_S: f64 = ms(limits::HINT_AGE_MS);
const WAITING_LOOK_GROWTH: f64 = 2.25;
/// What Lambda was given is kept hidden from others by a request at once, and another one each so many seconds.
const HIDE_S: f64 = ms(limits::HEARTBEAT_MS);
/// Queries of one look at that index.
const DUE_SHARDS: f64 = 64.0;
/// Partitions of a job's chunks.
const CHUNK_SHARDS: f64 = 16.0;
/// Who waits for news looks every so many seconds.
const LOOK_S: f64 = 2.0;
/// Memory with which a Lambda has one CPU. Source: Lambda's documentation.
const CPU_MEMORY_GB: f64 = 1.769;
/// Memory beside one CPU of a container.
const CONTAINER_MEMORY_GB: f64 = 2.0;
/// A month, as storage is billed.
const MONTH_S: f64 = 30.0 * 24.0 * 3_600.0;

/// What of a job decides what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct JobShape {
    /// Its chunks.
    pub chunks: u64,
    /// Its tasks.
    pub tasks: u64,
    /// Bytes of all its packs.
    pub pack_bytes: u64,
    /// Bytes of all its segments.
    pub result_bytes: u64,
    /// Claims of its chunks; at least one each.
    pub attempts: u64,
    /// How long its tasks ran, all together.
    pub run_s: f64,
    /// How long it was alive, with a client waiting for it and the sweeper looking.
    pub alive_s: f64,
    /// How long it is kept.
    pub kept_s: f64,
    /// Where it runs.
    pub lane: Lane,
}

/// What follows from a shape, per chunk.
struct Chunk {
    chunks: f64,
    /// The pack rides in the message.
    inline: bool,
    /// Requests of SQS for a batch of messages, either way.
    batch_requests: f64,
    /// Write units of the item, without indexes.
    item_writes: f64,
    item_bytes: f64,
    /// Segments before the last.
    segments: f64,
    heartbeats: f64,
    /// Looks of the sweeper at it while it waits and runs.
    touches: f64,
    /// Writes of indexes by its claim.
    claim_index_writes: f64,
    /// Requests to keep its message hidden.
    hides: f64,
}

impl Chunk {
    fn of(shape: &JobShape) -> Self {
        let chunks = shape.chunks.max(1) as f64;
        let (tasks, pack_bytes) = (shape.tasks as f64 / chunks, shape.pack_bytes as f64 / chunks);
        let run_s = shape.run_s / chunks;
        let message_bytes = (pack_bytes / 3.0).ceil() * 4.0 + MESSAGE_BYTES;
        let inline = pack_bytes <= limits::INLINE_PACK_BYTES_MAX as f64 && message_bytes <= MESSAGE_BYTES_BILLED as f64;
        let message_bytes = if inline { message_bytes } else { MESSAGE_BYTES };
        let batch = QUEUE_BATCH.min(chunks);
        let item_bytes = CHUNK_BYTES + tasks / 4.0;
        // A job that was alive for long had chunks waiting, on the average for half of that.
        let late = if shape.alive_s > 0.0 { (1.0 - CLAIM_EARLY_S / shape.alive_s).max(0.0) } else { 0.0 };
        let waited_s = (shape.alive_s / 2.0 - run_s).max(0.0);
        let waiting_looks = match waited_s / WAITING_LOOK_S {
            times if times < 1.0 => 0.0,
            times => 1.0 + (times.ln() / WAITING_LOOK_GROWTH.ln()).floor(),
        };
        // The last segment goes with the end; a task that runs longer than that cannot be cut.
        let segments = (run_s / ms(limits::SEGMENT_MS)).floor().min(tasks - 1.0).max(0.0);
        let heartbeats = ((run_s / ms(limits::HEARTBEAT_MS)).floor() - segments).max(0.0);
        Self {
            chunks,
            inline,
            batch_requests: (batch * message_bytes / MESSAGE_BYTES_BILLED as f64).ceil() / batch,
            item_writes: (item_bytes / WRITE_BYTES).ceil(),
            item_bytes,
            segments,
            heartbeats,
            touches: (run_s / ms(limits::LEASE_MS + limits::CLOCK_MARGIN_MS)).floor() + waiting_looks,
            claim_index_writes: 2.0 * late,
            hides: (1.0 + (run_s * batch / HIDE_S).floor()) / batch,
        }
    }
}

const fn ms(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

/// Calls that carry chunks: full ones, and a last one with the rest.
struct Calls {
    full: f64,
    full_bytes: f64,
    rest: f64,
    rest_bytes: f64,
}

impl Calls {
    /// Of chunks with so many bytes in all, at most so many chunks and bytes in a call, and one chunk at least.
    fn of(chunks: f64, bytes: u64, chunks_max: f64, bytes_max: f64) -> Self {
        let bytes = bytes as f64 / chunks;
        let per_call = (bytes_max / bytes.max(1.0)).floor().clamp(1.0, chunks_max);
        let full = (chunks / per_call).floor();
        let left = chunks - full * per_call;
        Self { full, full_bytes: per_call * bytes, rest: f64::from(u8::from(left > 0.0)), rest_bytes: left * bytes }
    }

    fn count(&self) -> f64 {
        self.full + self.rest
    }

    /// How many calls with how many bytes.
    fn each(&self, mut call: impl FnMut(f64, u64)) {
        call(self.full, self.full_bytes as u64);
        call(self.rest, self.rest_bytes as u64);
    }
}

/// Requests of DynamoDB of one step, with their units.
struct Table<'a>(&'a mut Usage, Step);

impl Table<'_> {
    fn reads(&mut self, requests: f64, units: f64) -> &mut Self {
        self.0.add(self.1, Item::DynamodbRequest, requests);
        self.0.add(self.1, Item::DynamodbReadUnit, requests * units);
        self
    }

    fn writes(&mut self, requests: f64, units: f64) -> &mut Self {
        self.0.add(self.1, Item::DynamodbRequest, requests);
        self.0.add(self.1, Item::DynamodbWriteUnit, requests * units);
        self
    }
}

impl JobShape {
    /// What the job makes each step use. A job without chunks costs its creation, its seal and a look at it.
    pub fn estimate(&self) -> Usage {
        let mut usage = Usage::default();
        let chunk = Chunk::of(self);
        self.submit(&chunk, &mut usage);
        self.work(&chunk, &mut usage);
        self.result(&mut usage);
        self.read(&chunk, &mut usage);
        self.sweep(&chunk, &mut usage);
        self.run(&mut usage);
        self.keep(&chunk, &mut usage);
        usage
    }

    const fn is_empty(&self) -> bool {
        self.chunks == 0
    }

    /// Read units of a look at a summary of which nothing is complete, on the average of a job that is submitted as a whole
    /// before its first chunk ends.
    fn tally_units(&self) -> f64 {
        (self.chunks as f64 / 2.0 * SUM_BYTES / READ_BYTES).max(1.0)
    }

    fn submit(&self, chunk: &Chunk, usage: &mut Usage) {
        // Create: the function's newest version and manifest, the job, its summary and estimate. Seal: the job, chunks beyond,
        // the summary; the job again, its write; and its summary and estimate as the answer.
        usage.calls(Step::Submit, 2.0, 0, 0);
        Table(usage, Step::Submit)
            .reads(4.0, 1.0)
            .writes(1.0, 3.0)
            .reads(3.0 + CHUNK_SHARDS, 1.0)
            .reads(3.0, self.tally_units())
            .writes(1.0, 1.0);
        if self.is_empty() {
            return;
        }
        let calls = Calls::of(chunk.chunks, self.pack_bytes, CALL_CHUNKS, CALL_BYTES);
        calls.each(|count, bytes| usage.calls(Step::Submit, count, bytes, 0));
        let calls = calls.count();
        usage.add(Step::Submit, Item::S3Put, chunk.chunks);
        usage.add(Step::Submit, Item::SqsRequest, chunk.chunks * chunk.batch_requests);
        Table(usage, Step::Submit).reads(calls, 1.0).writes(chunk.chunks, chunk.item_writes + 1.0);
    }

    fn work(&self, chunk: &Chunk, usage: &mut Usage) {
        if self.is_empty() {
            return;
        }
        let attempts = chunk.chunks.max(self.attempts as f64);
        let step = if self.lane == Lane::Lambda { Step::Dispatch } else { Step::Worker };
        if step == Step::Dispatch {
            // What polls for Lambda receives and deletes a batch at once; the function keeps it hidden meanwhile.
            let deletes = 1.0 / QUEUE_BATCH.min(chunk.chunks);
            usage.invocations(step, attempts * deletes);
            usage.add(step, Item::SqsRequest, attempts * (chunk.batch_requests + deletes + chunk.hides));
        } else {
            // The urgent queue is asked first, and each message is deleted by itself.
            usage.add(step, Item::SqsRequest, attempts * 3.0);
        }
        usage.add(step, Item::S3Get, if chunk.inline { attempts - chunk.chunks } else { attempts });
        usage.add(step, Item::S3Put, chunk.chunks * (1.0 + chunk.segments));
        let again = attempts - chunk.chunks;
        Table(usage, step)
            .writes(attempts, chunk.item_writes + chunk.claim_index_writes)
            .reads(attempts, 1.0)
            .writes(again, chunk.item_writes + 2.0)
            .writes(chunk.chunks * (chunk.segments + chunk.heartbeats), chunk.item_writes)
            .writes(chunk.chunks, chunk.item_writes + 1.0)
            // The manifest and the estimate, once.
            .reads(2.0, 1.0);
    }

    fn result(&self, usage: &mut Usage) {
        // The write that closes it, and its estimate.
        Table(usage, Step::Result).reads(2.0, 1.0).writes(1.0, 2.0).writes(1.0, 1.0);
        usage.add(Step::Result, Item::Event, 1.0);
        if self.is_empty() {
            return;
        }
        // Once when they are submitted, and once when they have ended; then it also looks whether that was the last.
        let calls = 2.0 * (self.chunks as f64 / CALL_CHUNKS).ceil();
        let items = (CALL_CHUNKS.min(self.chunks as f64) - 1.0) / SUM_CHUNKS + 1.0;
        usage.invocations(Step::Result, calls);
        Table(usage, Step::Result).writes(calls * items, 1.0).reads(calls, 1.0).reads(1.5 * calls, self.tally_units());
    }

    fn read(&self, chunk: &Chunk, usage: &mut Usage) {
        let segments = chunk.chunks * (1.0 + chunk.segments);
        let (chunks_max, bytes_max) = (limits::RESULT_PAGE_CHUNKS_MAX as f64, limits::RESULT_PAGE_BYTES_TARGET as f64);
        let pages = Calls::of(chunk.chunks, self.result_bytes, chunks_max, bytes_max);
        // The last page is empty, and says so.
        usage.calls(Step::Read, 1.0, 0, 0);
        Table(usage, Step::Read).reads(3.0, 1.0);
        if self.is_empty() {
            return;
        }
        pages.each(|count, bytes| usage.calls(Step::Read, count, 0, bytes));
        let pages = pages.count();
        usage.add(Step::Read, Item::S3Get, segments);
        let chunks_per_page = chunk.chunks / pages;
        Table(usage, Step::Read)
            .reads(3.0 * pages, 1.0)
            .reads(pages, chunks_per_page * (chunk.item_bytes / READ_BYTES).ceil());
        // Somebody waits for it: a held call looks at the job and its summary.
        let polls = (self.alive_s / ms(limits::LONG_POLL_MS_MAX)).floor();
        usage.calls(Step::Read, polls, 0, 0);
        usage.add(Step::Read, Item::LambdaArmGbS, self.alive_s * super::STEP_MEMORY_GB);
        Table(usage, Step::Read).reads(2.0 * (self.alive_s / LOOK_S).floor(), self.tally_units());
    }

    /// The sweeper sleeps in its Lambda between two looks. A grid has one for all jobs; here one job pays for it alone.
    fn sweep(&self, chunk: &Chunk, usage: &mut Usage) {
        let sweeps = (self.alive_s / ms(limits::SWEEP_MS)).floor();
        usage.add(Step::Sweep, Item::LambdaRequest, (self.alive_s / 60.0).floor());
        usage.add(Step::Sweep, Item::LambdaArmGbS, sweeps * ms(limits::SWEEP_MS) * super::STEP_MEMORY_GB);
        let touches = chunk.touches * self.chunks as f64;
        Table(usage, Step::Sweep)
            .reads(sweeps * DUE_SHARDS, 0.5)
            .reads(sweeps, 0.5)
            .reads(sweeps, 1.0)
            .reads(sweeps, self.tally_units())
            .reads(touches / CALL_CHUNKS, CALL_CHUNKS)
            .writes(touches, chunk.item_writes + 2.0);
    }

    fn run(&self, usage: &mut Usage) {
        let hours = self.run_s / 3_600.0;
        let mut add = |item, count| usage.add(Step::Run, item, count);
        match self.lane {
            Lane::Lambda => add(Item::LambdaArmGbS, self.run_s * CPU_MEMORY_GB),
            Lane::Spot => {
                add(Item::FargateSpotVcpuH, hours);
                add(Item::FargateSpotGbH, hours * CONTAINER_MEMORY_GB);
            }
            Lane::OnDemand => {
                add(Item::FargateVcpuH, hours);
                add(Item::FargateGbH, hours * CONTAINER_MEMORY_GB);
            }
        }
    }

    fn keep(&self, chunk: &Chunk, usage: &mut Usage) {
        let months = self.kept_s / MONTH_S;
        usage.add(Step::Keep, Item::S3GbMonth, (self.pack_bytes + self.result_bytes) as f64 / GB * months);
        let row_bytes = self.chunks as f64 * (chunk.item_bytes + CHUNK_INDEX_BYTES);
        usage.add(Step::Keep, Item::DynamodbGbMonth, row_bytes / GB * months);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Prices, *};

    fn shape(chunks: u64, tasks: u64) -> JobShape {
        JobShape {
            chunks,
            tasks,
            pack_bytes: 100 * tasks,
            result_bytes: 110 * tasks,
            attempts: chunks,
            run_s: 0.0,
            alive_s: 0.0,
            kept_s: 0.0,
            lane: Lane::Lambda,
        }
    }

    fn usd(shape: JobShape) -> f64 {
        super::super::totals(&Prices::built_in().price(&shape.estimate())).1
    }

    #[test]
    fn tasks_in_large_chunks_cost_next_to_nothing() {
        let [one, hundred, thousand] = [1, 100, 1_000].map(|tasks| usd(shape(1_000_000 / tasks, 1_000_000)));
        assert!(thousand < 0.03 && hundred < 0.25 && one < 20.0, "{one} {hundred} {thousand}");
        assert!(one > 50.0 * hundred && hundred > 5.0 * thousand, "{one} {hundred} {thousand}");
    }

    #[test]
    fn long_tasks_are_renewed_and_looked_at() {
        let long = JobShape { run_s: 600.0, ..shape(1, 1) };
        let (long, short) = (long.estimate(), shape(1, 1).estimate());
        let writes = |usage: &Usage, step| usage.of(step, Item::DynamodbWriteUnit);
        assert_eq!(writes(&long, Step::Dispatch) - writes(&short, Step::Dispatch), 60.0, "a heartbeat every 10 s");
        assert_eq!(writes(&long, Step::Sweep), 51.0, "the sweeper looks when a lease could be over");
        assert_eq!(long.of(Step::Run, Item::LambdaArmGbS), 600.0 * CPU_MEMORY_GB);
        let spot = JobShape { lane: Lane::Spot, run_s: 3_600.0, ..shape(1, 1) }.estimate();
        assert_eq!(spot.of(Step::Run, Item::FargateSpotVcpuH), 1.0);
        assert!(spot.of(Step::Worker, Item::DynamodbWriteUnit) > 0.0 && spot.of(Step::Run, Item::LambdaArmGbS) == 0.0);
    }

    #[test]
    fn chunks_that_wait_are_looked_at_and_claimed_late() {
        let writes =
            |alive_s, step| JobShape { alive_s, ..shape(100, 100) }.estimate().of(step, Item::DynamodbWriteUnit);
        assert_eq!(writes(20.0, Step::Dispatch), writes(0.0, Step::Dispatch));
        assert_eq!(writes(50.0, Step::Dispatch) - writes(0.0, Step::Dispatch), 100.0, "half of them, by two writes");
        let looks = [20.0, 119.0, 121.0, 280.0, 700.0].map(|alive_s| writes(alive_s, Step::Sweep) / 300.0);
        assert_eq!(looks, [0.0, 0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn calls_are_full_but_for_the_last() {
        let calls = |chunks, bytes| {
            let mut calls = Vec::new();
            Calls::of(chunks, bytes, 100.0, 1_000.0).each(|count, bytes| calls.push((count, bytes)));
            calls
        };
        assert_eq!(calls(250.0, 250), [(2.0, 100), (1.0, 50)]);
        assert_eq!(calls(10.0, 3_000), [(3.0, 900), (1.0, 300)], "bytes bound them, too");
        assert_eq!(calls(2.0, 10_000), [(2.0, 5_000), (0.0, 0)], "a chunk that is too large has one to itself");
    }

    #[test]
    fn more_attempts_cost_more_and_empty_jobs_almost_nothing() {
        let once = shape(10, 10_000);
        assert!(usd(JobShape { attempts: 20, ..once }) > usd(once));
        let empty = usd(shape(0, 0));
        assert!(empty > 0.0 && empty < 1e-4, "{empty}");
    }

    #[test]
    fn bytes_are_kept_for_a_month() {
        let kept = JobShape { kept_s: MONTH_S, pack_bytes: 1 << 30, result_bytes: 0, ..shape(1, 1) };
        assert_eq!(kept.estimate().of(Step::Keep, Item::S3GbMonth), 1.0);
    }
}
