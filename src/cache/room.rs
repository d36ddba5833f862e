//! Room in the budget: reserved, evicting if necessary, or lent to bytes outside the cache.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::evict;
use super::ledger::Reservation;
use super::shared::{HOPELESS, Shared};
use crate::error::Error;

/// Most attempts to reserve room that others may take as soon as it is made.
const ATTEMPTS: usize = 5;

impl Shared {
    /// Reserves room for `bytes`, evicting if necessary. `None` if there is no room.
    pub fn reserve(&self, bytes: u64) -> Result<Option<Reservation>, Error> {
        self.reserve_by(bytes, || evict::make_room(self, bytes))
    }

    /// Reserves room for `bytes`, if necessary after `make_room`, which returns whether it made as much.
    pub(super) fn reserve_by(&self, bytes: u64, mut make_room: impl FnMut() -> Result<bool, Error>) -> Result<Option<Reservation>, Error> {
        if bytes > self.limit() {
            return Ok(None);
        }
        for _ in 0..ATTEMPTS {
            if self.disk_shortage(bytes)? == 0
                && let Some(reservation) = self.ledger.reserve(bytes, self.limit())
            {
                return Ok(Some(reservation));
            }
            if self.hopeless.lock().is_some_and(|(when, tried)| when.elapsed() < HOPELESS && bytes >= tried) {
                return Ok(None);
            }
            if !make_room()? {
                *self.hopeless.lock() = Some((Instant::now(), bytes));
                return Ok(None);
            }
        }
        // Others took all that was made. That says nothing about the next attempt.
        Ok(None)
    }

    /// Reserves room for bytes outside the cache. `None` if there is no room or the disk fails.
    pub fn lend(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        let reserved = self.reserve(bytes).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot count bytes outside the cache");
            None
        });
        reserved.map(|reservation| Room { shared: Arc::clone(self), reservation: Mutex::new(Some(reservation)) })
    }
}

/// Budget reserved for bytes outside the cache, until given back or dropped.
pub struct Room {
    shared: Arc<Shared>,
    /// Locked only for a glance.
    reservation: Mutex<Option<Reservation>>,
}

impl Room {
    /// Releases the reservation.
    pub fn give_back(&self) {
        let reservation = self.reservation.lock().take();
        let bytes = reservation.as_ref().map_or(0, Reservation::bytes);
        drop(reservation);
        self.shared.give_back(bytes);
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Room").field(&self.reservation.lock().as_ref().map(Reservation::bytes)).finish()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_back();
    }
}
