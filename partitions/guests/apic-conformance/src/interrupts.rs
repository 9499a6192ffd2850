//! Delivery: who comes first, who waits for whom, and what a command does.
//!
//! What came is a number: the vectors in the order in which their handlers began, two hexadecimal digits each. The
//! end of a handler that was interrupted shows as its vector's first digit.
#![expect(clippy::unusual_byte_groupings, reason = "a group is what one handler noted")]

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::registers::write_cr8;
use guest_rt::{apic_id, disable_interrupts, enable_interrupts, on_interrupt, on_nmi};

use crate::access::{
    EOI, ESR, ICR, IRR, ISR, LVT_ERROR, PPR, SELF_IPI, SVR, SVR_START, TMR, TPR, read, write,
};
use crate::{Case, case, others};

/// What came.
static CAME: AtomicU64 = AtomicU64::new(0);
/// What a handler noted.
static NOTED: AtomicU64 = AtomicU64::new(0);
/// NMIs that came; in the upper half how deep they were nested at most.
static NMIS: AtomicU64 = AtomicU64::new(0);
static NMI_DEPTH: AtomicU64 = AtomicU64::new(0);

/// Handlers that only note that they ran.
const PLAIN: [(u8, fn(u64)); 5] = [
    (0x41, came::<0x41>),
    (0x52, came::<0x52>),
    (0x71, came::<0x71>),
    (0x91, came::<0x91>),
    (0xA1, came::<0xA1>),
];

/// Handlers that do more.
const SPECIAL: [(u8, fn(u64)); 9] = [
    (0x61, came::<0x61>),
    (0x42, nest::<0x42, 0x61>),
    (0x43, nest::<0x43, 0x52>),
    (0x53, nest::<0x53, 0x52>),
    (0x63, nest::<0x63, 0x41>),
    (0x64, end_early),
    (0x65, again),
    (0x66, look),
    (0x67, look_with_priority),
];

/// Registers the handlers.
pub fn set_up() {
    for (vector, handler) in PLAIN.into_iter().chain(SPECIAL) {
        on_interrupt(vector, handler);
    }
    on_nmi(nmi);
}

/// Takes what is still pending, and forgets what came.
pub fn forget() {
    take_pending();
    for counter in [&CAME, &NOTED, &NMIS, &NMI_DEPTH] {
        counter.store(0, Ordering::Relaxed);
    }
}

/// Lets in what is pending, and returns all that came.
pub fn take_pending() -> u64 {
    enable_interrupts();
    // An instruction between the two, or none would be let in.
    for _ in 0..8 {
        core::hint::spin_loop();
    }
    disable_interrupts();
    CAME.load(Ordering::Relaxed)
}

fn note(digits: u32, what: u64) {
    let before = CAME.load(Ordering::Relaxed);
    CAME.store(before << (digits * 4) | what, Ordering::Relaxed);
}

fn came<const VECTOR: u8>(_: u64) {
    note(2, u64::from(VECTOR));
}

/// Sends another while it is in service, and lets it in.
fn nest<const VECTOR: u8, const OTHER: u8>(_: u64) {
    note(2, u64::from(VECTOR));
    send(OTHER);
    take_pending();
    note(1, u64::from(VECTOR >> 4));
}

/// Ends before it sends: what would have had to wait comes at once.
fn end_early(_: u64) {
    note(2, 0x64);
    write(EOI, 0);
    send(0x41);
    take_pending();
    note(1, 6);
}

/// Requests itself again, once.
fn again(_: u64) {
    if CAME.load(Ordering::Relaxed) == 0 {
        send(0x65);
    }
    note(2, 0x65);
}

/// Notes what is in service and the processor's priority.
fn look(_: u64) {
    note(2, 0x66);
    NOTED.store(read(ISR + 3) << 32 | read(PPR), Ordering::Relaxed);
}

/// Notes the processor's priority under a higher task priority.
fn look_with_priority(_: u64) {
    write(TPR, 0x75);
    NOTED.store(read(PPR), Ordering::Relaxed);
    write(TPR, 0);
}

/// Sends another NMI from within the first, which must wait for the end of this one.
fn nmi() {
    if others::is_other() {
        others::count_nmi();
        return;
    }
    let depth = NMI_DEPTH.fetch_add(1, Ordering::Relaxed) + 1;
    let count = (NMIS.load(Ordering::Relaxed) & 0xF) + 1;
    let deepest = (NMIS.load(Ordering::Relaxed) >> 4).max(depth);
    NMIS.store(deepest << 4 | count, Ordering::Relaxed);
    if count == 1 {
        command(NMI | to(apic_id()));
    }
    NMI_DEPTH.fetch_sub(1, Ordering::Relaxed);
}

pub const ASSERT: u64 = 1 << 14;
pub const LOGICAL: u64 = 1 << 11;
pub const NMI: u64 = ASSERT | 4 << 8;
pub const TO_SELF: u64 = 1 << 18;
pub const TO_ALL: u64 = 2 << 18;
pub const TO_OTHERS: u64 = 3 << 18;

/// Error register: an illegal vector was sent.
const SENT_ILLEGAL: u64 = 1 << 5;

/// A physical destination.
pub const fn to(id: u32) -> u64 {
    (id as u64) << 32
}

/// The logical destination of the CPU with this id. SDM 3A 11.12.10.2.
pub const fn logical(id: u32) -> u64 {
    to(id >> 4 << 16 | 1 << (id & 15))
}

fn send(vector: u8) {
    write(SELF_IPI, u64::from(vector));
}

