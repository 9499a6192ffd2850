//! Attacks through control registers, the clock, memory and privileged instructions.

use bulkhead_table::abi::status;
use guest_rt::hostile::{self, Fault, GENERAL_PROTECTION, INVALID_OPCODE};
use guest_rt::{Guest, Page, Verdict, cpuid, println, tsc};

use crate::{Answer, refused_or_dropped};

const TIME_STAMP_COUNTER: u32 = 0x10;
const TSC_ADJUST: u32 = 0x3B;
const CR0_CACHE_DISABLE: u64 = 1 << 30;
const CR4_VMXE: u64 = 1 << 13;
const CR4_OSXSAVE: u64 = 1 << 18;
const CPUID_XSAVE: u32 = 1 << 26;

/// Sets the clock back, in both ways that there are.
pub fn write_clock(_: &Guest) -> Verdict {
    let before = tsc();
    let direct = Answer::from(hostile::write_msr(TIME_STAMP_COUNTER, 0));
    let set_back = tsc() < before;
    let adjust = Answer::from(hostile::write_msr(TSC_ADJUST, (before / 2).wrapping_neg()));
    let adjusted = tsc() < before;
    match (refused_or_dropped(direct, set_back), refused_or_dropped(adjust, adjusted)) {
        (first, second) if first == second => first,
        (_, _) if set_back || adjusted => Verdict::fail("the clock was changed"),
        _ => Verdict::pass("refused by #GP or dropped"),
    }
}

/// Switches the caches off, which slows a whole package down.
pub fn disable_caches(_: &Guest) -> Verdict {
    let before = hostile::read_cr0();
    let answer = Answer::from(hostile::write_cr0(before | CR0_CACHE_DISABLE));
    println!("attack: CR0.CD reads {}", hostile::read_cr0() >> 30 & 1);
    let restored = hostile::write_cr0(before);
    match (answer, restored) {
        (Answer::OtherFault(_), _) => Verdict::fail("answered by the wrong exception"),
        (_, Err(_)) => Verdict::fail("CR0 could not be written back"),
        // Whether the caches stayed on cannot be seen from here; the hypervisor owns the bit.
        _ => Verdict::pass("went on after CR0.CD"),
    }
}

/// Switches VMX on.
pub fn enable_vmx(_: &Guest) -> Verdict {
    let answer = hostile::write_cr4(hostile::read_cr4() | CR4_VMXE).into();
    refused_or_dropped(answer, hostile::read_cr4() & CR4_VMXE != 0)
}

/// Tries every instruction of VMX. Without CR4.VMXE each is an invalid opcode.
pub fn vmx_instructions(_: &Guest) -> Verdict {
    let mut wrong = 0;
    for (name, attempt) in hostile::VMX_INSTRUCTIONS {
        let answer = attempt();
        if !matches!(answer, Err(Fault { vector: INVALID_OPCODE, .. })) {
            println!("attack: {name}: {answer:?} instead of #UD");
            wrong += 1;
        }
    }
    match wrong {
        0 => Verdict::pass("every instruction of VMX is invalid"),
        _ => Verdict::fail("an instruction of VMX was not answered by #UD"),
    }
}

/// Finishes the partition from ring 3, where an application would run.
pub fn vmcall_from_ring3(_: &Guest) -> Verdict {
    match hostile::vmcall_from_ring3(bulkhead_table::abi::call::FINISH) {
        Ok(status::DENIED) => Verdict::pass("denied"),
        answer => {
            println!("attack: {answer:x?}");
            Verdict::fail("a hypercall from ring 3 was not denied")
        }
    }
}

/// Reads behind the guest's memory.
pub fn memory_outside(guest: &Guest) -> Verdict {
    let answer = hostile::read_memory(behind_memory(guest));
    println!("attack: {answer:x?}");
    Verdict::fail("the partition was not stopped")
}

/// Writes behind the guest's memory.
pub fn memory_write_outside(guest: &Guest) -> Verdict {
    let answer = hostile::write_memory(behind_memory(guest), 0);
    println!("attack: {answer:x?}");
    Verdict::fail("the partition was not stopped")
}

/// Writes its own windows into the page that tells them.
pub fn schedule_page_write(_: &Guest) -> Verdict {
    let Some(page) = Page::find() else {
        return Verdict::pass("there is no schedule page on this core");
    };
    let answer = hostile::write_memory(page.address(), 0);
    println!("attack: {answer:x?}");
    Verdict::fail("the partition was not stopped")
}

fn behind_memory(guest: &Guest) -> u64 {
    let (start, size) = guest.spare_memory();
    start + size
}

/// Writes values to XCR0 that the CPU itself does not take.
pub fn bad_extended_state(_: &Guest) -> Verdict {
    if cpuid(1, 0).ecx & CPUID_XSAVE == 0 {
        return must_be(
            INVALID_OPCODE,
            &[("XCR0=1 without XSAVE", hostile::write_extended_control(0, 1))],
        );
    }
    if let Err(fault) = hostile::write_cr4(hostile::read_cr4() | CR4_OSXSAVE) {
        println!("attack: CR4.OSXSAVE: {fault:?}, though CPUID offers XSAVE");
        return Verdict::fail("CR4.OSXSAVE is refused");
    }
    must_be(
        GENERAL_PROTECTION,
        &[
            ("XCR0=0 (x87 off)", hostile::write_extended_control(0, 0)),
            ("XCR0=5 (AVX without SSE)", hostile::write_extended_control(0, 5)),
            ("XCR0 bit 63", hostile::write_extended_control(0, 1 << 63 | 1)),
            ("XCR1", hostile::write_extended_control(1, 1)),
        ],
    )
}

fn must_be(vector: u8, answers: &[(&str, Result<(), Fault>)]) -> Verdict {
    for (what, answer) in answers {
        if !matches!(answer, Err(fault) if fault.vector == vector) {
            println!("attack: {what}: {answer:?} instead of exception {vector}");
            return Verdict::fail("answered other than by the exception of the manual");
        }
    }
    Verdict::pass("answered by the exception of the manual")
}

/// Uses the debug registers, which are the guest's own but not in the VMCS.
pub fn debug_registers(_: &Guest) -> Verdict {
    let values = [0x1111, 0x2222, 0x3333, 0x4444];
    match hostile::exchange_debug_addresses(values) {
        Ok(read) if read == values => Verdict::pass("the debug registers are the guest's own"),
        answer => {
            println!("attack: {answer:x?}");
            Verdict::fail("the debug registers do not hold what was written")
        }
    }
}

/// Throws the caches away, again and again.
pub fn write_back_caches(_: &Guest) -> Verdict {
    let refused = (0..100).filter(|_| hostile::write_back_caches().is_err()).count();
    println!("attack: {refused} of 100 refused");
    Verdict::pass("went on after WBINVD")
}
