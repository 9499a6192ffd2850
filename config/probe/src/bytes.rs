//! Little-endian numbers out of bytes that somebody else wrote: `None` where they end too early.

pub(crate) fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    take(bytes, at).map(u16::from_le_bytes)
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    take(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn long(bytes: &[u8], at: usize) -> Option<u64> {
    take(bytes, at).map(u64::from_le_bytes)
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Entries that begin with a header from which `length` reads their length, at least `least`; ends where they stop
/// adding up.
pub(crate) fn entries(
    bytes: &[u8],
    least: usize,
    length: fn(&[u8]) -> Option<usize>,
) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    core::iter::from_fn(move || {
        let size = length(rest).filter(|size| *size >= least.max(1))?;
        let (entry, next) = rest.split_at_checked(size)?;
        rest = next;
        Some(entry)
    })
}
