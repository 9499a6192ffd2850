//! The Multiboot2 information that a guest finds in its memory (Multiboot2 specification 2.0, section 3.6).

/// Guest-physical address of the information; its page is the boot information's alone.
pub const ADDRESS: u64 = 0x1000;

/// Longest command line in bytes; with it, the information still fits its page.
pub const LONGEST_ARGUMENTS: usize = 2048;

const LOADER_NAME: &str = "Bulkhead";
const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_LOADER_NAME: u32 = 2;
/// Start, end and text of a module.
pub(crate) const TAG_MODULE: u32 = 3;
/// KiB of lower and of upper memory.
pub(crate) const TAG_BASIC_MEMORY: u32 = 4;
const TAG_MEMORY_MAP: u32 = 6;
/// A copy of the root pointer of ACPI, from version 2 on.
pub(crate) const TAG_ACPI_POINTER: u32 = 15;
/// Kind of an entry: RAM for the guest to use.
pub(crate) const AVAILABLE: u32 = 1;
/// Kind of an entry: there is something that is no RAM.
pub(crate) const RESERVED: u32 = 2;
const MEMORY_ENTRY_BYTES: u32 = 24;
const MEMORY_ENTRY_VERSION: u32 = 0;

/// Command line, loader name and an entry of the memory map per `(start, size, kind)` of `memory`.
pub(crate) fn build(arguments: &str, memory: &[(u64, u64, u32)]) -> Vec<u8> {
    build_with(arguments, memory, &[])
}

/// The same with more tags: kind and content.
pub(crate) fn build_with(
    arguments: &str,
    memory: &[(u64, u64, u32)],
    more: &[(u32, Vec<u8>)],
) -> Vec<u8> {
    let mut tags = Vec::new();
    tag(&mut tags, TAG_COMMAND_LINE, &text(arguments));
    tag(&mut tags, TAG_LOADER_NAME, &text(LOADER_NAME));
    tag(&mut tags, TAG_MEMORY_MAP, &memory_map(memory));
    more.iter().for_each(|(kind, content)| tag(&mut tags, *kind, content));
    tag(&mut tags, TAG_END, &[]);
    let mut bytes = Vec::with_capacity(tags.len() + 8);
    bytes.extend((tags.len() as u32 + 8).to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(tags);
    bytes
}

/// The size of a tag leaves its padding out; the next tag starts on a bound of 8.
fn tag(out: &mut Vec<u8>, kind: u32, content: &[u8]) {
    out.extend(kind.to_le_bytes());
    out.extend((content.len() as u32 + 8).to_le_bytes());
    out.extend(content);
    out.resize(out.len().next_multiple_of(8), 0);
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn memory_map(memory: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(MEMORY_ENTRY_BYTES.to_le_bytes());
    bytes.extend(MEMORY_ENTRY_VERSION.to_le_bytes());
    for (start, size, kind) in memory {
        bytes.extend(start.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn the_tags_are_where_the_specification_says() {
        let bytes = build("a=1", &[(0, 0x80_0000, AVAILABLE)]);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((word(0) as usize, word(4)), (bytes.len(), 0));
        assert_eq!((word(8), word(12), &bytes[16..20]), (1, 12, &b"a=1\0"[..]));
        assert_eq!((word(24), word(28), &bytes[32..41]), (2, 17, &b"Bulkhead\0"[..]));
        assert_eq!((word(48), word(52), word(56), word(60)), (6, 40, 24, 0));
        assert_eq!(u64::from_le_bytes(bytes[72..80].try_into().unwrap()), 0x80_0000);
        assert_eq!((word(80), word(88), word(92)), (1, 0, 8));
    }

    #[test]
    fn the_longest_arguments_fit_the_page() {
        let bytes = build(&"x".repeat(LONGEST_ARGUMENTS), &[(0, 1, AVAILABLE); 8]);
        assert!(bytes.len() as u64 <= bulkhead_table::PAGE_SIZE);
    }
}
