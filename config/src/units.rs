//! Quantities with units: durations, sizes, frequencies, percentages. Exact or refused, never rounded.

/// What a quantity measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// Time.
    Duration,
    /// Bytes.
    Size,
    /// Events a second.
    Frequency,
    /// Parts of a hundred.
    Percentage,
}

impl Dimension {
    /// With its article.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duration => "a duration",
            Self::Size => "a size",
            Self::Frequency => "a frequency",
            Self::Percentage => "a percentage",
        }
    }

    /// The unit that a remedy proposes.
    pub const fn usual_unit(self) -> &'static str {
        match self {
            Self::Duration => "us",
            Self::Size => "MiB",
            Self::Frequency => "MHz",
            Self::Percentage => "%",
        }
    }

    /// All its units, as a list in a sentence.
    pub fn units(self) -> String {
        let names: Vec<_> =
            UNITS.iter().filter(|unit| unit.dimension == self).map(|unit| unit.name).collect();
        names.join(", ")
    }
}

/// A unit: one of it is `factor / divisor` of the base (seconds, bytes, hertz, millionths).
struct Unit {
    name: &'static str,
    dimension: Dimension,
    factor: u128,
    divisor: u128,
}

/// Name of the unit that counts ticks of the board's time-stamp counter.
pub(crate) const TICKS: &str = "ticks";

const fn unit(name: &'static str, dimension: Dimension, factor: u128, divisor: u128) -> Unit {
    Unit { name, dimension, factor, divisor }
}

const UNITS: &[Unit] = &[
    unit("ns", Dimension::Duration, 1, 1_000_000_000),
    unit("us", Dimension::Duration, 1, 1_000_000),
    unit("ms", Dimension::Duration, 1, 1_000),
    unit("s", Dimension::Duration, 1, 1),
    // The base depends on the board: read by `Quantity::is_ticks`.
    unit(TICKS, Dimension::Duration, 1, 1),
    unit("B", Dimension::Size, 1, 1),
    unit("KiB", Dimension::Size, 1 << 10, 1),
    unit("MiB", Dimension::Size, 1 << 20, 1),
    unit("GiB", Dimension::Size, 1 << 30, 1),
    unit("Hz", Dimension::Frequency, 1, 1),
    unit("kHz", Dimension::Frequency, 1_000, 1),
    unit("MHz", Dimension::Frequency, 1_000_000, 1),
    unit("GHz", Dimension::Frequency, 1_000_000_000, 1),
    unit("%", Dimension::Percentage, 10_000, 1),
];

/// Most digits of a number, before and behind the point together: keeps all arithmetic within 128 bits.
const MOST_DIGITS: usize = 18;

/// A quantity as written: `numerator / denominator` of the base of its dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantity {
    numerator: u128,
    denominator: u128,
    ticks: bool,
}

/// Why a text is not a quantity of the wanted dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QuantityError {
    /// The number is absent or malformed.
    Number(Slip),
    /// There is no unit.
    MissingUnit,
    /// The unit belongs to another dimension.
    OtherDimension(Dimension),
    /// No such unit; `Some` when one is close.
    UnknownUnit(Option<&'static str>),
}

/// What is wrong with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slip {
    /// It is none, or none that is known to be meant.
    None,
    /// It is below zero.
    Negative,
    /// It has more digits than are counted with.
    Digits,
    /// It has a comma where a point belongs, or between thousands.
    Comma,
    /// It is written with an exponent.
    Exponent,
    /// It is written in hexadecimal.
    Hexadecimal,
}

impl Slip {
    /// What is said of a number, and what to do; `example` is one of its kind.
    pub fn words(self, example: &str) -> (&'static str, String) {
        match self {
            Self::None => {
                ("does not begin with a number", format!("write digits, then the unit: {example}"))
            }
            Self::Negative => ("is negative", format!("write it from zero up: {example}")),
            Self::Digits => {
                ("has too many digits", format!("write at most {MOST_DIGITS}, in a larger unit"))
            }
            Self::Comma => (
                "has a comma",
                "write the decimal point as `.`, and thousands as `1_000`".to_owned(),
            ),
            Self::Exponent => ("has an exponent", format!("write its digits out: {example}")),
            Self::Hexadecimal => {
                ("is hexadecimal", format!("write it in decimal digits: {example}"))
            }
        }
    }

    /// Of a number, and of what stands behind it.
    fn behind(number: &str, rest: &str) -> Option<Self> {
        let digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        if rest.strip_prefix(',').is_some_and(digit) {
            return Some(Self::Comma);
        }
        if number == "0" && rest.starts_with(['x', 'X']) {
            return Some(Self::Hexadecimal);
        }
        let exponent = rest.strip_prefix(['e', 'E'])?;
        digit(exponent.trim_start_matches(['+', '-'])).then_some(Self::Exponent)
    }
}

/// The outcome of counting in whole base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    /// Exactly so many.
    Exact(u64),
    /// Between this number and the next.
    Above(u64),
    /// More than 2^62.
    TooLarge,
}

