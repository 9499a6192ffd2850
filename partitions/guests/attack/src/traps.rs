//! Attacks by debug exceptions, odd code and slow instructions.

use guest_rt::hostile::Fault;
use guest_rt::traps::{self, UNDER_TRAP_FLAG};
use guest_rt::{Guest, Verdict, cpuid, println};

const DEBUG: u8 = 1;
const GENERAL_PROTECTION: u8 = guest_rt::hostile::GENERAL_PROTECTION;
const INVALID_OPCODE: u8 = guest_rt::hostile::INVALID_OPCODE;
const ALIGNMENT_CHECK: u8 = 17;
/// Bytes of a large page, which is what the attacks on translations need.
const REGION: u64 = 2 << 20;
/// How often a slow instruction is executed.
const STORM: u32 = 5_000;

/// Steps over what the hypervisor answers, refuses or drops.
pub fn trap_flag(_: &Guest) -> Verdict {
    let mut verdict = Verdict::pass("each step was trapped or refused");
    for (name, attempt) in UNDER_TRAP_FLAG {
        match attempt() {
            Err(Fault { vector: DEBUG | GENERAL_PROTECTION | INVALID_OPCODE, .. }) => {}
            answer => {
                println!("attack: {name}: {answer:?}");
                verdict = Verdict::fail("a step was neither trapped nor refused");
            }
        }
    }
    verdict
}

/// INT1 in the shadow of a MOV SS on a breakpoint.
pub fn int1_in_shadow(_: &Guest) -> Verdict {
    for stepping in [false, true] {
        let answer = traps::int1_in_shadow(stepping);
        if !matches!(answer, Err(Fault { vector: DEBUG, .. })) {
            println!("attack: stepping {stepping}: {answer:?}");
            return Verdict::fail("answered otherwise than by a debug exception");
        }
    }
    Verdict::pass("answered by a debug exception")
}

/// Lets the instruction pointer wrap behind an instruction that the hypervisor answers.
pub fn wrap(guest: &Guest) -> Verdict {
    let Some(region) = region(guest) else {
        return Verdict::fail("too little memory");
    };
    traps::wrap_instruction_pointer(region);
    Verdict::pass("the instruction pointer wrapped")
}

/// Changes the size of the page that it executes.
pub fn page_sizes(guest: &Guest) -> Verdict {
    let Some(region) = region(guest) else {
        return Verdict::fail("too little memory");
    };
    traps::change_page_sizes(region, u64::from(STORM));
    Verdict::pass("pages changed their size")
}

/// A whole large page of the guest's own.
fn region(guest: &Guest) -> Option<u64> {
    let (start, size) = guest.spare_memory();
    let region = start.next_multiple_of(REGION);
    (region + REGION <= start + size).then_some(region)
}

/// Locks the bus across two cache lines, again and again.
pub fn split_locks(_: &Guest) -> Verdict {
    let wrong = (0..STORM)
        .map(|_| traps::split_lock())
        .find(|answer| !matches!(answer, Ok(()) | Err(Fault { vector: ALIGNMENT_CHECK, .. })));
    match wrong {
        None => Verdict::pass("carried out, or refused by #AC"),
        Some(answer) => {
            println!("attack: {answer:?}");
            Verdict::fail("answered by the wrong exception")
        }
    }
}

/// Asks for random numbers and empties caches, as fast as it can.
pub fn storm(guest: &Guest) -> Verdict {
    const RDRAND: u32 = 1 << 30;
    const CLFLUSH: u32 = 1 << 19;
    let features = cpuid(1, 0);
    let (start, _) = guest.spare_memory();
    for _ in 0..STORM {
        if features.ecx & RDRAND != 0 && traps::random_number().is_err() {
            return Verdict::fail("RDRAND is offered and refused");
        }
        if features.edx & CLFLUSH != 0 && traps::flush_line(start).is_err() {
            return Verdict::fail("CLFLUSH is offered and refused");
        }
    }
    Verdict::pass("went on through random numbers and flushes")
}
