//! Attacks that try everything: all MSRs, all ports, all CPUID leaves.

use guest_rt::hostile::{self, GENERAL_PROTECTION, Width};
use guest_rt::{Guest, Verdict, cpuid, println, tsc};

/// MSRs that a sweep leaves alone, because the guest owns them and its own life hangs on them: the local APIC (it has attacks of
/// its own), EFER.
const OWN_MSRS: [core::ops::RangeInclusive<u32>; 2] = [0x800..=0x8FF, 0xC000_0080..=0xC000_0080];

/// Reads every MSR and writes it back as it was; writes zero to those that cannot be read.
pub fn msrs(_: &Guest) -> Verdict {
    let (mut read, mut written, mut wrong) = (0, 0, 0);
    for index in (0..0x2000).chain(0xC000_0000..0xC000_2000) {
        if OWN_MSRS.iter().any(|own| own.contains(&index)) {
            continue;
        }
        let found = hostile::read_msr(index);
        let answer = hostile::write_msr(index, found.unwrap_or(0));
        read += u32::from(found.is_ok());
        written += u32::from(answer.is_ok());
        wrong += u32::from(
            [found.err(), answer.err()]
                .into_iter()
                .flatten()
                .any(|it| it.vector != GENERAL_PROTECTION),
        );
    }
    println!(
        "attack: {read} MSRs could be read, {written} written; {wrong} answered other than by #GP"
    );
    match wrong {
        0 => Verdict::pass("every MSR was answered, by a value or by #GP"),
        _ => Verdict::fail("answered by the wrong exception"),
    }
}

/// Reads every port, then writes every port. The hypervisor must show an empty bus.
pub fn ports(_: &Guest) -> Verdict {
    let widths = [Width::Byte, Width::Word, Width::Double];
    for port in 0..=u16::MAX {
        for width in widths {
            match hostile::port_in(port, width) {
                Ok(value) if value == width.all_ones() => {}
                answer => {
                    println!("attack: port {port:#x}, {width:?}: {answer:?}");
                    return Verdict::fail("a port is not closed");
                }
            }
        }
    }
    for port in 0..=u16::MAX {
        for width in widths {
            if let Err(fault) = hostile::port_out(port, width, 0) {
                println!("attack: port {port:#x}, {width:?}: {fault:?}");
                return Verdict::fail("a write to a port is not ignored");
            }
        }
    }
    Verdict::pass("every port reads all ones and ignores writes")
}

/// Reads all leaves that exist, and then some. What the hypervisor cannot give must not be offered.
pub fn cpuid_leaves(_: &Guest) -> Verdict {
    let begin = tsc();
    for leaf in (0..0x40).chain(0x4000_0000..0x4000_0100).chain(0x8000_0000..0x8000_0040) {
        for sub in 0..8 {
            core::hint::black_box(cpuid(leaf, sub));
        }
    }
    println!("attack: 3,072 CPUIDs in {} ticks", tsc() - begin);
    let features = cpuid(1, 0).ecx;
    let forbidden = [("MONITOR", 3), ("VMX", 5), ("SMX", 6)];
    for (name, bit) in forbidden {
        if features >> bit & 1 == 1 {
            println!("attack: CPUID offers {name}");
            return Verdict::fail("CPUID offers what a guest cannot have");
        }
    }
    Verdict::pass("CPUID offers nothing that a guest cannot have")
}
