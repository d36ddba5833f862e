//! Complete lists of tags and repositories, page by page, bounded.

use super::Pull;
use crate::error::{Error, ErrorKind};
use crate::oci::Repository;

/// Most names of one list; the rest is cut off, and the list marked incomplete.
const NAME_LIMIT: usize = 1_000_000;
/// Most memory of one list, in bytes: names that break the grammar may have any length.
const BYTE_LIMIT: usize = 64 << 20;
/// A page counts as at least this many names, so that a list of tiny pages ends too, after at most 10,000 requests.
const SMALL_PAGE: usize = 100;
/// Passes over a list that changes while being read.
const ATTEMPTS: u32 = 3;

/// All names of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// As the registry sent them; the caller checks their grammar.
    pub names: Vec<String>,
    /// False if the list was cut.
    pub complete: bool,
}

/// The tags of a repository, or the repositories if `None`; starts over if the list changed meanwhile. Calls `heard` after every page.
///
/// # Errors
/// Those of [`Pull::tags`] and [`Pull::repositories`].
pub async fn all_names(pull: &dyn Pull, repository: Option<&Repository>, heard: impl Fn()) -> Result<Names, Error> {
    for _ in 1..ATTEMPTS {
        match one_pass(pull, repository, &heard).await {
            Err(error) if error.kind == ErrorKind::Conflict => {}
            answer => return answer,
        }
    }
    one_pass(pull, repository, &heard).await
}

async fn one_pass(pull: &dyn Pull, repository: Option<&Repository>, heard: &impl Fn()) -> Result<Names, Error> {
    let (mut found, mut seen, mut bytes, mut after) = (Names { names: Vec::new(), complete: true }, 0, 0, None::<String>);
    loop {
        let page = match repository {
            Some(repository) => pull.tags(repository, after.as_deref()).await?,
            None => pull.repositories(after.as_deref()).await?,
        };
        heard();
        seen += page.names.len().max(SMALL_PAGE);
        bytes += page.names.iter().map(|name| name.len() + size_of::<String>()).sum::<usize>();
        found.names.extend(page.names);
        // A registry that loops or never ends must not hold us.
        match page.next {
            None => return Ok(found),
            next if next == after || seen >= NAME_LIMIT || bytes >= BYTE_LIMIT => {
                found.complete = false;
                return Ok(found);
            }
            next => after = next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Memory;

    #[tokio::test]
    async fn a_list_of_long_names_is_cut_before_it_fills_the_memory() {
        let memory = Memory::new();
        let digest = memory.add_manifest("app", "{}");
        for number in 0..20 {
            memory.tag("app", &format!("{number:02}{}", "x".repeat(8 << 20)), digest);
        }
        memory.set_page_size(1);
        let repository = Repository::parse("app").unwrap();
        let found = all_names(&memory, Some(&repository), || {}).await.unwrap();
        assert!(!found.complete && found.names.len() == 8, "{}", found.names.len());
    }
}
