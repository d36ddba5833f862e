//! Names of documents: encoding a key as a file name, and naming documents in pins.

use sha2::Digest as _;

/// Longest escaped key in bytes; longer ones are hashed.
const LONGEST_NAME: usize = 200;

/// The file name of a key: unique per key, readable if possible, and never one that leaves its directory or is hidden.
pub fn file_name(key: &str) -> String {
    let mut name = String::new();
    for (at, byte) in key.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            b'.' if at > 0 => name.push('.'),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    if !name.is_empty() && name.len() <= LONGEST_NAME {
        return name;
    }
    let digest = sha2::Sha256::digest(key.as_bytes());
    format!("~{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A document as named in pins: kind and file.
pub type DocumentName = (String, String);
