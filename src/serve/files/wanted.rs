//! Whether a client prefers HTML or JSON for a directory, from `Accept`. Pure.

use axum::http::{HeaderMap, header};

/// The form of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A page, for a browser.
    Html,
    /// Data, for a program.
    Json,
    /// The client does not say.
    Anything,
}

impl Wanted {
    /// The form a request prefers.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let (html, json) = (quality(headers, "text/html"), quality(headers, "application/json"));
        match (json > 0.0 && json >= html, html > 0.0) {
            (true, _) => Self::Json,
            (false, true) => Self::Html,
            (false, false) => Self::Anything,
        }
    }
}

/// Whether an error should be a page.
pub(super) fn wants_html(headers: &HeaderMap) -> bool {
    Wanted::of(headers) == Wanted::Html
}

/// The quality of an explicitly listed media type; 0 if it is not wanted.
fn quality(headers: &HeaderMap, media_type: &str) -> f32 {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let qualities = values.flat_map(|value| value.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        parts.next().filter(|name| name.eq_ignore_ascii_case(media_type))?;
        let quality = parts.find_map(|parameter| parameter.strip_prefix("q="));
        Some(quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)))
    });
    qualities.fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_html_and_programs_json() {
        for (accept, expected) in [
            (None, Wanted::Anything),
            (Some("*/*"), Wanted::Anything),
            (Some("text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"), Wanted::Html),
            (Some("application/json"), Wanted::Json),
            (Some("Application/JSON; q=0.5, */*;q=0.1"), Wanted::Json),
            (Some("text/html, application/json;q=0.9"), Wanted::Html),
            (Some("application/json;q=0"), Wanted::Anything),
            (Some("application/json;q=x, text/html;charset=utf-8;q=1"), Wanted::Html),
        ] {
            let mut headers = HeaderMap::new();
            accept.map(|accept| headers.insert(header::ACCEPT, accept.parse().unwrap()));
            assert_eq!(Wanted::of(&headers), expected, "{accept:?}");
        }
    }
}
