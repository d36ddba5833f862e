//! The changes of a publish: one pass over the frozen state and the artifact upstream.
//!
//! Counts, finds what is left out and what no archive can hold, and computes the identity by which a copy of a known tree is
//! recognised. Decides nothing.

use std::collections::HashSet;
use std::sync::Arc;

use super::compare::{Comparer, Difference, Join, Pair};
use super::ignore::{IGNORE_FILE, IGNORE_LIMIT, IgnoreRules};
use super::plan::PathSet;
use super::plan::foreign::directory_key;
use super::plan::groups::Totals;
use super::plan::identity::archived;
use super::snapshot::{Entries, FirstNames, Snapshot, is_within, order, parent, show};
use super::{Error, Sizes};
use crate::artifact::{Identity, IdentityDefaults, IdentityEntry, Kind, Secrets, TreeIdentity};
use crate::view::FrozenEntry;

/// Notes at most.
const NOTES: usize = 100;

/// Which paths are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remember {
    /// None.
    Nothing,
    /// Entries that are new or changed, and entries that are gone.
    Changes,
    /// Unchanged entries.
    Same,
}

/// The result.
pub(super) struct Survey {
    /// Names added, changed, removed.
    pub changes: (u64, u64, u64),
    /// Entries other than directories, upstream and here.
    pub files: (u64, u64),
    /// Names below the tag's own directory.
    pub names: u64,
    /// Sums that a plan depends on.
    pub totals: Totals,
    /// By which the tree is recognised.
    pub identity: Identity,
    /// Paths that are left out with everything below.
    pub left_out: Arc<HashSet<Vec<u8>>>,
    /// Files among them.
    pub ignored: u64,
    /// New or changed, or as it was; see [`Remember`].
    pub paths: PathSet,
    /// Gone, where what holds it is still there.
    pub removed: Vec<Vec<u8>>,
    /// Notes for people.
    pub notes: Vec<String>,
    /// A symbolic link that leads out of the tree.
    pub escaping: Option<Vec<u8>>,
    /// New or changed files with the content of an encrypted one.
    pub secret: Vec<Secret>,
}

/// A file whose content an encrypted artifact holds.
pub(super) struct Secret {
    pub path: Vec<u8>,
    pub sha256: [u8; 32],
    /// The artifact, for people.
    pub holder: String,
}

/// By what a snapshot is surveyed.
pub(super) struct Terms<'a> {
    /// Droppings are published too.
    pub no_ignore: bool,
    pub defaults: &'a IdentityDefaults,
    pub remember: Remember,
    pub sizes: Sizes,
    pub secrets: &'a Secrets,
}

struct Walk {
    survey: Survey,
    identity: TreeIdentity,
    left_out: HashSet<Vec<u8>>,
    ignore: IgnoreRules,
    remember: Remember,
    names: FirstNames,
    /// The directory that is being left out.
    leaving: Option<Vec<u8>>,
    /// The last path of which nothing below can be there any more.
    gone: Option<Vec<u8>>,
}

/// Surveys a snapshot against what the tag holds.
pub(super) async fn survey(new: &Arc<dyn Snapshot>, old: Option<Arc<dyn Snapshot>>, terms: &Terms<'_>) -> Result<Survey, Error> {
    let ignore = match (terms.no_ignore, &old) {
        (true, _) => IgnoreRules::none(),
        (false, None) => ignore(new).await?,
        (false, Some(_)) => ignore(new).await?.and_of_runtimes(),
    };
    let mut walk = Walk::new(ignore, TreeIdentity::new(terms.defaults), terms.remember, terms.sizes);
    let mut join = Join::new(new, old);
    let mut comparer = Comparer::new(Arc::clone(new));
    while let Some(pair) = join.next().await? {
        let difference = comparer.differ(&pair).await?;
        let secret = if difference == Difference::Real { secret(&**new, &pair, terms.secrets).await? } else { None };
        walk.pair(&pair, difference, secret)?;
    }
    let Walk { mut survey, identity, left_out, .. } = walk;
    survey.identity = identity.finish();
    survey.left_out = Arc::new(left_out);
    Ok(survey)
}

/// Whether a new or changed file has the content of an encrypted one.
async fn secret(reading: &dyn Snapshot, pair: &Pair, secrets: &Secrets) -> Result<Option<Secret>, Error> {
    let Some(new) = pair.new.as_ref().filter(|new| new.kind == Kind::File && new.size > 0 && !secrets.is_empty()) else { return Ok(None) };
    let sha256 = match pair.sha256 {
        Some(sha256) => sha256,
        None => reading.sha256(new).await?,
    };
    let holder = secrets.holder(new.size, &sha256);
    Ok(holder.map(|holder| Secret { path: new.path.clone(), sha256, holder }))
}

/// The ignore file of the tag itself.
async fn ignore(snapshot: &Arc<dyn Snapshot>) -> Result<IgnoreRules, Error> {
    let mut entries = Entries::of(Arc::clone(snapshot));
    while let Some(entry) = entries.next().await? {
        if order(&entry.path, IGNORE_FILE).is_lt() {
            continue;
        }
        if entry.path != IGNORE_FILE || entry.kind != Kind::File {
            break;
        }
        let text = snapshot.open(&entry).await?.read(0, IGNORE_LIMIT).await?;
        return Ok(IgnoreRules::new(&text));
    }
    Ok(IgnoreRules::new(b""))
}

