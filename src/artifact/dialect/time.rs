//! Times as text: what annotations and metadata say, in the form of RFC 3339.

/// Seconds and nanoseconds of `2024-01-31T10:20:30[.fraction]Z`, or with an offset as `+02:00`; `None` for anything else.
pub(super) fn parse(text: &str) -> Option<(i64, u32)> {
    let (date, rest) = text.split_once(['T', 't'])?;
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let fits =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60 && (0..=9999).contains(&year);
    if !fits || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let [hours, minutes] = numbers(offset, ':')?;
            (hours * 60 + minutes) * if sign == "-" { -60 } else { 60 }
        }
    };
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some((days_since_epoch(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset, nanoseconds))
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let parts: Vec<i64> = text.split(separator).map(|part| part.parse::<u16>().ok().map(i64::from)).collect::<Option<_>>()?;
    parts.try_into().ok()
}

/// Days of the proleptic Gregorian calendar, counted in years that begin in March.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_fraction_and_zone() {
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