fn command(value: u64) -> u64 {
    write(ICR, value)
}

/// The rules.
pub const CASES: &[Case] = &[
    case("self-ipi", || after(&[0x61]), 0x61),
    case("requested-is-shown", requested_is_shown, 1 << (0x61 - 0x60)),
    case("edge-is-shown", edge_is_shown, 0),
    case("highest-first", || after(&[0x41, 0x91, 0x61]), 0x91_61_41),
    case("twice-is-once", || after(&[0x41, 0x41]), 0x41),
    case("in-service-can-be-requested-again", || after(&[0x65]), 0x65_65),
    case("in-service-is-shown", in_service, (1 << (0x66 - 0x60)) << 32 | 0x60),
    case("nothing-in-service-behind-it", in_service_behind, 0),
    case("task-priority-counts-in-service", priority_in_service, 0x75),
    case("priority-holds-its-class", || with_priority(0x50, &[0x52, 0x61]), 0x61),
    case("priority-lets-go", priority_lets_go, 0x61_52),
    case("priority-is-of-classes", || with_priority(0x4F, &[0x52, 0x41]), 0x52),
    case("cr8-holds-a-class", cr8_holds, 0x61),
    case("higher-interrupts", || after(&[0x42]), 0x42_61_4),
    case("next-class-interrupts", || after(&[0x43]), 0x43_52_4),
    case("same-class-waits", || after(&[0x53]), 0x53_5_52),
    case("lower-waits", || after(&[0x63]), 0x63_6_41),
    case("ended-early-lets-in", || after(&[0x64]), 0x64_41_6),
    case("end-of-nothing", || write(EOI, 0), 0),
    case("command-to-self", || commanded(TO_SELF | 0x61), 0x61),
    case("command-to-own-id", || commanded(to(apic_id()) | 0x61), 0x61),
    case("command-to-own-logical-id", || commanded(logical(apic_id()) | LOGICAL | 0x61), 0x61),
    case("command-to-all", || commanded(TO_ALL | 0x61), 0x61),
    case("command-to-others", || commanded(TO_OTHERS | 0x61), 0),
    case("command-reads-back", command_reads_back, TO_SELF | ASSERT | 0x61),
    case("nmi-to-own-id", nmi_to_self, 0x12),
    case("switched-off-takes-nothing", switched_off, 0),
    case("switched-off-keeps-requests", switched_off_keeps, 0x61),
    case("illegal-vector-by-self-ipi", || error_of(|| write(SELF_IPI, 5)), SENT_ILLEGAL),
    case("illegal-vector-by-command", || error_of(|| command(TO_SELF | 5)), SENT_ILLEGAL),
    case("error-shows-only-behind-a-write", error_waits, 0),
    case("error-is-cleared-by-a-write", error_clears, 0),
    case("error-interrupts", error_interrupts, 0x71),
    case("error-stays-quiet-when-masked", || after(&[5]), 0),
];

/// What comes once these are requested.
fn after(vectors: &[u8]) -> u64 {
    vectors.iter().for_each(|vector| send(*vector));
    take_pending()
}

fn with_priority(priority: u64, vectors: &[u8]) -> u64 {
    write(TPR, priority);
    let came = after(vectors);
    write(TPR, 0);
    came
}

fn priority_lets_go() -> u64 {
    with_priority(0x50, &[0x52, 0x61]);
    take_pending()
}

fn cr8_holds() -> u64 {
    if write_cr8(5).is_err() {
        return 0;
    }
    after(&[0x52, 0x61])
}

fn requested_is_shown() -> u64 {
    send(0x61);
    read(IRR + 3)
}

fn edge_is_shown() -> u64 {
    send(0x61);
    read(TMR + 3)
}

fn in_service() -> u64 {
    after(&[0x66]);
    NOTED.load(Ordering::Relaxed)
}

fn in_service_behind() -> u64 {
    after(&[0x66]);
    read(ISR + 3) | read(IRR + 3)
}

fn priority_in_service() -> u64 {
    after(&[0x67]);
    NOTED.load(Ordering::Relaxed)
}

fn commanded(value: u64) -> u64 {
    match command(value | ASSERT) {
        0 => take_pending(),
        refused => refused << 32,
    }
}

fn command_reads_back() -> u64 {
    command(TO_SELF | ASSERT | 0x61);
    read(ICR)
}

/// Two, never one within the other.
fn nmi_to_self() -> u64 {
    match command(NMI | to(apic_id())) {
        0 => {
            take_pending();
            NMIS.load(Ordering::Relaxed)
        }
        refused => refused << 32,
    }
}

fn switched_off() -> u64 {
    write(SVR, 0xFF);
    send(0x61);
    write(SVR, SVR_START);
    take_pending()
}

fn switched_off_keeps() -> u64 {
    send(0x61);
    write(SVR, 0xFF);
    write(SVR, SVR_START);
    take_pending()
}

/// Whether the error register says that an illegal vector was sent. The manual lets a self IPI be an illegal vector received as well
/// (SDM 3A 11.5.3), so that bit is left out.
fn error_of(fault: fn() -> u64) -> u64 {
    fault();
    write(ESR, 0);
    read(ESR) & SENT_ILLEGAL
}

fn error_waits() -> u64 {
    send(5);
    read(ESR)
}

fn error_clears() -> u64 {
    send(5);
    write(ESR, 0);
    write(ESR, 0);
    read(ESR)
}

fn error_interrupts() -> u64 {
    write(LVT_ERROR, 0x71);
    after(&[5])
}
