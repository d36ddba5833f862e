//! Passphrases and the keys derived from them, in memory only.
//!
//! Passphrases are requested when the first sealed blob is read, in the order of their sources, and wiped with the ring. Everything here blocks:
//! deriving a key takes tens of milliseconds and 32 MiB.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::bounded::BoundedMap;
use crate::error::{Error, ErrorKind};
use crate::seal::{EnvelopeKey, Passphrase};

/// Most passphrases tried.
const PASSPHRASES: usize = 16;
/// Salts whose keys are cached.
const SALTS: usize = 256;

/// The source of one passphrase. Queried until it succeeds once, on a blocking thread.
pub trait PassphraseSource: Send + Sync {
    /// The passphrase; `None` if this source has none.
    ///
    /// # Errors
    /// A message that says which source failed and how.
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
    /// Tried first.
    lent: Vec<(u64, Passphrase)>,
    /// Number of loans so far.
    loans: u64,
    /// Keys by salt, with the loan count at their derivation.
    derived: BoundedMap<[u8; 32], (u64, Arc<[EnvelopeKey]>), SALTS>,
}

/// Passphrases lent to a ring until this is dropped, when they are wiped. Keys derived from them stay, or content already opened could not be read
/// any more.
#[must_use]
pub struct Lent {
    ring: KeyRing,
    number: u64,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.ring.lock().lent.retain(|(number, _)| *number != self.number);
    }
}

/// The passphrases of a mount. Cheap to clone; keys are wiped with the last clone.
#[derive(Clone, Default)]
pub struct KeyRing {
    /// Locked while a key is derived: one derivation at a time bounds the memory and acts as single flight.
    ring: Arc<Mutex<Ring>>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyRing")
    }
}

impl KeyRing {
    /// A ring with passphrases from these sources, tried in order.
    pub fn new(sources: Vec<Arc<dyn PassphraseSource>>) -> Self {
        let sources = sources.into_iter().take(PASSPHRASES).map(|source| (source, Asked::NotYet)).collect();
        Self { ring: Arc::new(Mutex::new(Ring { sources, ..Ring::default() })) }
    }

    /// Whether there is no source.
    pub fn is_empty(&self) -> bool {
        let ring = self.lock();
        ring.sources.is_empty() && ring.lent.is_empty()
    }

    /// Tries these passphrases first until the result is dropped.
    pub fn lend(&self, passphrases: Vec<Passphrase>) -> Lent {
        let mut ring = self.lock();
        ring.loans += 1;
        let number = ring.loans;
        ring.lent.splice(0..0, passphrases.into_iter().take(PASSPHRASES).map(|passphrase| (number, passphrase)));
        drop(ring);
        Lent { ring: self.clone(), number }
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, Ring> {
        self.ring.lock()
    }

    /// Ensures that there is a passphrase, querying the sources if necessary. Blocks.
    pub(in crate::content) fn ask(&self) -> Result<(), Error> {
        self.lock().passphrases().map(drop)
    }

    /// The key for a new envelope, from the first passphrase; `None` if no source has one. Blocks.
    ///
    /// # Errors
    /// KeyMissing if a source failed.
    pub(in crate::content) fn first(&self, salt: &[u8; 32]) -> Result<Option<EnvelopeKey>, Error> {
        let mut ring = self.lock();
        let found = match ring.passphrases() {
            Ok(found) => found,
            Err(_) if ring.sources.iter().all(|(_, asked)| matches!(asked, Asked::Answer(None))) => return Ok(None),
            Err(error) => return Err(error),
        };
        found.first().map(|passphrase| derive(passphrase, salt)).transpose()
    }

    /// The key for a new envelope, from the passphrase whose key for another salt `fits`. Blocks.
    ///
    /// # Errors
    /// KeyMissing if there is no passphrase.
    pub(in crate::content) fn again(
        &self,
        other: &[u8; 32],
        fits: impl Fn(&EnvelopeKey) -> bool,
        salt: &[u8; 32],
    ) -> Result<Option<EnvelopeKey>, Error> {
        for passphrase in self.lock().passphrases()? {
            if fits(&derive(&passphrase, other)?) {
                return derive(&passphrase, salt).map(Some);
            }
        }
        Ok(None)
    }

    /// The keys of an envelope from all passphrases, in order. Blocks.
    ///
    /// # Errors
    /// KeyMissing if there is no passphrase.
    pub(in crate::content) fn keys(&self, salt: &[u8; 32]) -> Result<Arc<[EnvelopeKey]>, Error> {
        let mut ring = self.lock();
        let loans = ring.loans;
        let (untried, known) = match ring.derived.get(salt) {
            Some((tried, keys)) if tried == loans || ring.lent.is_empty() => return Ok(keys),
            Some((tried, keys)) => {
                let untried = ring.lent.iter().filter(|(number, _)| *number > tried);
                (untried.map(|(_, passphrase)| passphrase.clone()).collect(), keys.to_vec())
            }
            None => (ring.passphrases()?, Vec::new()),
        };
        let fresh = untried.iter().map(|passphrase| derive(passphrase, salt)).collect::<Result<Vec<_>, _>>()?;
        let keys: Arc<[_]> = fresh.into_iter().chain(known).collect();
        ring.derived.put(*salt, (loans, Arc::clone(&keys)));
        Ok(keys)
    }
}

impl Ring {
    fn passphrases(&mut self) -> Result<Vec<Passphrase>, Error> {
        let mut found: Vec<Passphrase> = self.lent.iter().map(|(_, passphrase)| passphrase.clone()).collect();
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
            format!("the artifact is encrypted and no passphrase could be read: {}", failures.join("; "))
        };
        Err(Error::new(ErrorKind::KeyMissing, reason))
    }
}

