//! The way in: the Multiboot2 header and the assembly from 32-bit hand-over to 64-bit Rust.
#![expect(unsafe_code, reason = "reads what the entry code left")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::cpu::stacks::{BOOT_STACK_TOP, STACKS};
use crate::table::TABLE;

/// TSC of the hypervisor's first instruction, written by the entry code.
static ENTRY_TSC: AtomicU64 = AtomicU64::new(0);

/// Stack of the application processor that is coming up: one at a time, below 4 GiB as all of the image.
pub static AP_STACK_TOP: AtomicU64 = AtomicU64::new(0);

/// First port and divisor of the serial port that the entry code itself writes to; zeros where there is none at I/O ports.
const fn early_port() -> (u16, u16) {
    if let Some(uart) = TABLE.board.uart
        && !uart.in_memory
        && let Some(divisor) = uart.divisor()
    {
        return (uart.base as u16, divisor);
    }
    (0, 0)
}

global_asm!(
    include_str!("entry.s"),
    entry_tsc = sym ENTRY_TSC,
    ap_stack_top = sym AP_STACK_TOP,
    stacks = sym STACKS,
    stack_top = const BOOT_STACK_TOP,
    uart = const early_port().0,
    divisor = const early_port().1,
    boot_core_main = sym super::boot_core_main,
    application_core_main = sym super::cores::application_core_main,
    options(att_syntax)
);

unsafe extern "C" {
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
}

/// TSC of the hypervisor's first instruction.
pub fn tsc() -> u64 {
    ENTRY_TSC.load(Ordering::Relaxed)
}

/// The real-mode code in which a started core begins; it may run from any page below 1 MiB.
pub fn trampoline() -> &'static [u8] {
    let (start, end) = (&raw const ap_trampoline, &raw const ap_trampoline_end);
    // SAFETY: the assembly lays the code out between these labels, in read-only memory.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}
