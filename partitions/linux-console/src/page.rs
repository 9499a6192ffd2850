//! The shared page: [`bulkhead_table::pc::CONSOLE_PAGE`].

use std::arch::x86_64::__cpuid;
use std::io::Result;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use bulkhead_table::PAGE_SIZE;
use bulkhead_table::abi::{CPUID_BASE_OF_PC, CPUID_SIGNATURE};
use bulkhead_table::pc::{CONSOLE_PAGE, console_page as at};
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// Where physical memory is a file.
const MEMORY: &str = "/dev/mem";

/// The page, mapped for as long as the program runs.
pub struct Page {
    start: *const u8,
}

impl Page {
    /// The page of this machine; none where this hypervisor is not.
    ///
    /// # Errors
    /// The kernel does not let it be mapped.
    pub fn find() -> Result<Option<Self>> {
        if !hypervisor_is_here() {
            return Ok(None);
        }
        let memory = rustix::fs::open(MEMORY, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let (access, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a fresh mapping where the kernel likes.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                PAGE_SIZE as usize,
                access,
                shared,
                memory,
                CONSOLE_PAGE,
            )?
        };
        Ok(Some(Self { start: start.cast() }))
    }

    fn number(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: the offsets of the contract are aligned and inside the page, which stays mapped; the other side's writes are whole
        // words.
        unsafe { &*self.start.add(offset).cast() }
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: as above; callers stay inside the arrays of bytes.
        unsafe { &*self.start.add(offset).cast() }
    }

    /// Says that the page is used from now on.
    pub fn open(&self) {
        self.number(at::STATE).store(at::OPEN, Ordering::Release);
    }

    /// Says `bytes`; calls `nap` while there is no room.
    pub fn say(&self, bytes: &[u8], nap: impl Fn()) {
        for byte in bytes {
            let said = self.number(at::SAID).load(Ordering::Relaxed);
            while said.wrapping_sub(self.number(at::TAKEN).load(Ordering::Acquire)) as usize
                >= at::SAID_LENGTH
            {
                nap();
            }
            self.byte(at::SAID_BYTES + said as usize % at::SAID_LENGTH)
                .store(*byte, Ordering::Relaxed);
            self.number(at::SAID).store(said.wrapping_add(1), Ordering::Release);
        }
    }

    /// What was typed and is not taken yet, as much as `room` holds.
    pub fn typed<'r>(&self, room: &'r mut [u8]) -> &'r [u8] {
        let read = self.number(at::READ).load(Ordering::Relaxed);
        let waiting = self.number(at::TYPED).load(Ordering::Acquire).wrapping_sub(read) as usize;
        let count = waiting.min(at::TYPED_LENGTH).min(room.len());
        for (offset, byte) in room.iter_mut().take(count).enumerate() {
            let from = (read as usize).wrapping_add(offset) % at::TYPED_LENGTH;
            *byte = self.byte(at::TYPED_BYTES + from).load(Ordering::Relaxed);
        }
        &room[..count]
    }

    /// Takes the first `count` bytes that were typed: their places are free again.
    pub fn take(&self, count: usize) {
        let read = self.number(at::READ).load(Ordering::Relaxed);
        self.number(at::READ).store(read.wrapping_add(count as u32), Ordering::Release);
    }
}

/// Whether the leaves of CPUID where a system looks next for a hypervisor name this one.
fn hypervisor_is_here() -> bool {
    let leaf = __cpuid(CPUID_BASE_OF_PC);
    [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat() == CPUID_SIGNATURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_and_bytes_lie_inside_the_page() {
        for number in [at::STATE, at::SAID, at::TAKEN, at::TYPED, at::READ] {
            assert!(number.is_multiple_of(4) && number < at::TYPED_BYTES);
        }
        assert_eq!(at::TYPED_BYTES + at::TYPED_LENGTH, at::SAID_BYTES);
        assert_eq!(at::SAID_BYTES + at::SAID_LENGTH, PAGE_SIZE as usize);
    }

    #[test]
    fn what_is_said_and_typed_lies_where_the_contract_has_it() {
        let memory = vec![0_u64; 512];
        let page = Page { start: memory.as_ptr().cast() };
        page.open();
        page.say(b"said", || panic!("there is room"));
        page.number(at::TYPED).store(2, Ordering::Relaxed);
        page.byte(at::TYPED_BYTES + 1).store(b'k', Ordering::Relaxed);
        let mut room = [0; 8];
        assert_eq!(page.typed(&mut room), b"\0k");
        page.take(1);
        assert_eq!(page.typed(&mut room), b"k", "what was not taken stays");
        page.take(1);
        assert_eq!(page.typed(&mut room), b"");
        assert_eq!(page.number(at::SAID).load(Ordering::Relaxed), 4);
        assert_eq!(page.byte(at::SAID_BYTES + 3).load(Ordering::Relaxed), b'd');
    }

    #[test]
    fn this_machine_has_no_such_page() {
        assert!(Page::find().unwrap().is_none());
    }
}
