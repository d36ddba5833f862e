//! Lists page by page: `n` and `last`, and the `Link` to the next page. Pure.

use super::problem::{Code, Problem};

/// Most names on a page, whatever the client requests.
const PAGE: usize = 10_000;

/// One page of a sorted list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<'a> {
    pub(super) names: &'a [String],
    /// The value of the header `Link`.
    pub(super) link: Option<String>,
}

/// The value of a parameter of the query, decoded.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    parameters(query, name).next()
}

/// All values of a parameter.
pub(super) fn parameters<'query>(query: Option<&'query str>, name: &'query str) -> impl Iterator<Item = String> + 'query {
    let pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(move |(key, _)| *key == name).map(|(_, value)| {
        let spaced = value.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    })
}

/// The requested page of a sorted list; `path` is the list's own.
///
/// # Errors
/// `n` is not a number.
pub(super) fn page<'a>(names: &'a [String], query: Option<&str>, path: &str) -> Result<Page<'a>, Problem> {
    let wanted = match parameter(query, "n") {
        None => PAGE,
        Some(text) => {
            let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<usize>().unwrap_or(PAGE));
            let refused = || Problem::bad(Code::PaginationNumberInvalid, "n must be a non-negative number");
            number.filter(|_| !text.is_empty()).ok_or_else(refused)?.min(PAGE)
        }
    };
    let from = parameter(query, "last").map_or(0, |last| names.partition_point(|name| *name <= last));
    let rest = names.get(from..).unwrap_or_default();
    let (names, more) = rest.split_at(wanted.min(rest.len()));
    let link = names.last().filter(|_| !more.is_empty()).map(|last| {
        let last = percent_encoding::utf8_percent_encode(last, percent_encoding::NON_ALPHANUMERIC);
        format!("<{path}?n={wanted}&last={last}>; rel=\"next\"")
    });
    Ok(Page { names, link })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["a", "b/c", "d"].map(str::to_owned).to_vec()
    }

    #[test]
    fn pages_follow_each_other_without_gaps() {
        let names = names();
        let first = page(&names, Some("n=2"), "/v2/_catalog").unwrap();
        assert_eq!(first, Page { names: &names[..2], link: Some("</v2/_catalog?n=2&last=b%2Fc>; rel=\"next\"".to_owned()) });
        let second = page(&names, Some("n=2&last=b%2Fc"), "/v2/_catalog").unwrap();
        assert_eq!(second, Page { names: &names[2..], link: None });
        assert_eq!(page(&names, None, "/x").unwrap(), Page { names: &names, link: None });
    }

    #[test]
    fn the_last_name_need_not_exist_and_zero_is_an_empty_page() {
        let names = names();
        assert_eq!(page(&names, Some("last=b"), "/x").unwrap().names, &names[1..]);
        assert_eq!(page(&names, Some("last=zzz&n=1"), "/x").unwrap(), Page { names: &[], link: None });
        assert_eq!(page(&names, Some("n=0"), "/x").unwrap(), Page { names: &[], link: None });
        assert_eq!(page(&names, Some("n=99999999999999999999999"), "/x").unwrap().names.len(), 3);
        for bad in ["n=-1", "n=abc", "n=", "n=+1"] {
            assert_eq!(page(&names, Some(bad), "/x").unwrap_err().code, Code::PaginationNumberInvalid, "{bad}");
        }
    }
}
