//! `Range` and `If-Range`: which bytes of an object of known size to send. Pure.

use std::ops::Range;

use axum::http::{HeaderMap, header};

/// The bytes to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it, with 200.
    Whole,
    /// A part, with 206.
    Part(Range<u64>),
    /// 416.
    Unsatisfiable,
}

/// Evaluates a request's headers. Multiple ranges and units other than bytes get the whole, as the standard permits.
pub(super) fn wanted(headers: &HeaderMap, size: u64, etag: &str) -> Wanted {
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    let Some(ranges) = text(header::RANGE).and_then(|text| text.trim().strip_prefix("bytes=")) else { return Wanted::Whole };
    // A date, or a weak or other tag: the client may have part of other content.
    if headers.contains_key(header::IF_RANGE) && text(header::IF_RANGE) != Some(etag) {
        return Wanted::Whole;
    }
    if ranges.contains(',') {
        return Wanted::Whole;
    }
    part(ranges.trim(), size).map_or(Wanted::Unsatisfiable, Wanted::Part)
}

fn part(range: &str, size: u64) -> Option<Range<u64>> {
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().unwrap_or(u64::MAX));
    match range.split_once('-')? {
        ("", "") => None,
        ("", last) => {
            let start = size.saturating_sub(number(last)?);
            (start < size).then_some(start..size)
        }
        (first, "") => Some(number(first)?..size).filter(|range| range.start < size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last && first < size).then(|| first..last.saturating_add(1).min(size))
        }
    }
}

/// `start-end` of `Content-Range` in an upload, inclusive as in the specification.
pub(super) fn uploaded(text: &str) -> Option<Range<u64>> {
    let text = text.trim();
    let text = text.strip_prefix("bytes ").map_or(text, |rest| rest.split('/').next().unwrap_or_default());
    let (first, last) = text.split_once('-')?;
    let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    (first <= last && last < u64::MAX).then(|| first..last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: &str, if_range: Option<&str>) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        if let Some(tag) = if_range {
            headers.insert(header::IF_RANGE, tag.parse().unwrap());
        }
        wanted(&headers, 2000, "\"x\"")
    }

    #[test]
    fn ranges_are_clipped_and_empty_ones_are_refused() {
        assert_eq!(wanted(&HeaderMap::new(), 2000, "\"x\""), Wanted::Whole);
        for (range, expected) in [
            ("bytes=500-1499", Wanted::Part(500..1500)),
            ("bytes=500-", Wanted::Part(500..2000)),
            ("bytes=-500", Wanted::Part(1500..2000)),
            ("bytes=-5000", Wanted::Part(0..2000)),
            ("bytes=1000-5000", Wanted::Part(1000..2000)),
            ("bytes=0-99999999999999999999999", Wanted::Part(0..2000)),
            ("bytes=500-0", Wanted::Unsatisfiable),
            ("bytes=2000-5000", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=-", Wanted::Unsatisfiable),
            ("bytes=x", Wanted::Unsatisfiable),
            ("bytes=+1-2", Wanted::Unsatisfiable),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ] {
            assert_eq!(asked(range, None), expected, "{range}");
        }
    }

    #[test]
    fn an_if_range_mismatch_gets_the_whole_content() {
        assert_eq!(asked("bytes=0-9", Some("\"x\"")), Wanted::Part(0..10));
        for tag in ["\"y\"", "W/\"x\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(asked("bytes=0-9", Some(tag)), Wanted::Whole, "{tag}");
        }
    }

    #[test]
    fn the_range_of_a_chunk_needs_both_ends() {
        assert_eq!(uploaded("0-999"), Some(0..1000));
        assert_eq!(uploaded("bytes 5-9/10"), Some(5..10));
        for text in ["", "5", "9-5", "a-b", "0-18446744073709551615", "-5"] {
            assert_eq!(uploaded(text), None, "{text}");
        }
    }
}