fn derive(passphrase: &Passphrase, salt: &[u8; 32]) -> Result<EnvelopeKey, Error> {
    EnvelopeKey::derive(passphrase, salt)
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
    fn a_new_envelope_uses_the_passphrase_that_opened_the_old_one() {
        let say = |text: &'static str| -> Arc<dyn PassphraseSource> { Arc::new(move || Ok(Some(Passphrase::new(text.into())))) };
        let ring = KeyRing::new(vec![say("one"), say("two")]);
        let proof = |key: &EnvelopeKey| {
            let mut sealed = Vec::new();
            key.cache_key().seal(0, b"x", &mut sealed);
            sealed
        };
        let keys = |text: &str, salt: u8| proof(&EnvelopeKey::derive(&Passphrase::new(text.into()), &[salt; 32]).unwrap());
        let wanted = keys("two", 1);
        let again = ring.again(&[1; 32], |key| proof(key) == wanted, &[2; 32]).unwrap().unwrap();
        assert_eq!(proof(&again), keys("two", 2));
        assert_eq!(proof(&ring.first(&[2; 32]).unwrap().unwrap()), keys("one", 2));
        assert!(ring.again(&[1; 32], |_| false, &[2; 32]).unwrap().is_none());
    }

    #[test]
    fn a_new_envelope_without_a_passphrase_has_no_key_but_a_failing_source_is_an_error() {
        assert!(KeyRing::default().first(&[0; 32]).unwrap().is_none());
        let silent: Arc<dyn PassphraseSource> = Arc::new(|| Ok(None));
        assert!(KeyRing::new(vec![Arc::clone(&silent)]).first(&[0; 32]).unwrap().is_none());
        let failing: Arc<dyn PassphraseSource> = Arc::new(|| Err("no terminal".to_owned()));
        assert_eq!(KeyRing::new(vec![silent, failing]).first(&[0; 32]).unwrap_err().kind, ErrorKind::KeyMissing);
    }

    #[test]
    fn a_lent_passphrase_is_tried_first_then_forgotten_and_opened_content_stays_readable() {
        let ring = KeyRing::new(vec![Arc::new(|| Ok(Some(Passphrase::new(b"own".to_vec()))))]);
        assert_eq!(ring.keys(&[1; 32]).unwrap().len(), 1);
        let lent = ring.lend(vec![Passphrase::new(b"lent".to_vec())]);
        assert_eq!((ring.keys(&[1; 32]).unwrap().len(), ring.keys(&[2; 32]).unwrap().len()), (2, 2));
        drop(lent);
        assert!(ring.lock().lent.is_empty());
        assert_eq!((ring.keys(&[2; 32]).unwrap().len(), ring.keys(&[3; 32]).unwrap().len()), (2, 1));
        let empty = KeyRing::default();
        let lent = empty.lend(vec![Passphrase::new(b"lent".to_vec())]);
        assert!(!empty.is_empty() && empty.first(&[0; 32]).unwrap().is_some());
        drop(lent);
        assert!(empty.is_empty() && empty.first(&[0; 32]).unwrap().is_none());
    }

    #[test]
    fn a_passphrase_source_is_read_on_first_use_and_only_once() {
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
