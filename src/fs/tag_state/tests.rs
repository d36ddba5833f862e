//! Every order of events that a tag can see, with the truth about its edits beside it.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

const CLEAN: TagState = TagState::Following { view: 1, shows: None };

fn edited(work: u32, claim: Option<Claim>) -> TagState {
    TagState::Edited { view: 1, work, claim }
}

#[test]
fn an_answer_that_arrives_after_an_edit_began_changes_nothing() {
    let following = TagState::Following { view: 1, shows: Some(digest("old")) };
    let answer = Event::Answered { view: 1, digest: Some(digest("new")) };
    assert_eq!(following.next(answer), Ok((TagState::Unseen, vec![Action::Retire(1)])));
    for state in [edited(1, None), edited(0, Some(Claim::Publish)), TagState::Deleted { view: 1, claim: None }] {
        assert_eq!(state.next(answer), Ok((state, Vec::new())));
    }
}

#[test]
fn answers_about_older_directories_or_the_shown_digest_change_nothing() {
    let following = TagState::Following { view: 2, shows: Some(digest("new")) };
    for answer in [Event::Answered { view: 1, digest: Some(digest("old")) }, Event::Answered { view: 2, digest: Some(digest("new")) }] {
        assert_eq!(following.next(answer), Ok((following, Vec::new())));
    }
    assert_eq!(CLEAN.next(Event::Answered { view: 1, digest: None }), Ok((CLEAN, Vec::new())), "nothing is shown yet");
}

#[test]
fn an_edit_in_a_replaced_directory_is_refused() {
    for state in [TagState::Unseen, CLEAN, edited(0, None), TagState::Deleted { view: 2, claim: None }] {
        assert_eq!(state.next(Event::Began(2)), Err(Refusal::Moved), "{state:?}");
    }
}

#[test]
fn a_tag_follows_upstream_again_only_without_edits_or_operations_in_progress() {
    let nothing = Remaining::Nothing(Some(digest("x")));
    let following = TagState::Following { view: 1, shows: Some(digest("x")) };
    assert_eq!(edited(1, None).next(Event::Ended(1, nothing)), Ok((following, vec![Action::LetGo(1)])));
    assert_eq!(edited(1, None).next(Event::Ended(1, Remaining::Edits)), Ok((edited(0, None), Vec::new())));
    assert_eq!(edited(2, None).next(Event::Ended(1, nothing)), Ok((edited(1, None), Vec::new())));
    let publishing = Some(Claim::Publish);
    assert_eq!(edited(1, publishing).next(Event::Ended(1, nothing)), Ok((edited(0, publishing), Vec::new())));
    assert_eq!(edited(1, publishing).next(Event::Released(1, nothing)), Ok((edited(1, None), Vec::new())));
    assert_eq!(edited(0, publishing).next(Event::Released(1, nothing)), Ok((following, vec![Action::LetGo(1)])));
}

#[test]
fn exclusive_operations_on_a_tag_exclude_each_other() {
    let claimed = edited(0, Some(Claim::Publish));
    assert_eq!(edited(0, None).next(Event::Claimed(Claim::Publish)), Ok((claimed, Vec::new())));
    assert_eq!(claimed.next(Event::Claimed(Claim::Whole)), Err(Refusal::Claimed(Claim::Publish)));
    assert_eq!(CLEAN.next(Event::Claimed(Claim::Whole)), Err(Refusal::Unedited));
}

/// A tag's state, with the truth about its edits as the disk keeps it.
struct Walk {
    state: TagState,
    /// Changes in progress, by view.
    under_way: Vec<ViewNumber>,
    /// Acknowledged edits that are neither published nor discarded, and their view.
    edits: Option<ViewNumber>,
    claimed: Option<ViewNumber>,
    kept: Vec<ViewNumber>,
    closed: Vec<ViewNumber>,
    views: ViewNumber,
}

