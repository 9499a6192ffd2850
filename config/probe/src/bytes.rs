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

/// Entries that begin with a header from which `length` reads their length, at least `least`; ends where they stop adding up.
pub(crate) struct Entries<'b> {
    rest: &'b [u8],
    least: usize,
    length: fn(&[u8]) -> Option<usize>,
}

impl<'b> Entries<'b> {
    pub fn new(bytes: &'b [u8], least: usize, length: fn(&[u8]) -> Option<usize>) -> Self {
        Self { rest: bytes, least: least.max(1), length }
    }

    /// What no entry has taken yet.
    pub const fn rest(&self) -> &'b [u8] {
        self.rest
    }
}

impl<'b> Iterator for Entries<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let size = (self.length)(self.rest).filter(|size| *size >= self.least)?;
        let (entry, next) = self.rest.split_at_checked(size)?;
        self.rest = next;
        Some(entry)
    }
}
