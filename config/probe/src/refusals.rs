//! Why the compiler refuses a board as the probe writes it. A test holds these against the compiler's own words, code by code.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::board::Board;
use crate::memory::{self, HYPERVISOR_START};
use crate::toml::size_text;

/// What the hypervisor's range must hold besides the staged images: its own image, stacks, tables and rings.
pub const HYPERVISOR_RESERVE: u64 = 8 << 20;
/// The hypervisor's range that is proposed where there is room.
const PROPOSED: u64 = 31 << 20;
/// What is left to partitions where there is little room: one on a bound of a large page.
const LEAST_PARTITION: u64 = 4 << 20;
/// The least that is staged: a guest of one page.
const LEAST_IMAGE: u64 = 1 << 20;

/// A reason for which the compiler refuses the board, or the hypervisor the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The compiler's code for it.
    pub code: &'static str,
    /// What is wrong, a sentence without its full stop.
    pub why: String,
    /// What to do, a sentence without its full stop.
    pub remedy: &'static str,
}

/// Bytes that the board file gives the hypervisor, from 1 MiB on.
pub(crate) fn hypervisor_size(board: &Board) -> u64 {
    let room = memory::room_at_start(&board.memory);
    let wanted = if room == 0 { PROPOSED } else { room.min(PROPOSED) };
    if memory::holds_a_partition(&board.memory, wanted) {
        return wanted;
    }
    let smaller = room.saturating_sub(LEAST_PARTITION);
    if smaller >= HYPERVISOR_RESERVE + LEAST_IMAGE { smaller } else { wanted }
}

/// All of them.
pub(crate) fn of(board: &Board) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut refuse = |code, why: String, remedy| refusals.push(Refusal { code, why, remedy });
    if board.clock.is_none() {
        let remedy =
            "write what the kernel or the data sheet says into [clock], and the choices beside it";
        refuse("BH0104", "the time-stamp counter could not be measured".into(), remedy);
    }
    if board.cores.is_empty() {
        refuse("BH0104", "no core could be asked".into(), "boot the probe image instead");
    }
    if board.pm_timer.is_none() && board.fadt_read {
        let why = "firmware's FADT names no PM timer at an I/O port, against which the hypervisor measures its clock";
        let remedy = "look for a newer firmware, or for a switch of the PM timer (ACPI timer) in its set-up, and probe again; else choose another board";
        refuse("BH0238", why.into(), remedy);
    }
    memory(board, &mut refuse);
    abilities(board, &mut refuse);
    refusals
}

fn memory(board: &Board, refuse: &mut impl FnMut(&'static str, String, &'static str)) {
    let size = hypervisor_size(board);
    let room = memory::room_at_start(&board.memory);
    if board.memory.is_empty() {
        let remedy = "run the probe as root, or boot its image";
        refuse("BH0104", "no RAM above 1 MiB could be read".into(), remedy);
    } else if room < size {
        let remedy = "choose another board, or another kind of firmware (BIOS or UEFI) in its set-up: the hypervisor is linked at 1 MiB";
        refuse(
            "BH0204",
            format!(
                "the machine has no RAM at {HYPERVISOR_START:#x}, where the hypervisor is linked"
            ),
            remedy,
        );
    } else {
        if size < HYPERVISOR_RESERVE + LEAST_IMAGE {
            let why = format!(
                "the RAM at {HYPERVISOR_START:#x} ends after {}, and the hypervisor needs {} and room for guest images",
                size_text(room),
                size_text(HYPERVISOR_RESERVE)
            );
            refuse(
                "BH0205",
                why,
                "choose another board, or another kind of firmware (BIOS or UEFI) in its set-up",
            );
        }
        if !memory::holds_a_partition(&board.memory, size) {
            let why = "behind the hypervisor no RAM is left for a partition".to_string();
            refuse("BH0503", why, "fit more memory");
        }
    }
}

fn abilities(board: &Board, refuse: &mut impl FnMut(&'static str, String, &'static str)) {
    let empty = |list: &[&str]| list.is_empty();
    if empty(&board.abilities) || board.vt_x.as_deref().is_some_and(empty) {
        let remedy = "boot the probe image, which asks the processor itself";
        refuse("BH0116", "the processor tells no ability that is known here".into(), remedy);
    }
    let lacking = board.lacking();
    if !lacking.is_empty() {
        let why =
            format!("the hypervisor needs `{}`, which this machine lacks", lacking.join("`, `"));
        let remedy = "look in the firmware's set-up whether it can be switched on (VT-x, AMD-V, x2APIC, no-execute), and probe again; else choose another board. Where only `invariant-tsc` is missing and the counter is known to run at one rate all the same, as in an emulator, write `vouched = true` in [clock]";
        refuse("BH0236", why, remedy);
    }
}
