//! Attacks through the local APIC.

use guest_rt::hostile::{self, IpiKind};
use guest_rt::{Guest, Verdict, apic_id, println};

use crate::{Answer, refused_or_dropped};

const APIC_BASE: u32 = 0x1B;
const APIC_ENABLE: u64 = 1 << 11;
const APIC_X2APIC: u64 = 1 << 10;
const LVT_LINT0: u32 = 0x835;
/// APIC ids that are attacked; the guest's own is left out.
const TARGETS: u32 = 16;
const LOGICAL_DESTINATION: u64 = 1 << 11;
const ASSERT: u64 = 1 << 14;
const ALL_BUT_SELF: u64 = 3 << 18;
/// Delivery mode NMI: the one whose effect on a neighbour cannot be overlooked.
const NMI: u64 = 4 << 8;

pub fn send_init(_: &Guest) -> Verdict {
    send_to_others(IpiKind::Init)
}

pub fn send_nmi(_: &Guest) -> Verdict {
    send_to_others(IpiKind::Nmi)
}

pub fn send_smi(_: &Guest) -> Verdict {
    send_to_others(IpiKind::Smi)
}

pub fn send_startup(_: &Guest) -> Verdict {
    send_to_others(IpiKind::Startup(8))
}

pub fn send_logical(_: &Guest) -> Verdict {
    judge([hostile::write_interrupt_command(
        0xFFFF_FFFF << 32 | LOGICAL_DESTINATION | ASSERT | NMI,
    )])
}

pub fn send_to_all_but_self(_: &Guest) -> Verdict {
    judge([hostile::write_interrupt_command(ALL_BUT_SELF | ASSERT | NMI)])
}

fn send_to_others(kind: IpiKind) -> Verdict {
    let own = apic_id();
    judge(
        (0..TARGETS).filter(|target| *target != own).map(|target| hostile::send_ipi(target, kind)),
    )
}

/// Counts the answers. Whether a dropped one really did nothing, only the targets can tell: they are other
/// partitions, with verdicts of their own.
fn judge(answers: impl IntoIterator<Item = Result<(), hostile::Fault>>) -> Verdict {
    let (mut refused, mut silent, mut other) = (0, 0, 0);
    for answer in answers {
        match Answer::from(answer) {
            Answer::Refused => refused += 1,
            Answer::Accepted => silent += 1,
            Answer::OtherFault(_) => other += 1,
        }
    }
    println!(
        "attack: {refused} refused by #GP, {silent} without an answer, {other} by another exception"
    );
    match (silent, other) {
        (_, 1..) => Verdict::fail("answered by the wrong exception"),
        (0, _) => Verdict::pass("refused by #GP"),
        _ => Verdict::pass("dropped, if the neighbours saw nothing"),
    }
}

pub fn lvt_smi(_: &Guest) -> Verdict {
    lvt_delivery_mode(2)
}

pub fn lvt_init(_: &Guest) -> Verdict {
    lvt_delivery_mode(5)
}

pub fn lvt_extint(_: &Guest) -> Verdict {
    lvt_delivery_mode(7)
}

fn lvt_delivery_mode(mode: u64) -> Verdict {
    let answer = hostile::write_msr(LVT_LINT0, mode << 8).into();
    let stuck = hostile::read_msr(LVT_LINT0).is_ok_and(|value| value >> 8 & 7 == mode);
    refused_or_dropped(answer, stuck)
}

pub fn switch_off(_: &Guest) -> Verdict {
    change_mode(0)
}

pub fn leave_x2apic(_: &Guest) -> Verdict {
    change_mode(APIC_ENABLE)
}

fn change_mode(mode: u64) -> Verdict {
    let both = APIC_ENABLE | APIC_X2APIC;
    let Ok(before) = hostile::read_msr(APIC_BASE) else {
        return Verdict::fail("APIC_BASE cannot be read");
    };
    let answer = hostile::write_msr(APIC_BASE, before & !both | mode).into();
    let changed = !hostile::read_msr(APIC_BASE).is_ok_and(|after| after == before);
    refused_or_dropped(answer, changed)
}
