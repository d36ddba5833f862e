//! The state of one tag in a mount, and how events change it. Plain data: nothing here waits, makes requests or notifies.
//!
//! Slow work happens elsewhere and comes back as an event, which is judged by the tag's state at that time: a registry
//! answer changes nothing about a tag that was edited meanwhile, and an edit that begins in the directory of a tag that moved
//! is refused. Retirement is a property of the view: no tag shows it any more.

use crate::oci::Digest;

/// Number of a view.
pub(super) type ViewNumber = u32;

/// The state of a tag in a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TagState {
    /// No directory shows it.
    Unseen,
    /// A directory shows the upstream state.
    Following {
        /// The directory.
        view: ViewNumber,
        /// The digest that it shows, once it was entered.
        shows: Option<Digest>,
    },
    /// A directory shows edits, and does not follow upstream.
    Edited {
        /// The directory.
        view: ViewNumber,
        /// Changes in flight in it.
        work: u32,
        /// The caller that has exclusive use of it.
        claim: Option<Claim>,
    },
    /// It was deleted here, and no directory has its name.
    Deleted {
        /// The directory that it was.
        view: ViewNumber,
        /// The caller that has exclusive use of it.
        claim: Option<Claim>,
    },
}

/// A caller with exclusive use of an edited tag. Its files can still be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A publish.
    Publish,
    /// A change of the whole tag: rename, removal, discard.
    Whole,
}

/// The edits that remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remaining {
    /// Something to publish, or a file open for writing.
    Edits,
    /// Nothing; the directory shows this digest.
    Nothing(Option<Digest>),
    /// They were removed with their upper.
    Removed,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The registry reported the tag's digest, requested because of what this view shows.
    Answered {
        /// The view.
        view: ViewNumber,
        /// The tag holds this digest.
        digest: Option<Digest>,
    },
    /// The upper of this view has given up the tag's name, without edits.
    Retired(ViewNumber),
    /// A change begins in this view.
    Began(ViewNumber),
    /// A change ended, successfully or not.
    Ended(ViewNumber, Remaining),
    /// A file that was open for writing was closed.
    Closed(ViewNumber, Remaining),
    /// A caller wants exclusive use of the tag.
    Claimed(Claim),
    /// The caller with exclusive use of this view's tag releases it.
    Released(ViewNumber, Remaining),
    /// The tag of this view was found empty and marked as deleted.
    Deleted(ViewNumber),
    /// The staged edits of this view are gone: published elsewhere, or discarded.
    Dropped(ViewNumber),
    /// This view shows what was found staged, or a new tag.
    Staged {
        /// The view.
        view: ViewNumber,
        /// Whether it was deleted.
        deleted: bool,
    },
    /// Another edited tag takes this name.
    Taken,
}

/// A consequence for views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The view stays even if the kernel forgets it.
    Keep(ViewNumber),
    /// The view stays as long as the kernel knows it.
    LetGo(ViewNumber),
    /// A lookup of the tag finds another view from now on.
    Retire(ViewNumber),
    /// Processes inside get an error from now on.
    Close(ViewNumber),
}

/// Why an event is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another directory shows the tag.
    Moved,
    /// A caller has exclusive use of the tag.
    Claimed(Claim),
    /// The tag has no edits.
    Unedited,
}

/// The next state and what follows for views.
pub(super) type Next = Result<(TagState, Vec<Action>), Refusal>;

impl TagState {
    /// The directory found by a lookup, or that was deleted.
    pub fn view(self) -> Option<ViewNumber> {
        match self {
            Self::Unseen => None,
            Self::Following { view, .. } | Self::Edited { view, .. } | Self::Deleted { view, .. } => Some(view),
        }
    }

    /// Whether it has edits, so that it does not follow upstream.
    pub fn is_staged(self) -> bool {
        matches!(self, Self::Edited { .. } | Self::Deleted { .. })
    }

