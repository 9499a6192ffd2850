//! How a board file travels among other text on a serial line: between two marks, the second with a check sum.

use alloc::string::{String, ToString};

/// Stands on a line of its own before the board file.
pub const BEGIN: &str = "@bulkhead board begin";
/// Begins the line behind it; the sum follows.
pub const END: &str = "@bulkhead board end";

/// Why no board file could be taken out of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogError {
    /// No board file begins in it.
    NoBeginning,
    /// It breaks off.
    NoEnd,
    /// Bytes were lost or changed on the line.
    Damaged,
}

impl core::fmt::Display for LogError {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str(match self {
            Self::NoBeginning => "the log holds no board file",
            Self::NoEnd => "the board file in the log breaks off",
            Self::Damaged => "the board file in the log is damaged: its check sum differs",
        })
    }
}

impl core::error::Error for LogError {}

/// Adler-32 over the lines, whatever ends them.
#[must_use]
pub fn sum(text: &str) -> u32 {
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in text.lines().flat_map(|line| line.trim_end_matches('\r').bytes().chain([b'\n'])) {
        low = (low + u32::from(byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    high << 16 | low
}

/// The last board file in a log.
///
/// # Errors
/// There is none, or it is not whole.
pub fn take(log: &str) -> Result<String, LogError> {
    let (_, rest) = log.rsplit_once(BEGIN).ok_or(LogError::NoBeginning)?;
    let (body, end) = rest.split_once(END).ok_or(LogError::NoEnd)?;
    let body: String = body.trim_start_matches(['\r', '\n']).replace('\r', "");
    let told = end.split_whitespace().next().ok_or(LogError::NoEnd)?;
    if told != alloc::format!("{:08x}", sum(&body)) {
        return Err(LogError::Damaged);
    }
    Ok(body.to_string())
}
