//! Access control: rights by user and prefix, anonymous access, read-only mode. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderValue, Method, StatusCode, header};
use parking_lot::RwLock;
use serde::Deserialize;

use super::problem::{Code, Problem};
use super::route::Route;
use crate::oci::Repository;

/// The user name of rules that apply to everyone.
const EVERYBODY: &str = "*";

/// A right on a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Right {
    /// Read it.
    Pull,
    /// Upload to it and move its tags.
    Push,
    /// Delete in it.
    Delete,
}

/// Rights by user and prefix; the user `*` is everybody, the prefix `*` every repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(BTreeMap<String, BTreeMap<String, Vec<Right>>>);

impl Rules {
    /// Parses rules: YAML that maps users to prefixes to `pull`, `push` and `delete`.
    ///
    /// # Errors
    /// A message for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rules: BTreeMap<String, BTreeMap<String, Vec<Right>>> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        for prefix in rules.values().flat_map(BTreeMap::keys) {
            if prefix != EVERYBODY && Repository::parse(prefix).is_err() {
                return Err(format!("`{}` is neither `*` nor a repository prefix", prefix.escape_default()));
            }
        }
        Ok(Self(rules))
    }

    fn allow(&self, user: Option<&str>, repository: &Repository, right: Right) -> bool {
        let covers = |prefix: &str| prefix == EVERYBODY || repository.is_within(prefix);
        // No user can be called `*`.
        let users = user.into_iter().filter(|user| *user != EVERYBODY).chain([EVERYBODY]);
        let mut granted = users.filter_map(|user| self.0.get(user)).flatten();
        granted.any(|(prefix, rights)| covers(prefix) && rights.contains(&right))
    }
}

/// Rules that can be replaced while in use. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LiveRules(Arc<RwLock<Option<Rules>>>);

impl LiveRules {
    /// Replaces the rules; without any, everybody may do everything that is not restricted otherwise.
    pub fn set(&self, rules: Option<Rules>) {
        *self.0.write() = rules;
    }

    fn allow(&self, user: Option<&str>, repository: &Repository, right: Right) -> bool {
        self.0.read().as_ref().is_none_or(|rules| rules.allow(user, repository, right))
    }
}

impl From<Option<Rules>> for LiveRules {
    fn from(rules: Option<Rules>) -> Self {
        Self(Arc::new(RwLock::new(rules)))
    }
}

/// The access policy.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Rules, if access differs by user.
    pub rules: LiveRules,
    /// Users authenticate with passwords.
    pub asks: bool,
    /// Anonymous clients may pull although users have passwords.
    pub anonymous_pull: bool,
    /// Refuse all writes.
    pub read_only: bool,
}

impl Access {
    /// Whether a user (`None`: anonymous) may do something with a repository.
    pub(super) fn allows(&self, user: Option<&str>, repository: &Repository, right: Right) -> bool {
        let is_known = user.is_some() || !self.asks || (self.anonymous_pull && right == Right::Pull);
        let is_written = right != Right::Pull;
        is_known && !(self.read_only && is_written) && self.rules.allow(user, repository, right)
    }

    /// Checks a request.
    ///
    /// # Errors
    /// 401 for an anonymous client if some user may, 403 for a user, 405 if read-only.
    pub(super) fn check(&self, user: Option<&str>, route: &Route, method: &Method) -> Result<(), Problem> {
        let Some(repository) = route.repository() else {
            return if user.is_some() || !self.asks || self.anonymous_pull { Ok(()) } else { Err(unknown_user()) };
        };
        let right = right(route, method);
        if self.read_only && right != Right::Pull {
            return Err(Problem::unsupported("this registry is read-only"));
        }
        match self.allows(user, repository, right) {
            true => Ok(()),
            false if user.is_none() && self.asks => Err(unknown_user()),
            false => Err(Problem::new(StatusCode::FORBIDDEN, Code::Denied, format!("access to {repository} denied"))),
        }
    }
}

/// The right that a request needs.
fn right(route: &Route, method: &Method) -> Right {
    match (route, method) {
        // Cancelling an upload deletes nothing visible to others, and its state concerns only the pusher.
        (Route::Uploads(_) | Route::Upload(..), _) => Right::Push,
        (_, &Method::GET | &Method::HEAD) => Right::Pull,
        (_, &Method::DELETE) => Right::Delete,
        _ => Right::Push,
    }
}

/// 401, with a login challenge.
pub(super) fn unknown_user() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, "authentication required")
        .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"ocifs\", charset=\"UTF-8\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(text: &str) -> Repository {
        Repository::parse(text).unwrap()
    }

    fn ruled() -> Access {
        let text = "alice: {team: [pull, push, delete]}\nbob: {team/open: [pull], \"*\": [push]}\n\"*\": {public: [pull]}\n";
        Access { rules: Some(Rules::parse(text).unwrap()).into(), asks: true, ..Access::default() }
    }

    #[test]
    fn rights_apply_only_below_their_prefix() {
        let access = ruled();
        let allowed = |user, name, right| access.allows(Some(user), &repository(name), right);
        assert!(allowed("alice", "team", Right::Delete) && allowed("alice", "team/app", Right::Push));
        assert!(!allowed("alice", "teams", Right::Pull) && !allowed("alice", "other", Right::Pull));
        assert!(allowed("bob", "team/open/x", Right::Pull) && !allowed("bob", "team/app", Right::Pull));
        assert!(allowed("bob", "anything", Right::Push) && !allowed("bob", "team/open", Right::Delete));
        assert!(allowed("carol", "public/x", Right::Pull) && !allowed("carol", "public/x", Right::Push));
        assert!(!allowed("*", "other", Right::Pull));
    }

    #[test]
    fn anonymous_clients_pull_where_allowed_and_never_write() {
        let (app, public) = (repository("app"), repository("public"));
        let open = Access { asks: true, anonymous_pull: true, ..Access::default() };
        assert!(open.allows(None, &app, Right::Pull) && !open.allows(None, &app, Right::Push) && !open.allows(None, &app, Right::Delete));
        assert!(open.allows(Some("alice"), &app, Right::Push));
        assert!(!ruled().allows(None, &public, Right::Pull));
        let open = Access { anonymous_pull: true, ..ruled() };
        assert!(open.allows(None, &public, Right::Pull) && !open.allows(None, &app, Right::Pull));
        assert!(Access::default().allows(None, &app, Right::Delete));
    }

    #[test]
    fn anonymous_clients_are_challenged_and_users_refused() {
        let (access, route) = (ruled(), Route::Tags(repository("other")));
        let status = |access: &Access, user, method| access.check(user, &route, &method).err().map(|problem| problem.status.as_u16());
        assert_eq!(status(&access, None, Method::GET), Some(401));
        assert_eq!(status(&access, Some("alice"), Method::GET), Some(403));
        assert_eq!(status(&Access { read_only: true, ..Access::default() }, None, Method::PUT), Some(405));
        assert_eq!(status(&Access { read_only: true, ..Access::default() }, None, Method::GET), None);
        assert_eq!(access.check(None, &Route::Base, &Method::GET).unwrap_err().status.as_u16(), 401);
    }

    #[test]
    fn malformed_rules_are_refused() {
        for bad in ["alice: [pull]", "alice: {team: [admin]}", "alice: {Team: [pull]}", "alice: {team/: [pull]}", "- x"] {
            Rules::parse(bad).unwrap_err();
        }
    }
}
