//! An access order of arbitrary bytes is refused, or is a bounded list of paths that is encoded to the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocifs::layer::{ACCESS_ORDER_FILES, encode_access_order, parse_access_order};

fuzz_target!(|data: &[u8]| {
    let Ok(paths) = parse_access_order(data) else { return };
    assert!(paths.len() <= ACCESS_ORDER_FILES);
    for path in &paths {
        assert!(path.split(|byte| *byte == b'/').all(|name| !matches!(name, b"" | b"." | b"..") && !name.contains(&0)));
    }
    assert_eq!(encode_access_order(paths), data);
});
