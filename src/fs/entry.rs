//! Entries: the target of a name, its attributes, and how long the kernel may cache both.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::location::Location;
use super::namespace::Namespace;
use super::resolve::Item;
use super::{FOREVER, Inode, NAME_TTL, Others};
use crate::error::Error;
use crate::view::{Attributes, Key, Origin, View};

/// An inode with its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The inode number known to the kernel.
    pub inode: u64,
    /// Its attributes.
    pub attributes: Attributes,
    /// How long the name may be cached.
    pub name_ttl: Duration,
    /// How long the attributes may be cached.
    pub attributes_ttl: Duration,
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It exists; counts one more lookup by the kernel.
    Found(Entry),
    /// It does not exist; the absence may be cached this long.
    Absent(Duration),
}

impl Lookup {
    /// The entry, if it exists.
    pub fn found(self) -> Option<Entry> {
        match self {
            Self::Found(entry) => Some(entry),
            Self::Absent(_) => None,
        }
    }
}

impl Namespace {
    /// How long the name of something that can move may be cached.
    fn moving_ttl(&self) -> Duration {
        NAME_TTL.min(self.context.tag_ttl)
    }

    /// An entry for the target of a name above tags, counted as one lookup.
    pub(super) fn item_entry(&self, item: Item, guessed: bool) -> Result<Entry, Error> {
        let location = match item {
            Item::View(key, origin) => return self.view_entry(key, origin),
            Item::Location(location) => location,
        };
        let moves = matches!(location, Location::Directory(_) | Location::RepositoryLink(_) | Location::Pasted(..) | Location::NewTag(..));
        let node = self.locations.name(location.clone());
        if matches!(location, Location::Directory(_)) && !guessed {
            self.locations.confirm(node);
        }
        let number = self.number(Inode::of_namespace(node));
        let entry = self.location_attributes(number, &location);
        let name_ttl = match (guessed, moves) {
            (true, _) => Duration::ZERO,
            (false, true) => self.moving_ttl(),
            (false, false) => FOREVER,
        };
        Ok(Entry { name_ttl, ..entry })
    }

    /// An entry for a view's own directory, counted as one lookup.
    pub(super) fn view_entry(&self, key: Key, origin: Origin) -> Result<Entry, Error> {
        let name_ttl = match &key {
            Key::Tag(..) | Key::Metadata(..) | Key::Odd(..) => self.moving_ttl(),
            Key::Digest(..) | Key::Member(..) => FOREVER,
        };
        // Attributes are cached as long as the name: meanwhile the kernel requests them only if they deny an access.
        let unentered_ttl = if self.admits_others() { NAME_TTL } else { name_ttl };
        let (number, opened) = self.views.number(key, || origin)?;
        let Some(view) = opened else { return Ok(Entry { name_ttl: unentered_ttl, ..self.named_attributes(number) }) };
        // A listing must not extend the lifetime of an expiring name, or a script that lists before it reads would
        // never see a tag move. A tag not yet entered shows nothing stale.
        let name_ttl = match (view.shown(), view.key()) {
            (None, _) => unentered_ttl,
            // An edited tag does not follow upstream.
            (Some(_), Key::Tag(..)) if self.staged.holds(view.number()) => name_ttl,
            (Some(_), Key::Tag(repository, tag)) if !self.context.artifacts.is_fresh(&repository, &tag) => Duration::ZERO,
            _ => name_ttl,
        };
        match self.attributes_of(&view, 0) {
            Ok(entry) => Ok(Entry { name_ttl, ..entry }),
            Err(error) => {
                self.views.forget(view.number(), 1);
                Err(error)
            }
        }
    }

    /// An entry for a node of a view, counted as one lookup.
    pub(super) fn node_entry(&self, view: &Arc<View>, node: u64) -> Result<Entry, Error> {
        let mut entry = self.attributes_of(view, node)?;
        if self.admits_others() && !view.has_sent_attributes() {
            // Every lookup of this name passes here again, to be checked.
            entry.name_ttl = Duration::ZERO;
        }
        if self.views.retain(view.number()) { Ok(entry) } else { Err(super::refusals::stale()) }
    }

    /// Attributes of a node of a view; not counted.
    pub(super) fn attributes_of(&self, view: &View, node: u64) -> Result<Entry, Error> {
        let is_entered = view.shown().is_some();
        let attributes = view.attributes(&self.context, node)?;
        // The attributes of a view change when it is entered.
        let attributes_ttl = if is_entered { FOREVER } else { NAME_TTL };
        if is_entered && node == 0 {
            view.set_attributes_sent();
        }
        let inode = self.number(Inode::of_view(view.number(), node));
        Ok(Entry { inode, attributes, name_ttl: FOREVER, attributes_ttl })
    }

    /// Attributes of the directory of a tag of which only the name was requested; not counted.
    pub(super) fn named_attributes(&self, view: u32) -> Entry {
        let inode = Inode::of_view(view, 0).encode();
        Entry { inode, attributes: self.context.defaults.directory(), name_ttl: FOREVER, attributes_ttl: NAME_TTL }
    }

    /// Attributes of something above tags; not counted.
    pub(super) fn location_attributes(&self, number: u64, location: &Location) -> Entry {
        let defaults = &self.context.defaults;
        let attributes = match location {
            Location::Window(_) if self.config.others == Others::Files => defaults.private_directory(),
            location if location.is_directory() => defaults.directory(),
            location if location.is_made_file() => return self.made_entry(number, self.made_file(location).len() as u64),
            _ => defaults.symlink(&location.link().unwrap_or_default()),
        };
        Entry { inode: number, attributes, name_ttl: FOREVER, attributes_ttl: FOREVER }
    }
    /// Attributes of a generated file. It changes with every reading, so the kernel must not cache its size, and drops pages cached earlier.
    pub(super) fn made_entry(&self, number: u64, size: u64) -> Entry {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos());
        let attributes = Attributes { time, atime: time, ctime: time, ..self.context.defaults.file(size) };
        Entry { inode: number, attributes, name_ttl: FOREVER, attributes_ttl: Duration::ZERO }
    }
}
