//! Nothing is believed that declares a huge size: reading it takes memory for what it can hold, not for what it says. Alone
//! in its process, because it looks at the memory of the whole of it.

mod frames;

#[cfg(target_os = "linux")]
#[test]
fn what_declares_a_huge_size_takes_no_memory() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    std::io::Write::write_all(&mut encoder, b"tiny").expect("writing to memory");
    let without_size = encoder.finish().expect("writing to memory");
    // A frame header with a content size of 8 bytes, and one block of one repeated byte.
    let lying = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &(256u64 << 20).to_le_bytes(), &[0x03, 0, 0, 0]].concat();
    for stored in [without_size, lying] {
        let frame = frames::framed(b"SHPK", 1, 1, 256 << 20, &stored);
        takes_at_most(16, "a frame", || assert!(sheaf_api::Pack::parse(frame).is_err()));
    }
    // The process's peak never falls, so that what may take more comes later.
    bodies();
    files();
}

/// Checks that the process does not grow by more MiB over what it ever had.
#[cfg(target_os = "linux")]
fn takes_at_most(mib: u64, what: &str, read: impl FnOnce()) {
    let before = peak_kib();
    read();
    let grown = peak_kib() - before;
    assert!(grown < mib << 10, "reading {what} took {grown} KiB");
}

#[cfg(target_os = "linux")]
fn bodies() {
    use sheaf_api::stream::{decode_chunk_set, decode_results, decode_submission};

    let lie = [&[255u8; 4][..], &[0; 12]].concat();
    takes_at_most(16, "a part of 4 GiB", || assert!(decode_submission(lie.into()).is_err()));
    let head = br#"{"job":{},"chunks":[]}"#;
    let head = [&(head.len() as u32).to_le_bytes()[..], head].concat();
    takes_at_most(16, "a head of no job", || assert!(decode_results(head.into()).is_err()));
    // 65,536 containers are announced, of which there is none.
    let set = base64(&[&[0x3b, 0x30, 0xff, 0xff][..], &[0xff; 8_192]].concat());
    takes_at_most(16, "a set of everything", || assert!(decode_chunk_set(&set).is_err()));
    let set = base64(&[&[0x3a, 0x30, 0, 0][..], &u32::MAX.to_le_bytes(), &[0xff; 64]].concat());
    takes_at_most(16, "a set of too many containers", || assert!(decode_chunk_set(&set).is_err()));
}

#[cfg(target_os = "linux")]
fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(target_os = "linux")]
fn files() {
    use sheaf_api::intake::{Compression, Format, Shape, inflate, scan};

    let refused = |mib, what, shape, compression, file: &mut dyn std::io::Read| {
        takes_at_most(mib, what, || {
            let error = scan(file, Format { shape, compression }, None).expect_err(what);
            assert!(error.to_string().len() < 4_096);
        });
    };
    // Compressed before anything is measured: that takes memory, too.
    let blank = vec![b'\n'; 16 << 20];
    let mut gzip = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(&blank[..], flate2::Compression::best());
    std::io::Read::read_to_end(&mut encoder, &mut gzip).expect("memory can be read");
    let zstd = zstd::bulk::compress(&blank, 19).expect("it compresses");
    for (compression, bomb) in [(Compression::Gzip, gzip.repeat(17)), (Compression::Zstd, zstd.repeat(17))] {
        takes_at_most(48, "a bomb", || {
            let mut inflated = inflate(&bomb[..], compression).expect("a decoder");
            let error = std::io::copy(&mut inflated, &mut std::io::sink()).expect_err("it is a bomb");
            assert!(error.to_string().contains("unfold to over"), "{error}");
        });
    }
    // A frame header that asks for a window of 2 TiB.
    let mut window = std::io::Cursor::new([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x03, 0, 0, 0]);
    refused(16, "a window of 2 TiB", Shape::Ndjson, Compression::Zstd, &mut window);
    let endless = || std::io::Read::take(std::io::repeat(b'x'), 1 << 30);
    let mut string = std::io::Read::chain(&b"{\"a\":{\"type\":\""[..], endless());
    refused(64, "a string of 1 GiB", Shape::CommandFile, Compression::Plain, &mut string);
    refused(64, "a line of 1 GiB", Shape::Ndjson, Compression::Plain, &mut endless());
    let mut cell = std::io::Read::chain(&b"type,a\nf,\""[..], endless());
    refused(64, "a cell of 1 GiB", Shape::Csv, Compression::Plain, &mut cell);
    let mut columns = std::io::Read::take(std::io::repeat(b','), 1 << 30);
    refused(64, "a billion columns", Shape::Csv, Compression::Plain, &mut columns);
    let mut depth =
        std::io::Read::chain(&b"{\"a\":{\"arguments\":"[..], std::io::Read::take(std::io::repeat(b'['), 1 << 30));
    refused(64, "a billion levels", Shape::CommandFile, Compression::Plain, &mut depth);
}

/// The most address space that this process has ever had: memory that was asked for counts, whether it was used or not.
#[cfg(target_os = "linux")]
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("Linux writes it");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}
