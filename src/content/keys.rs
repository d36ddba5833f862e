//! Passphrases and the keys derived from them, kept in memory only.
//!
//! Passphrases are asked for when the first sealed blob is read, in the order in which their sources were given,
//! and wiped with the ring. Everything here blocks: deriving a key takes tens of milliseconds and 32 MiB.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use crate::error::ErrorKind;
use crate::seal::{EnvelopeKey, Passphrase};

/// Most passphrases that are tried.
const PASSPHRASES: usize = 16;
/// Salts whose keys are kept.
const SALTS: usize = 256;

/// Where one passphrase comes from. Asked at most once successfully, on a thread that may block.
pub trait PassphraseSource: Send + Sync {
    /// The passphrase; `None` if this source has none to give.
    ///
    /// # Errors
    /// Text for people that says which source failed and how.
    fn passphrase(&self) -> Result<Option<Passphrase>, String>;
}

impl<F: Fn() -> Result<Option<Passphrase>, String> + Send + Sync> PassphraseSource for F {
    fn passphrase(&self) -> Result<Option<Passphrase>, String> {
        self()
    }
}

enum Asked {
    NotYet,
    Answer(Option<Passphrase>),
}

#[derive(Default)]
struct Ring {
    sources: Vec<(Arc<dyn PassphraseSource>, Asked)>,
    derived: HashMap<[u8; 32], Arc<[EnvelopeKey]>>,
}

/// The passphrases of a mount. Cheap to clone; the keys are wiped with the last clone.
#[derive(Clone, Default)]
pub struct KeyRing {
    /// Held while a key is derived: one derivation at a time bounds the memory, and is the single flight.
    ring: Arc<Mutex<Ring>>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyRing")
    }
}

impl KeyRing {
    /// A ring whose passphrases come from these sources, tried in order.
    pub fn new(sources: Vec<Arc<dyn PassphraseSource>>) -> Self {
        let sources = sources.into_iter().take(PASSPHRASES).map(|source| (source, Asked::NotYet)).collect();
        Self { ring: Arc::new(Mutex::new(Ring { sources, derived: HashMap::new() })) }
    }

    /// Whether there is any source.
    pub fn is_empty(&self) -> bool {
        self.lock().sources.is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that there is a passphrase, asking the sources if need be. Blocks.
    pub(super) fn ask(&self) -> Result<(), Error> {
        self.lock().passphrases().map(drop)
    }

    /// The keys of an envelope that the passphrases give, in order. Blocks.
    ///
    /// # Errors
    /// KeyMissing if there is no passphrase.
    pub(super) fn keys(&self, salt: &[u8; 32]) -> Result<Arc<[EnvelopeKey]>, Error> {
        let mut ring = self.lock();
        if let Some(keys) = ring.derived.get(salt) {
            return Ok(Arc::clone(keys));
        }
        let keys: Result<Arc<[_]>, _> = ring.passphrases()?.iter().map(|passphrase| EnvelopeKey::derive(passphrase, salt)).collect();
        let keys = keys.map_err(|error| Error::new(error.kind, error.message))?;
        if ring.derived.len() >= SALTS {
            ring.derived.clear();
        }
        ring.derived.insert(*salt, Arc::clone(&keys));
        Ok(keys)
    }
}

impl Ring {
    fn passphrases(&mut self) -> Result<Vec<Passphrase>, Error> {
        let mut found = Vec::new();
        let mut failures = Vec::new();
        for (source, asked) in &mut self.sources {
            if let Asked::NotYet = asked {
                match source.passphrase() {
                    Ok(answer) => *asked = Asked::Answer(answer),
                    Err(failure) => failures.push(failure),
                }
            }
            if let Asked::Answer(Some(passphrase)) = asked {
                found.push(passphrase.clone());
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        let reason = if failures.is_empty() {
            "the artifact is encrypted and no passphrase was given (--passphrase-file, --passphrase-command, OCIFS_PASSPHRASE)".to_owned()
        } else {
            format!("the artifact is encrypted and no passphrase could be had: {}", failures.join("; "))
        };
        Err(Error::new(ErrorKind::KeyMissing, reason))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn without_a_passphrase_the_key_is_missing_and_a_failing_source_is_named() {
        assert_eq!(KeyRing::default().ask().unwrap_err().kind, ErrorKind::KeyMissing);
        let ring = KeyRing::new(vec![Arc::new(|| Err("--passphrase-command exited with 1".to_owned()))]);
        let error = ring.ask().unwrap_err();
        assert_eq!(error.kind, ErrorKind::KeyMissing);
        assert!(error.message.contains("exited with 1"), "{error}");
    }

    #[test]
    fn a_source_is_asked_when_first_needed_and_only_once() {
        let asked = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&asked);
        let ring = KeyRing::new(vec![Arc::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(Some(Passphrase::new(b"secret".to_vec())))
        })]);
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        ring.ask().unwrap();
        ring.ask().unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }
}