impl Walk {
    fn new(ignore: IgnoreRules, identity: TreeIdentity, remember: Remember, sizes: Sizes) -> Self {
        let survey = Survey {
            changes: (0, 0, 0),
            files: (0, 0),
            names: 0,
            totals: Totals::new(sizes),
            identity: Identity { names: 0, bytes: 0, digest: None, absolute: false },
            left_out: Arc::default(),
            ignored: 0,
            paths: PathSet::default(),
            removed: Vec::new(),
            notes: Vec::new(),
            escaping: None,
            secret: Vec::new(),
        };
        let (names, left_out) = (FirstNames::default(), HashSet::new());
        Self { survey, identity, left_out, ignore, remember, names, leaving: None, gone: None }
    }

    fn pair(&mut self, pair: &Pair, difference: Difference, secret: Option<Secret>) -> Result<(), Error> {
        if let Some(old) = &pair.old
            && old.kind != Kind::Directory
        {
            self.survey.files.0 += 1;
        }
        let new = match &pair.new {
            Some(new) if !self.leaves_out(new, pair.old.is_some()) => Some(new),
            _ => None,
        };
        match (new, &pair.old) {
            (None, None) => {}
            (None, Some(old)) => self.removed(old),
            (Some(new), old) => {
                if old.as_ref().is_some_and(|old| old.kind == Kind::Directory) && new.kind != Kind::Directory {
                    self.gone = Some(new.path.clone());
                }
                self.survey.secret.extend(secret);
                self.kept(new, pair.sha256);
                if new.kind == Kind::Directory && old.as_ref().is_some_and(|old| old.kind == Kind::Directory) {
                    self.remember(Remember::Same, &directory_key(&new.path));
                }
                match (difference, old) {
                    (Difference::Same, _) => self.remember(Remember::Same, &new.path),
                    (Difference::DirectoryTime, _) => self.remember(Remember::Changes, &new.path),
                    // The tag's own directory does not count as an addition.
                    (Difference::Real, None) if new.path.is_empty() => self.remember(Remember::Changes, &new.path),
                    (Difference::Real, old) => {
                        let counter = if old.is_some() { &mut self.survey.changes.1 } else { &mut self.survey.changes.0 };
                        *counter += 1;
                        self.remember(Remember::Changes, &new.path);
                    }
                }
            }
        }
        Ok(())
    }

    fn remember(&mut self, as_what: Remember, path: &[u8]) {
        if self.remember == as_what {
            self.survey.paths.insert(path);
        }
    }

    /// Whether a name is not published.
    fn leaves_out(&mut self, new: &FrozenEntry, is_upstream: bool) -> bool {
        if self.leaving.as_ref().is_some_and(|above| is_within(&new.path, above)) {
            self.survey.ignored += u64::from(new.kind != Kind::Directory);
            return true;
        }
        if new.kind == Kind::Socket {
            self.leave_out(new);
            self.note(format!("sockets cannot be published: `{}` is left out", show(&new.path)));
            return true;
        }
        if !is_upstream && self.ignore.matches(&new.path, new.kind, new.size) {
            self.leave_out(new);
            return true;
        }
        // The tag's own directory is there in any case.
        if let Err(error) = archived(new, None).check()
            && !new.path.is_empty()
        {
            self.leave_out(new);
            let instead = if is_upstream { ", and what the tag held under this name is removed" } else { "" };
            if self.survey.notes.len() < NOTES {
                self.survey.notes.push(format!("{error}: it is left out{instead}"));
            }
            return true;
        }
        false
    }

    fn leave_out(&mut self, new: &FrozenEntry) {
        self.left_out.insert(new.path.clone());
        self.leaving = Some(new.path.clone());
        self.survey.ignored += u64::from(new.kind != Kind::Directory);
    }

    /// One note of a sort is enough.
    fn note(&mut self, text: String) {
        let sort = text.split('`').next().unwrap_or_default();
        if !self.survey.notes.iter().any(|known| known.starts_with(sort)) {
            self.survey.notes.push(text);
        }
    }

    fn removed(&mut self, old: &FrozenEntry) {
        self.survey.changes.2 += 1;
        if self.gone.as_ref().is_some_and(|above| is_within(&old.path, above)) {
            return;
        }
        self.gone = Some(old.path.clone());
        if self.remember == Remember::Changes {
            self.survey.removed.push(old.path.clone());
        }
    }

    fn kept(&mut self, new: &FrozenEntry, sha256: Option<[u8; 32]>) {
        self.survey.names += u64::from(!new.path.is_empty());
        self.survey.files.1 += u64::from(new.kind != Kind::Directory);
        let is_first = self.names.of(new).is_none();
        if is_first {
            self.survey.totals.add(new);
            if new.xattrs.iter().any(|(_, value)| value.is_empty()) {
                self.note(format!("an extended attribute without a value cannot be archived: that of `{}` is left out", show(&new.path)));
            } else if archived(new, None).xattrs.is_empty() && !new.xattrs.is_empty() {
                self.note(format!(
                    "extended attributes are too many or too long for an archive: those of `{}` are left out",
                    show(&new.path)
                ));
            }
        }
        if new.kind == Kind::Symlink && self.survey.escaping.is_none() && leaves_tree(new) {
            self.survey.escaping = Some(new.path.clone());
        }
        let entry = IdentityEntry {
            path: &new.path,
            node: new.node,
            kind: new.kind,
            mode: new.mode,
            owner: new.owner,
            mtime: new.mtime,
            size: new.size,
            links: new.links,
            device: new.device,
            target: &new.target,
            sha256,
        };
        self.identity.add(&entry, &new.xattrs);
    }
}

/// Whether the target of a link lies outside of the tree, as text.
fn leaves_tree(link: &FrozenEntry) -> bool {
    if link.target.starts_with(b"/") {
        return true;
    }
    let above = parent(&link.path).unwrap_or_default();
    let mut depth = above.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count();
    for name in link.target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}
