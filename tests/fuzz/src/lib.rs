//! What several fuzz targets need: frames whose checksums fit, and the properties of dropped files.
//!
//! A fuzzer does not guess a checksum. Targets of formats that have one let the fuzzer write all but that, and seal it.

pub mod files;
pub mod frames;
