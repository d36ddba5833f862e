//! A table of contents of zstd:chunked is refused, or makes an index that is safe to read, wherever it says that chunks are.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocifs_fuzz::{read_table, tables};

fuzz_target!(|data: &[u8]| read_table(data, tables::zstd_chunked));
