//! Parses RFC 3339 times in annotations, metadata and tables of contents.

use chrono::DateTime;

/// Seconds and nanoseconds of `2024-01-31T10:20:30[.fraction]Z`, or with an offset as `+02:00`; `None` for anything else.
pub fn parse(text: &str) -> Option<(i64, u32)> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    // A leap second has more nanoseconds than others.
    Some((time.timestamp(), time.timestamp_subsec_nanos().min(999_999_999)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed_with_fraction_and_zone() {
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(parse("2024-02-29T12:30:15.5+02:00"), Some((1_709_202_615, 500_000_000)));
        assert_eq!(parse("1969-12-31T23:59:59-00:00"), Some((-1, 0)));
        for odd in
            ["", "2024", "2024-13-01T00:00:00Z", "2024-01-01T25:00:00Z", "2024-01-01T00:00:00", "x-y-zT00:00:00Z", "2024-01-01T00:00:00+é"]
        {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