    /// Judges an event.
    ///
    /// # Errors
    /// Why it is refused. The state then stays the same.
    pub fn next(self, event: Event) -> Next {
        match event {
            Event::Answered { view, digest } => Ok(self.answered(view, digest)),
            Event::Retired(view) if self.view() == Some(view) => Ok((Self::Unseen, self.displaced())),
            Event::Dropped(view) if self.view() == Some(view) && self.is_staged() => Ok(dropped(view)),
            Event::Began(view) => self.began(view),
            Event::Ended(of, remaining) => Ok(match self {
                Self::Edited { view, work, claim } if view == of => rest(view, work.saturating_sub(1), claim, remaining),
                _ => (self, Vec::new()),
            }),
            Event::Closed(of, remaining) => Ok(match self {
                Self::Edited { view, work, claim } if view == of => rest(view, work, claim, remaining),
                _ => (self, Vec::new()),
            }),
            Event::Claimed(by) => self.claimed(by),
            Event::Released(of, remaining) => Ok(match self {
                Self::Edited { view, work, .. } if view == of => rest(view, work, None, remaining),
                Self::Deleted { view, .. } if view == of && remaining == Remaining::Removed => dropped(view),
                Self::Deleted { view, .. } if view == of => (Self::Deleted { view, claim: None }, Vec::new()),
                _ => (self, Vec::new()),
            }),
            Event::Deleted(of) => Ok(match self {
                Self::Edited { view, claim, .. } if view == of => (Self::Deleted { view, claim }, Vec::new()),
                _ => (self, Vec::new()),
            }),
            Event::Staged { view, deleted } => {
                let next = if deleted { Self::Deleted { view, claim: None } } else { Self::Edited { view, work: 0, claim: None } };
                let mut actions = vec![Action::Keep(view)];
                actions.extend(self.displaced().into_iter().filter(|action| *action != Action::Retire(view)));
                Ok((next, actions))
            }
            Event::Taken => Ok((Self::Unseen, self.displaced())),
            Event::Retired(_) | Event::Dropped(_) => Ok((self, Vec::new())),
        }
    }

    fn answered(self, asked_of: ViewNumber, digest: Option<Digest>) -> (Self, Vec<Action>) {
        match self {
            Self::Following { view, shows: Some(shows) } if view == asked_of && Some(shows) != digest => {
                (Self::Unseen, vec![Action::Retire(view)])
            }
            _ => (self, Vec::new()),
        }
    }

    fn began(self, of: ViewNumber) -> Next {
        match self {
            Self::Following { view, .. } if view == of => Ok((Self::Edited { view, work: 1, claim: None }, vec![Action::Keep(view)])),
            Self::Edited { view, work, claim } if view == of => Ok((Self::Edited { view, work: work + 1, claim }, Vec::new())),
            _ => Err(Refusal::Moved),
        }
    }

    fn claimed(self, by: Claim) -> Next {
        match self {
            Self::Edited { claim: Some(other), .. } | Self::Deleted { claim: Some(other), .. } => Err(Refusal::Claimed(other)),
            Self::Edited { view, work, claim: None } => Ok((Self::Edited { view, work, claim: Some(by) }, Vec::new())),
            Self::Deleted { view, claim: None } => Ok((Self::Deleted { view, claim: Some(by) }, Vec::new())),
            Self::Unseen | Self::Following { .. } => Err(Refusal::Unedited),
        }
    }

    /// The consequences for a directory that is replaced by another one.
    fn displaced(self) -> Vec<Action> {
        match self {
            Self::Unseen => Vec::new(),
            Self::Following { view, .. } => vec![Action::Retire(view)],
            Self::Edited { view, .. } | Self::Deleted { view, .. } => vec![Action::Retire(view), Action::LetGo(view)],
        }
    }
}

fn dropped(view: ViewNumber) -> (TagState, Vec<Action>) {
    (TagState::Unseen, vec![Action::Close(view), Action::Retire(view), Action::LetGo(view)])
}

/// A tag follows upstream again once nothing is left to publish, nothing is in flight and no caller has exclusive use.
fn rest(view: ViewNumber, work: u32, claim: Option<Claim>, remaining: Remaining) -> (TagState, Vec<Action>) {
    match remaining {
        Remaining::Removed if claim.is_none() => dropped(view),
        Remaining::Nothing(shows) if work == 0 && claim.is_none() => (TagState::Following { view, shows }, vec![Action::LetGo(view)]),
        _ => (TagState::Edited { view, work, claim }, Vec::new()),
    }
}

#[cfg(test)]
mod tests;