impl Walk {
    fn left(&self, view: ViewNumber) -> Remaining {
        if self.edits == Some(view) { Remaining::Edits } else { Remaining::Nothing(Some(digest("shown"))) }
    }

    fn apply(&mut self, event: Event) -> bool {
        let Ok((state, actions)) = self.state.next(event) else { return false };
        self.state = state;
        for action in actions {
            match action {
                Action::Keep(view) => self.kept.push(view),
                Action::LetGo(view) => {
                    let at = self.kept.iter().position(|kept| *kept == view).expect("what is let go was kept");
                    self.kept.swap_remove(at);
                }
                Action::Close(view) => self.closed.push(view),
                Action::Retire(_) => {}
            }
        }
        true
    }

    fn step(&mut self, random: &mut StdRng) {
        let some_view = random.random_range(1..=self.views);
        match random.random_range(0..12) {
            // A lookup numbers a view for a tag not seen yet; entering binds it.
            0 if self.state == TagState::Unseen => {
                self.views += 1;
                self.state = TagState::Following { view: self.views, shows: None };
            }
            0 | 1 => {
                if let TagState::Following { view, .. } = self.state {
                    self.state = TagState::Following { view, shows: Some(digest("shown")) };
                }
            }
            2 | 3 => {
                let digest = (random.random_range(0..3) > 0).then(|| digest("moved"));
                self.apply(Event::Answered { view: some_view, digest });
            }
            4 | 5 => {
                if self.apply(Event::Began(some_view)) {
                    assert!(!self.closed.contains(&some_view));
                    self.under_way.push(some_view);
                }
            }
            6 => {
                if let Some(view) = self.under_way.pop() {
                    // The disk refuses edits in a view that has lost the tag's name.
                    if self.state.view() == Some(view) && random.random_range(0..2) > 0 {
                        self.edits = Some(view);
                    }
                    self.apply(Event::Ended(view, self.left(view)));
                }
            }
            // The disk releases a name only without edits.
            7 if self.edits.is_none() => {
                self.apply(Event::Retired(some_view));
            }
            8 => {
                let by = if random.random_range(0..2) > 0 { Claim::Publish } else { Claim::Whole };
                if self.claimed.is_none() && self.apply(Event::Claimed(by)) {
                    self.claimed = self.state.view();
                }
            }
            9 | 10 => self.release(random),
            _ => {
                self.apply(Event::Closed(some_view, self.left(some_view)));
            }
        }
    }

    /// A publish or a command ends: with success, with a failure, or with the upper gone.
    fn release(&mut self, random: &mut StdRng) {
        let Some(view) = self.claimed.take() else { return };
        match random.random_range(0..4) {
            0 => {
                self.edits = None;
                self.apply(Event::Dropped(view));
            }
            1 => self.edits = None,
            2 if self.edits.is_none() && self.under_way.is_empty() => {
                self.apply(Event::Deleted(view));
                self.edits = matches!(self.state, TagState::Deleted { .. }).then_some(view);
            }
            _ => {}
        }
        self.apply(Event::Released(view, self.left(view)));
    }

    fn check(&self) {
        let staged = self.state.view().filter(|_| self.state.is_staged());
        assert_eq!(self.kept, staged.into_iter().collect::<Vec<_>>(), "kept are the views with edits: {:?}", self.state);
        if self.edits.is_some() {
            assert_eq!(staged, self.edits, "edits belong to the tag: {:?}", self.state);
        }
        assert!(self.state.view().is_none_or(|view| !self.closed.contains(&view)), "a lookup leads into a closed view");
    }
}

#[test]
fn no_sequence_of_events_leaves_edits_outside_of_their_tag() {
    for seed in 0..10_000 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut walk = Walk {
            state: TagState::Unseen,
            under_way: Vec::new(),
            edits: None,
            claimed: None,
            kept: Vec::new(),
            closed: Vec::new(),
            views: 1,
        };
        for _ in 0..random.random_range(1..60) {
            walk.step(&mut random);
            walk.check();
        }
    }
}