impl Whole {
    /// The number, where it is exact.
    pub const fn exact(self) -> Option<u64> {
        match self {
            Self::Exact(value) => Some(value),
            Self::Above(_) | Self::TooLarge => None,
        }
    }
}

impl Quantity {
    /// Parses `"1.5 ms"`.
    pub fn parse(text: &str, wanted: Dimension) -> Result<Self, QuantityError> {
        let text = text.trim();
        let split =
            text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
        let (number, name) = text.split_at(split);
        if text.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        {
            return Err(QuantityError::Number(Slip::Negative));
        }
        let (mantissa, scale) = decimal(number).map_err(QuantityError::Number)?;
        if let Some(slip) = Slip::behind(number, name) {
            return Err(QuantityError::Number(slip));
        }
        let unit = find_unit(name.trim(), wanted)?;
        Ok(Self {
            numerator: mantissa * unit.factor,
            denominator: scale * unit.divisor,
            ticks: unit.name == TICKS,
        })
    }

    /// Whether it is nothing at all.
    pub const fn is_zero(self) -> bool {
        self.numerator == 0
    }

    /// In whole base units: bytes, hertz, parts per million.
    pub const fn whole(self) -> Whole {
        divide(self.numerator, self.denominator)
    }

    /// A duration in ticks of a clock of `hz`.
    pub fn to_ticks(self, hz: u64) -> Whole {
        let rate = if self.ticks { 1 } else { u128::from(hz) };
        self.numerator
            .checked_mul(rate)
            .map_or(Whole::TooLarge, |numerator| divide(numerator, self.denominator))
    }
}

const fn divide(numerator: u128, denominator: u128) -> Whole {
    let quotient = numerator / denominator;
    if quotient > 1 << 62 {
        Whole::TooLarge
    } else if numerator.is_multiple_of(denominator) {
        Whole::Exact(quotient as u64)
    } else {
        Whole::Above(quotient as u64)
    }
}

/// Digits with at most one point between them, as (mantissa, power of ten).
fn decimal(number: &str) -> Result<(u128, u128), Slip> {
    let digits = |text: &str| !text.is_empty() && !text.starts_with('_') && !text.ends_with('_');
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if digits(fraction) => (whole, fraction.replace('_', "")),
        Some(_) => return Err(Slip::None),
        None => (number, String::new()),
    };
    let plain = whole.replace('_', "") + &fraction;
    if !digits(whole) {
        return Err(Slip::None);
    }
    if plain.len() > MOST_DIGITS {
        return Err(Slip::Digits);
    }
    let mantissa = plain.parse().map_err(|_| Slip::None)?;
    Ok((mantissa, 10_u128.pow(fraction.len() as u32)))
}

fn find_unit(name: &str, wanted: Dimension) -> Result<&'static Unit, QuantityError> {
    if name.is_empty() {
        return Err(QuantityError::MissingUnit);
    }
    match UNITS.iter().find(|unit| unit.name == name) {
        Some(unit) if unit.dimension == wanted => Ok(unit),
        Some(unit) => Err(QuantityError::OtherDimension(unit.dimension)),
        None => Err(QuantityError::UnknownUnit(close_unit(name, wanted))),
    }
}

/// Units that people write for ours.
fn close_unit(name: &str, wanted: Dimension) -> Option<&'static str> {
    let lower = name.to_lowercase();
    let meant = match lower.as_str() {
        "µs" | "μs" | "usec" | "microseconds" => "us",
        "msec" | "milliseconds" => "ms",
        "nsec" | "nanoseconds" => "ns",
        "sec" | "second" | "seconds" => "s",
        "tick" => TICKS,
        "bytes" | "byte" => "B",
        "k" | "kb" | "kilobyte" | "kilobytes" => "KiB",
        "m" | "mb" | "megabyte" | "megabytes" => "MiB",
        "g" | "gb" | "gigabyte" | "gigabytes" => "GiB",
        "percent" => "%",
        other => other,
    };
    let names = || UNITS.iter().filter(|unit| unit.dimension == wanted).map(|unit| unit.name);
    names().find(|unit| unit.eq_ignore_ascii_case(meant)).or_else(|| only_near(meant, names()))
}

/// The one name from which a single slip leads to the text, in lower case; `None` where it may be several.
fn only_near<'u>(text: &str, names: impl Iterator<Item = &'u str>) -> Option<&'u str> {
    let slip = |name: &&str| {
        name.len() > 1 && strsim::damerau_levenshtein(text, &name.to_lowercase()) == 1
    };
    let mut near = names.filter(slip);
    near.next().filter(|_| near.next().is_none())
}

/// A number of ticks as a duration that [`Quantity::to_ticks`] reads back exactly: in the largest unit of
/// time that needs at most three digits behind the point, else in ticks.
pub(crate) fn duration_text(ticks: u64, hz: u64) -> String {
    let (ticks, hz) = (u128::from(ticks), u128::from(hz));
    for (name, per_second) in [("s", 1), ("ms", 1_000), ("us", 1_000_000), ("ns", 1_000_000_000)] {
        let thousandths = ticks * per_second * 1_000;
        if hz != 0 && thousandths % hz == 0 && (thousandths / hz >= 1_000 || name == "ns") {
            return format!("{} {name}", decimal_text(thousandths / hz));
        }
    }
    format!("{ticks} {TICKS}")
}

