//! Asks every other core for its CPUID leaves: it is started in real mode, answers into its page, and halts.
#![expect(unsafe_code, reason = "starts cores and shares a page with them")]

extern crate alloc;

use alloc::vec::Vec;
use core::arch::global_asm;

use super::physical::write_register;
use crate::machine::{read_msr, write_msr};
use crate::start_up::{self, Signal};

global_asm!(include_str!("cores.s"));

unsafe extern "C" {
    static probe_core_start: u8;
    static probe_core_end: u8;
}

/// Bytes of a page, where a started core begins.
const PAGE: u64 = 4096;
/// Where in the page cores.s finds its orders: how many questions, whether it is done, and the questions.
const COUNT: u64 = 0x100;
const DONE: u64 = 0x104;
const QUESTIONS: u64 = 0x110;
/// A question: leaf, sub-leaf, and room for four registers.
const QUESTION: u64 = 24;

/// Most questions that the page holds.
pub const MOST_QUESTIONS: usize = ((PAGE - QUESTIONS) / QUESTION) as usize;

const APIC_BASE: u32 = 0x1B;
const X2APIC_ENABLED: u64 = 1 << 10;
const X2APIC_COMMAND: u32 = 0x830;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
/// Edge-triggered INIT and start-up, asserted, to a physical id. SDM 3A 11.6.1.
const INIT: u32 = 0x4500;
const STARTUP: u32 = 0x4600;

/// A page below 640 KiB that a core can start in.
pub struct StartPage(u64);

impl StartPage {
    /// The highest usable page of the memory map (start, size, type) that real mode reaches.
    #[must_use]
    pub fn choose(memory: &[(u64, u64, u32)]) -> Option<Self> {
        const USABLE: u32 = 1;
        const CONVENTIONAL_END: u64 = 0xA_0000;
        let page = |(start, size, kind): &(u64, u64, u32)| {
            let end = start.checked_add(*size)?.min(CONVENTIONAL_END) / PAGE * PAGE;
            let page = end.checked_sub(PAGE)?;
            (*kind == USABLE && page >= *start && page >= PAGE).then_some(page)
        };
        memory.iter().filter_map(page).max().map(Self)
    }

    /// What the core with this APIC id answers to the questions (leaf, sub-leaf), in order; `None` when it does not
    /// come up. `tsc_hz` is the clock to wait by. A question beyond [`MOST_QUESTIONS`] is not asked.
    #[must_use]
    pub fn ask(
        &self,
        apic_id: u32,
        questions: &[(u32, u32)],
        tsc_hz: u64,
    ) -> Option<Vec<[u32; 4]>> {
        let questions = questions.get(..MOST_QUESTIONS).unwrap_or(questions);
        self.lay_out(questions);
        let signal = |signal| {
            let command = match signal {
                Signal::Init => INIT,
                Signal::Startup => STARTUP | (self.0 / PAGE) as u32,
            };
            send(apic_id, command)
        };
        let arrived = start_up::start(tsc_hz / 1000, signal, || self.read(DONE) != 0);
        arrived.then(|| (0..questions.len() as u64).map(|number| self.answer(number)).collect())
    }

    fn lay_out(&self, questions: &[(u32, u32)]) {
        let (start, end) = (&raw const probe_core_start, &raw const probe_core_end);
        let length = (end as usize - start as usize).min(COUNT as usize);
        // SAFETY: the page is usable RAM below 640 KiB; all that the boot loader put there was copied; the code lies
        // in front of the orders.
        unsafe { core::ptr::copy_nonoverlapping(start, self.0 as *mut u8, length) };
        self.write(COUNT, questions.len() as u32);
        self.write(DONE, 0);
        for (number, (leaf, sub)) in questions.iter().enumerate() {
            let at = QUESTIONS + number as u64 * QUESTION;
            self.write(at, *leaf);
            self.write(at + 4, *sub);
        }
    }

    fn answer(&self, number: u64) -> [u32; 4] {
        let at = QUESTIONS + number * QUESTION + 8;
        [0, 4, 8, 12].map(|register| self.read(at + register))
    }

    fn write(&self, offset: u64, value: u32) {
        // SAFETY: inside the page, which is RAM that nobody else uses before the core is started.
        unsafe { ((self.0 + offset) as *mut u32).write_volatile(value) };
    }

    fn read(&self, offset: u64) -> u32 {
        // SAFETY: inside the page; the started core writes it, hence volatile.
        unsafe { ((self.0 + offset) as *const u32).read_volatile() }
    }
}

/// Sends an interprocessor interrupt in whichever mode firmware left the APIC; `None` for an id that it cannot name.
fn send(apic_id: u32, command: u32) -> Option<()> {
    let base = read_msr(APIC_BASE);
    if base & X2APIC_ENABLED != 0 {
        // SAFETY: INIT and start-up go to a core that runs nothing of ours; its start page is in place.
        unsafe { write_msr(X2APIC_COMMAND, u64::from(apic_id) << 32 | u64::from(command)) };
        return Some(());
    }
    let apic = base & 0xF_FFFF_F000;
    let id = u32::from(u8::try_from(apic_id).ok().filter(|id| *id != u8::MAX)?);
    // SAFETY: as above; the base register says that the APIC's registers are there.
    unsafe {
        write_register(apic + COMMAND_HIGH, id << 24);
        write_register(apic + COMMAND_LOW, command);
    }
    Some(())
}
