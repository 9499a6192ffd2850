//! One attack on the hypervisor, chosen by the command line.
//!
//! Arguments: `mode=NAME`, a name of [`ATTACKS`] or [`LIVES`]; for some of the latter `other=ID`, the APIC id of a second
//! CPU, and `lead=TICKS`. Where the hypervisor documents a refusal, the guest passes if it saw
//! it; where the partition is to be stopped, the guest gives no verdict. On the bare machine most attacks succeed,
//! so the verdict is fail: that shows that each attack is one.
#![no_std]
#![no_main]

mod apic;
mod lives;
mod sweeps;
mod system;
mod traps;

use guest_rt::hostile::{Fault, GENERAL_PROTECTION};
use guest_rt::{Guest, Verdict, println};

guest_rt::entry!(main);

/// An attack's name and what it does.
type Attack = (&'static str, fn(&Guest) -> Verdict);

/// Every attack.
const ATTACKS: [Attack; 36] = [
    ("icr-init", apic::send_init),
    ("icr-nmi", apic::send_nmi),
    ("icr-smi", apic::send_smi),
    ("icr-startup", apic::send_startup),
    ("icr-logical", apic::send_logical),
    ("icr-allbutself", apic::send_to_all_but_self),
    ("lvt-smi", apic::lvt_smi),
    ("lvt-init", apic::lvt_init),
    ("lvt-extint", apic::lvt_extint),
    ("apic-off", apic::switch_off),
    ("apic-leave-x2apic", apic::leave_x2apic),
    ("tsc-write", system::write_clock),
    ("msr-sweep", sweeps::msrs),
    ("port-sweep", sweeps::ports),
    ("cpuid-sweep", sweeps::cpuid_leaves),
    ("cr0-cd", system::disable_caches),
    ("cr4-vmxe", system::enable_vmx),
    ("vmx-instructions", system::vmx_instructions),
    ("vmcall-from-ring3", system::vmcall_from_ring3),
    ("memory-outside", system::memory_outside),
    ("memory-write-outside", system::memory_write_outside),
    ("schedule-page-write", system::schedule_page_write),
    ("xsetbv-bad", system::bad_extended_state),
    ("mov-dr", system::debug_registers),
    ("wbinvd", system::write_back_caches),
    ("triple-fault", |_| guest_rt::hostile::triple_fault()),
    ("real-mode-fault", |_| guest_rt::hostile::real_mode_fault()),
    ("endless-exceptions", |_| guest_rt::hostile::endless_exceptions()),
    ("endless-loop", |_| guest_rt::hostile::loop_for_ever()),
    ("endless-debug-exceptions", |_| guest_rt::traps::endless_debug_exceptions()),
    ("trap-flag", traps::trap_flag),
    ("int1-in-shadow", traps::int1_in_shadow),
    ("ip-wrap", traps::wrap),
    ("page-sizes", traps::page_sizes),
    ("split-locks", traps::split_locks),
    ("storm", traps::storm),
];

/// Attacks that need more than one life: a restart, for which the partition has the platform of a PC, or a second CPU.
const LIVES: [Attack; 4] = [
    ("pending-restart", lives::pending_restart),
    ("pending-init", lives::pending_init),
    ("race-finish", lives::race_finish),
    ("race-restart", lives::race_restart),
];

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["mode", "other", "lead", "hidden"]);
    let mode = guest.argument("mode").unwrap_or("");
    let Some((name, attack)) = ATTACKS.iter().chain(&LIVES).find(|(name, _)| *name == mode) else {
        let (single, more) = (ATTACKS.map(|(name, _)| name), LIVES.map(|(name, _)| name));
        println!("attack: mode={mode}: write one of {single:?} or {more:?}");
        return Verdict::fail("no such attack");
    };
    println!("attack: {name}");
    attack(guest)
}

/// How an attempt was answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// By #GP.
    Refused,
    /// By another exception.
    OtherFault(u8),
    /// Not at all: it took effect or was dropped.
    Accepted,
}

impl From<Result<(), Fault>> for Answer {
    fn from(result: Result<(), Fault>) -> Self {
        match result {
            Ok(()) => Self::Accepted,
            Err(Fault { vector: GENERAL_PROTECTION, .. }) => Self::Refused,
            Err(Fault { vector, .. }) => Self::OtherFault(vector),
        }
    }
}

/// Judges one attempt: refused by #GP, or without the effect.
fn refused_or_dropped(answer: Answer, took_effect: bool) -> Verdict {
    match (answer, took_effect) {
        (Answer::OtherFault(vector), _) => {
            println!("attack: answered by exception {vector}, not by #GP");
            Verdict::fail("answered by the wrong exception")
        }
        (_, true) => Verdict::fail("the attack took effect"),
        (Answer::Refused, false) => Verdict::pass("refused by #GP"),
        (Answer::Accepted, false) => Verdict::pass("dropped"),
    }
}
