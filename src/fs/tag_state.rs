//! The state of one tag in a mount, and how events change it. Plain data: nothing here waits, asks or tells.
//!
//! Slow work happens elsewhere and comes back as an event, which is judged by the state that the tag is in by then: an answer
//! of the registry changes nothing about a tag that was edited meanwhile, and an edit that begins in the directory of a tag that moved
//! is refused. That a view is retired is a fact about the view: no tag shows it any more.

use crate::oci::Digest;

/// Number of a view.
pub(super) type ViewNumber = u32;

/// The state of a tag in a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TagState {
    /// No directory shows it.
    Unseen,
    /// A directory shows what is upstream.
    Following {
        /// The directory.
        view: ViewNumber,
        /// The digest that it shows, once it was entered.
        shows: Option<Digest>,
    },
    /// A directory shows edits, and follows nothing.
    Edited {
        /// The directory.
        view: ViewNumber,
        /// Changes that are under way in it.
        work: u32,
        /// The caller that has exclusive use of it.
        claim: Option<Claim>,
    },
    /// It was deleted here, and no directory is found under its name.
    Deleted {
        /// The directory that it was.
        view: ViewNumber,
        /// The caller that has exclusive use of it.
        claim: Option<Claim>,
    },
}

/// A caller with exclusive use of an edited tag. Its files can be changed meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A publish.
    Publish,
    /// A change of the tag as a whole: its name, its removal, taking edits back.
    Whole,
}

/// The edits that remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remaining {
    /// Something is to be published, or a file is open for writing.
    Edits,
    /// Nothing; the directory shows this.
    Nothing(Option<Digest>),
    /// They were removed with the place where they were staged.
    Removed,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The registry said what the tag holds; it was asked because of what this view shows.
    Answered {
        /// The view.
        view: ViewNumber,
        /// The tag holds this digest.
        digest: Option<Digest>,
    },
    /// The place where edits of this view were staged has given up the tag's name, without edits.
    Retired(ViewNumber),
    /// A change begins in this view.
    Began(ViewNumber),
    /// A change ended, whatever became of it.
    Ended(ViewNumber, Remaining),
    /// A file that was open for writing was closed.
    Closed(ViewNumber, Remaining),
    /// A caller wants exclusive use of the tag.
    Claimed(Claim),
    /// Who had the tag of this view to himself lets it go.
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
    /// A tag that is edited takes this name.
    Taken,
}

/// A consequence for views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The view stays, whatever the kernel forgets.
    Keep(ViewNumber),
    /// The view stays as long as the kernel knows it.
    LetGo(ViewNumber),
    /// A lookup of the tag finds another view from now on.
    Retire(ViewNumber),
    /// Processes inside get an error from now on.
    Close(ViewNumber),
}

/// Why something cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The tag is shown by another directory.
    Moved,
    /// A caller has exclusive use of the tag.
    Claimed(Claim),
    /// The tag has no edits.
    Unedited,
}

/// The next state and what follows for views.
pub(super) type Next = Result<(TagState, Vec<Action>), Refusal>;

impl TagState {
    /// The directory that a lookup finds, or that was deleted.
    pub fn view(self) -> Option<ViewNumber> {
        match self {
            Self::Unseen => None,
            Self::Following { view, .. } | Self::Edited { view, .. } | Self::Deleted { view, .. } => Some(view),
        }
    }

    /// Whether it has edits, so that it follows nothing.
    pub fn is_staged(self) -> bool {
        matches!(self, Self::Edited { .. } | Self::Deleted { .. })
    }

    /// Judges an event.
    ///
    /// # Errors
    /// Why it cannot be. The state stays then.
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

    /// The consequences for a directory that another one replaces.
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

/// A tag follows what is upstream again once nothing is left, nothing is under way and no caller has exclusive use.
fn rest(view: ViewNumber, work: u32, claim: Option<Claim>, remaining: Remaining) -> (TagState, Vec<Action>) {
    match remaining {
        Remaining::Removed if claim.is_none() => dropped(view),
        Remaining::Nothing(shows) if work == 0 && claim.is_none() => (TagState::Following { view, shows }, vec![Action::LetGo(view)]),
        _ => (TagState::Edited { view, work, claim }, Vec::new()),
    }
}

#[cfg(test)]
mod tests;
