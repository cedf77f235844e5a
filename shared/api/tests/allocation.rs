//! A frame is not believed when it declares a huge body: reading it takes memory for what it can hold, not for what it says.
//! Alone in its process, because it looks at the memory of the whole of it.

mod frames;

#[cfg(target_os = "linux")]
#[test]
fn a_tiny_frame_that_declares_a_huge_body_takes_no_memory() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    std::io::Write::write_all(&mut encoder, b"tiny").expect("writing to memory");
    let without_size = encoder.finish().expect("writing to memory");
    // A frame header with a content size of 8 bytes, and one block of one repeated byte.
    let lying = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &(256u64 << 20).to_le_bytes(), &[0x03, 0, 0, 0]].concat();
    for stored in [without_size, lying] {
        let frame = frames::framed(b"SHPK", 1, 1, 256 << 20, &stored);
        let before = peak_kib();
        assert!(sheaf_api::Pack::parse(frame).is_err());
        let grown = peak_kib() - before;
        assert!(grown < 16 << 10, "reading {} bytes took {grown} KiB", stored.len());
    }
}

/// The most address space that this process has ever had: memory that was asked for counts, whether it was used or not.
#[cfg(target_os = "linux")]
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("Linux writes it");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}
