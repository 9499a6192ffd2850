//! The command line: words and `name=value` pairs between spaces, numbers and durations as values.

use core::fmt;

/// A command line, parsed as it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    line: &'a str,
}

impl<'a> Arguments<'a> {
    /// Takes a command line such as `period=100us samples=20000 verbose`.
    #[must_use]
    pub const fn new(line: &'a str) -> Self {
        Self { line }
    }

    /// All arguments in order; a word without `=` has the empty value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.line.split_ascii_whitespace().map(|word| word.split_once('=').unwrap_or((word, "")))
    }

    /// The value of `name`; the empty string when it stands alone, `None` when it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// The first argument whose name is in neither list.
    #[must_use]
    pub fn unknown(&self, known: &[&str], also: &[&str]) -> Option<&'a str> {
        self.iter().map(|(name, _)| name).find(|name| !known.contains(name) && !also.contains(name))
    }

    /// The first argument that is given more than once.
    #[must_use]
    pub fn repeated(&self) -> Option<&'a str> {
        self.iter()
            .map(|(name, _)| name)
            .find(|name| self.iter().filter(|(other, _)| other == name).count() > 1)
    }
}

/// Why a value was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadValue {
    /// Not a whole decimal number.
    NotANumber,
    /// A duration without a unit, or with one that is not ns, us, ms or s.
    Unit,
    /// Too large for 64 bits.
    TooLarge,
}

impl fmt::Display for BadValue {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotANumber => "not a whole number; write decimal digits, such as 20000",
            Self::Unit => {
                "a duration needs a unit right behind its number: ns, us, ms or s, such as 100us"
            }
            Self::TooLarge => "too large for 64 bits",
        })
    }
}

/// A whole decimal number.
///
/// # Errors
/// [`BadValue::NotANumber`] or [`BadValue::TooLarge`].
pub fn parse_number(text: &str) -> Result<u64, BadValue> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadValue::NotANumber);
    }
    text.parse().map_err(|_| BadValue::TooLarge)
}

/// A duration such as `100us`, in nanoseconds.
///
/// # Errors
/// Any [`BadValue`].
pub fn parse_duration(text: &str) -> Result<u64, BadValue> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number = parse_number(number)?;
    let nanoseconds = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return Err(BadValue::Unit),
    };
    number.checked_mul(nanoseconds).ok_or(BadValue::TooLarge)
}

/// Nanoseconds in ticks of a clock of `khz` kilohertz, rounded down.
///
/// # Errors
/// [`BadValue::TooLarge`] when the ticks do not fit 64 bits.
pub fn to_ticks(nanoseconds: u64, khz: u64) -> Result<u64, BadValue> {
    let ticks = u128::from(nanoseconds) * u128::from(khz) / 1_000_000;
    u64::try_from(ticks).map_err(|_| BadValue::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_pairs() {
        let line = Arguments::new("  period=100us native-power-off samples=5 ");
        assert_eq!(line.get("period"), Some("100us"));
        assert_eq!(line.get("native-power-off"), Some(""));
        assert_eq!(line.get("sample"), None);
        assert_eq!(line.iter().count(), 3);
    }

    #[test]
    fn a_value_may_contain_an_equals_sign() {
        assert_eq!(Arguments::new("a=b=c").get("a"), Some("b=c"));
    }

    #[test]
    fn unknown_and_repeated_are_found() {
        let line = Arguments::new("mode=hlt perod=1us mode=spin");
        assert_eq!(line.unknown(&["mode", "period"], &[]), Some("perod"));
        assert_eq!(line.unknown(&["mode"], &["perod"]), None);
        assert_eq!(line.repeated(), Some("mode"));
        assert_eq!(Arguments::new("a b c").repeated(), None);
        assert_eq!(Arguments::new("").unknown(&[], &[]), None);
    }

    #[test]
    fn numbers() {
        assert_eq!(parse_number("20000"), Ok(20_000));
        for bad in ["", "x", "-1", "+1", "1.5", "0x10", "1 "] {
            assert_eq!(parse_number(bad), Err(BadValue::NotANumber), "{bad}");
        }
        assert_eq!(parse_number("18446744073709551616"), Err(BadValue::TooLarge));
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("250ns"), Ok(250));
        assert_eq!(parse_duration("100us"), Ok(100_000));
        assert_eq!(parse_duration("2ms"), Ok(2_000_000));
        assert_eq!(parse_duration("3s"), Ok(3_000_000_000));
        assert_eq!(parse_duration("100"), Err(BadValue::Unit));
        assert_eq!(parse_duration("1h"), Err(BadValue::Unit));
        assert_eq!(parse_duration("us"), Err(BadValue::NotANumber));
        assert_eq!(parse_duration("18446744073709551615s"), Err(BadValue::TooLarge));
    }

    #[test]
    fn ticks() {
        assert_eq!(to_ticks(100_000, 50_000), Ok(5_000));
        assert_eq!(to_ticks(30, 50_000), Ok(1));
        assert_eq!(to_ticks(u64::MAX, 1_000_001), Err(BadValue::TooLarge));
    }
}
