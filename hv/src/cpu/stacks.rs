//! The cores' stacks. Below each lies a page that is never mapped, so that an overflow is a fault and not a mystery.

use core::cell::UnsafeCell;

use bulkhead_table::Range;

use crate::memory::PAGE;
use crate::table::CORES;

/// Pages of a core's main stack: boot, then making vCPUs (which are large and pass through it), then the run loop.
const MAIN_PAGES: usize = 16;
/// Pages of the stack of one interrupt that must not trust the current one. A panic formats on it.
const INTERRUPT_PAGES: usize = 2;

type Page = [u8; PAGE as usize];

/// A stack above its guard page.
#[repr(C, align(4096))]
struct Guarded<const PAGES: usize> {
    guard: Page,
    stack: UnsafeCell<[Page; PAGES]>,
}

impl<const PAGES: usize> Guarded<PAGES> {
    const fn new() -> Self {
        Self { guard: [0; PAGE as usize], stack: UnsafeCell::new([[0; PAGE as usize]; PAGES]) }
    }

    fn guard(&self) -> u64 {
        &raw const self.guard as u64
    }

    fn top(&self) -> u64 {
        self.stack.get() as u64 + PAGES as u64 * PAGE
    }
}

/// All stacks of one core.
#[repr(C)]
pub struct Stacks {
    main: Guarded<MAIN_PAGES>,
    double_fault: Guarded<INTERRUPT_PAGES>,
    nmi: Guarded<INTERRUPT_PAGES>,
    machine_check: Guarded<INTERRUPT_PAGES>,
}

#[expect(unsafe_code, reason = "says that a stack may be reached from anywhere")]
// SAFETY: nothing but the owning core's stack pointer ever reaches a stack; references to `Stacks` only yield addresses.
unsafe impl Sync for Stacks {}

/// Guard pages in [`Stacks`].
const GUARDS_PER_CORE: usize = 4;

/// From the start of [`STACKS`] to the top of the boot core's main stack, for the entry code.
pub const BOOT_STACK_TOP: usize = (1 + MAIN_PAGES) * PAGE as usize;

/// By index of the core in the table. Each core maps its own only.
#[expect(unsafe_code, reason = "places the stacks among the private pages")]
// SAFETY: linker.ld gives the section zeroed memory, whole pages, and nothing else goes there but other statics.
#[unsafe(link_section = ".bss.private.stacks")]
pub static STACKS: [Stacks; CORES] = [const {
    Stacks {
        main: Guarded::new(),
        double_fault: Guarded::new(),
        nmi: Guarded::new(),
        machine_check: Guarded::new(),
    }
}; CORES];

impl Stacks {
    /// First address behind the main stack.
    pub fn main_top(&self) -> u64 {
        self.main.top()
    }

    /// Tops of the interrupt stacks, in the order of [`super::descriptors`]' slots.
    pub fn interrupt_tops(&self) -> [u64; 3] {
        [self.double_fault.top(), self.nmi.top(), self.machine_check.top()]
    }

    /// The stacks themselves, without their guard pages.
    pub fn ranges(&self) -> [Range; GUARDS_PER_CORE] {
        let tops =
            [self.main.top(), self.double_fault.top(), self.nmi.top(), self.machine_check.top()];
        let mut ranges = self.guards().map(|guard| Range { start: guard + PAGE, size: 0 });
        for (range, top) in ranges.iter_mut().zip(tops) {
            range.size = top - range.start;
        }
        ranges
    }

    fn guards(&self) -> [u64; GUARDS_PER_CORE] {
        [self.main.guard(), self.double_fault.guard(), self.nmi.guard(), self.machine_check.guard()]
    }
}

/// Addresses of all guard pages, ascending.
pub fn guards() -> impl Iterator<Item = u64> {
    STACKS.iter().flat_map(Stacks::guards)
}