fn decimal_text(thousandths: u128) -> String {
    let text = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number of bytes as a size, in the largest unit that divides it.
pub(crate) fn size_text(bytes: u64) -> String {
    for (name, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{} {name}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

/// A frequency, in the largest unit that needs at most four digits behind the point.
pub(crate) fn frequency_text(hz: u64) -> String {
    for (name, unit) in [("GHz", 1_000_000_000), ("MHz", 1_000_000), ("kHz", 1_000)] {
        let tenthousandths = hz.saturating_mul(10_000);
        if hz >= unit && tenthousandths.is_multiple_of(unit) {
            let text = format!("{}.{:04}", hz / unit, tenthousandths / unit % 10_000);
            return format!("{} {name}", text.trim_end_matches('0').trim_end_matches('.'));
        }
    }
    format!("{hz} Hz")
}

/// A size in the largest unit that it reaches, with one digit behind the point where it is not whole.
pub(crate) fn near_size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fitting = units.into_iter().find(|(_, shift)| bytes >= 1 << shift);
    match fitting {
        Some((name, shift)) if bytes.is_multiple_of(1 << shift) => {
            format!("{} {name}", bytes >> shift)
        }
        Some((name, shift)) => format!("{:.1} {name}", bytes as f64 / (1_u64 << shift) as f64),
        None => size_text(bytes),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ticks(text: &str, hz: u64) -> Whole {
        Quantity::parse(text, Dimension::Duration).unwrap().to_ticks(hz)
    }

    #[test]
    fn durations_are_exact_or_refused() {
        assert_eq!(ticks("20 us", 50_000_000), Whole::Exact(1_000));
        assert_eq!(ticks("0.1 us", 50_000_000), Whole::Exact(5));
        assert_eq!(ticks("30 ns", 50_000_000), Whole::Above(1));
        assert_eq!(ticks("1 us", 2_400_000_000), Whole::Exact(2_400));
        assert_eq!(ticks("1000ticks", 7), Whole::Exact(1_000));
        assert_eq!(ticks("999999999999999999 s", u64::MAX), Whole::TooLarge);
    }

    #[test]
    fn wrong_units_say_what_is_wrong() {
        let parse = |text| Quantity::parse(text, Dimension::Duration).unwrap_err();
        assert_eq!(parse("64 KiB"), QuantityError::OtherDimension(Dimension::Size));
        assert_eq!(parse("64"), QuantityError::MissingUnit);
        assert_eq!(parse("64 msec"), QuantityError::UnknownUnit(Some("ms")));
        assert_eq!(parse("64 parsecs"), QuantityError::UnknownUnit(None));
        assert_eq!(parse("64 tiks"), QuantityError::UnknownUnit(Some("ticks")));
        // Microseconds, milliseconds or nanoseconds: no guess.
        assert_eq!(parse("64 ys"), QuantityError::UnknownUnit(None));
        let size = |text| Quantity::parse(text, Dimension::Size).unwrap_err();
        assert_eq!(size("8 MB"), QuantityError::UnknownUnit(Some("MiB")));
        assert_eq!(size("8 MiBs"), QuantityError::UnknownUnit(Some("MiB")));
        assert_eq!(size("8 gigabytes"), QuantityError::UnknownUnit(Some("GiB")));
        for bad in ["", "us", "+5 us", "1.2.3 us", ".5 us", "5. us", "_1 us", "-us"] {
            assert_eq!(parse(bad), QuantityError::Number(Slip::None), "{bad}");
        }
    }

    #[test]
    fn slips_of_numbers_are_told_apart() {
        let slip = |text| Quantity::parse(text, Dimension::Duration).unwrap_err();
        for (text, told) in [
            ("-5 us", Slip::Negative),
            ("1234567890123456789 ns", Slip::Digits),
            ("1,5 us", Slip::Comma),
            ("1e3 us", Slip::Exponent),
            ("1E-3 s", Slip::Exponent),
            ("0x10 us", Slip::Hexadecimal),
        ] {
            assert_eq!(slip(text), QuantityError::Number(told), "{text}");
        }
        assert_eq!(slip("5 eons"), QuantityError::UnknownUnit(None));
    }

    proptest! {
        #[test]
        fn a_written_duration_reads_back(count in 0_u64..1 << 50, hz in 1_u64..5_000_000_000) {
            let text = duration_text(count, hz);
            if let Ok(quantity) = Quantity::parse(&text, Dimension::Duration) {
                prop_assert_eq!(quantity.to_ticks(hz), Whole::Exact(count), "{}", text);
            } else {
                prop_assert!(text.len() > MOST_DIGITS, "{}", text);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = Quantity::parse(&text, Dimension::Size);
        }
    }
}
