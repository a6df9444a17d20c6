//! Timestamps as Django REST framework prints them. Pure.

/// Microseconds from 1970-01-01 to 2000-01-01 UTC, PostgreSQL's zero.
pub const UNIX_TO_POSTGRES: i64 = 946_684_800_000_000;

/// An aware datetime in UTC: `2024-05-01T12:00:00Z`, with six digits of microseconds where they are
/// not zero. `micros`: PostgreSQL's timestamptz, microseconds since 2000-01-01 UTC. Years outside
/// 0–9999 carry a sign, as ISO 8601 has it (year 0 is 1 BC); infinities print as PostgreSQL's.
pub fn iso8601(micros: i64) -> String {
    match micros {
        i64::MAX => return "infinity".into(),
        i64::MIN => return "-infinity".into(),
        _ => {}
    }
    const DAY: i128 = 86_400_000_000;
    let t = i128::from(micros) + i128::from(UNIX_TO_POSTGRES);
    let (days, of_day) = (t.div_euclid(DAY) as i64, t.rem_euclid(DAY) as i64);
    let (year, month, day) = civil(days);
    let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    // Digit by digit into one text: a document prints several.
    let mut text = String::with_capacity(27);
    if (0..=9999).contains(&year) {
        push(&mut text, year, 4);
    } else {
        text.push_str(&format!("{year:+05}"));
    }
    for (separator, number) in [('-', month), ('-', day), ('T', h), (':', m), (':', s)] {
        text.push(separator);
        push(&mut text, number, 2);
    }
    if fraction != 0 {
        text.push('.');
        push(&mut text, fraction, 6);
    }
    text.push('Z');
    text
}

/// A number that is not negative, as so many digits.
fn push(text: &mut String, number: i64, digits: u32) {
    for place in (0..digits).rev() {
        text.push(char::from(b'0' + (number / 10_i64.pow(place) % 10) as u8));
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar, by
/// 400-year eras of years that begin in March (so that the leap day comes last).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_django_rest_framework() {
        assert_eq!(iso8601(0), "2000-01-01T00:00:00Z");
        assert_eq!(iso8601(767_880_000_000_000), "2024-05-01T12:00:00Z");
        assert_eq!(iso8601(767_880_000_000_001), "2024-05-01T12:00:00.000001Z");
        assert_eq!(iso8601(767_880_000_120_000), "2024-05-01T12:00:00.120000Z");
    }

    #[test]
    fn leap_days_and_the_time_before_the_epoch() {
        // 2000-02-29, 59 days in; 1999-12-31T23:59:59.999999; 1969-07-20.
        assert_eq!(iso8601(59 * 86_400_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(iso8601(-1), "1999-12-31T23:59:59.999999Z");
        assert_eq!(iso8601(-11_122 * 86_400_000_000), "1969-07-20T00:00:00Z");
    }

    #[test]
    fn hours_minutes_and_seconds() {
        let at = |h: i64, m: i64, s: i64| iso8601(((h * 60 + m) * 60 + s) * 1_000_000);
        assert_eq!(at(12, 34, 56), "2000-01-01T12:34:56Z");
        assert_eq!(at(23, 59, 1), "2000-01-01T23:59:01Z");
        assert_eq!(at(1, 2, 0), "2000-01-01T01:02:00Z");
    }

    #[test]
    fn day_after_day() {
        // Two eras of 400 years, from 1600-01-01 on, by the calendar's own rule.
        let (mut year, mut month, mut day) = (1600, 1, 1);
        for days in -135_140..156_999 {
            assert_eq!(civil(days), (year, month, day), "day {days}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + i64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!((year, month), (2399, 11));
    }

    #[test]
    fn the_ends_of_the_range() {
        assert_eq!(iso8601(i64::MAX), "infinity");
        assert_eq!(iso8601(i64::MIN), "-infinity");
        assert_eq!(iso8601(-730_119 * 86_400_000_000), "0001-01-01T00:00:00Z");
        assert_eq!(iso8601(-730_485 * 86_400_000_000), "0000-01-01T00:00:00Z");
        assert_eq!(iso8601(-730_487 * 86_400_000_000), "-0001-12-30T00:00:00Z");
        assert_eq!(iso8601(2_921_940 * 86_400_000_000), "+10000-01-01T00:00:00Z");
    }
}
