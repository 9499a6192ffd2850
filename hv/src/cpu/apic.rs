//! The local APIC of each core: x2APIC mode, on, every local source masked; and the legacy controllers silenced.
#![expect(
    unsafe_code,
    reason = "writes APIC registers and the ports of the legacy interrupt controllers"
)]

use core::sync::atomic::{AtomicU32, Ordering};

use hv_core::pace;
use hv_defs::apic::{self, delivery, lvt};
use x2apic::lapic::{LocalApic, LocalApicBuilder, TimerDivide, TimerMode};
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::{ApicBase, ApicBaseFlags, Msr};

/// Vectors that are named because the APIC wants names; the sources stay masked.
const TIMER_VECTOR: usize = 0xFD;
const ERROR_VECTOR: usize = 0xFE;
const SPURIOUS_VECTOR: usize = 0xFF;

/// Local sources that a guest of a dedicated core can program. The thermal and the performance-monitoring entry are not among them: guests
/// never write those ([`hv_core::msr`]).
const GUEST_SOURCES: [u32; 4] =
    [apic::LVT_TIMER, apic::LVT_LINT0, apic::LVT_LINT1, apic::LVT_ERROR];
/// Highest LVT entry of an APIC that has the CMCI entry. SDM 3A 11.4.8.
const LAST_LVT_WITH_CMCI: u8 = 6;

/// Spurious-interrupt vector register, vector 0xFF: switched off, as INIT leaves it, and on. SDM 3A 11.9.
const SWITCHED_OFF: u64 = 0xFF;
const SWITCHED_ON: u64 = 0x1FF;

/// Puts this core's APIC into x2APIC mode, on, with every local source masked and nothing in service.
///
/// # Errors
/// A reason when the processor has no x2APIC; the board check told that before.
pub fn init() -> Result<LocalApic, &'static str> {
    let mut apic = LocalApicBuilder::new()
        .timer_vector(TIMER_VECTOR)
        .error_vector(ERROR_VECTOR)
        .spurious_vector(SPURIOUS_VECTOR)
        .timer_mode(TimerMode::OneShot)
        .timer_divide(TimerDivide::Div1)
        .timer_initial(0)
        .build()?;
    // SAFETY: x2APIC is present; interrupts are off on this core, and nothing else uses its APIC. The APIC must be on
    // before x2APIC mode can be entered (SDM 3A 11.12.5).
    unsafe {
        let (base, flags) = ApicBase::read();
        if !flags.contains(ApicBaseFlags::LAPIC_ENABLE) {
            ApicBase::write(base, flags | ApicBaseFlags::LAPIC_ENABLE);
        }
        apic.enable();
        apic.disable_timer();
    }
    // `enable` leaves the timer and both pins unmasked; the timer is stopped, so nothing came in between.
    mask_local_sources(&apic);
    finish_in_service();
    discard_pending();
    Ok(apic)
}

/// Lets the timer of this core's APIC interrupt once for each count that is written, divided by 1: a time-shared core's, where the
/// processor's virtualization has no timer. SDM 3A 11.5.4.
///
/// Measures the timer's rate first: it writes a count and waits for the request in IRR. The caller takes that interrupt.
pub fn use_one_shot_timer() {
    const DIVIDE_BY_1: u64 = 0b1011;
    const COUNTS: u64 = 10_000;
    /// Far beyond the slowest timer there is.
    const PATIENCE: u64 = COUNTS << 12;
    write(apic::DIVIDE_CONFIGURATION, DIVIDE_BY_1);
    write(apic::LVT_TIMER, TIMER_VECTOR as u64);
    let begun = super::tsc();
    write(apic::INITIAL_COUNT, COUNTS);
    let mut ticks = 0;
    while !is_timer_requested() && ticks < PATIENCE {
        ticks = super::tsc() - begun;
    }
    TIMER_SHIFT.fetch_max(pace::timer_shift(COUNTS, ticks), Ordering::Relaxed);
}

/// By how much the timers of time-shared cores count slower than the TSC, as a power of two: the slowest core's.
static TIMER_SHIFT: AtomicU32 = AtomicU32::new(0);

fn is_timer_requested() -> bool {
    let vector = TIMER_VECTOR as u32;
    read(apic::IRR + vector / 32) >> (vector % 32) & 1 != 0
}

/// By how much the timer counts slower than the TSC: one for each 2^shift ticks, so that it never ends late. Behind
/// [`use_one_shot_timer`].
pub fn timer_shift() -> u32 {
    TIMER_SHIFT.load(Ordering::Relaxed)
}

/// Puts this core's APIC, in x2APIC mode, into the state behind INIT, as far as software can: every source that a guest can program is
/// masked, the timer is disarmed, no interrupt is pending or in service, and the APIC is switched off. SDM 3A 11.4.7.3.
pub fn reset() {
    forget_interrupts();
    // Switched off, the APIC takes nothing but NMI, INIT and start-up interrupts. SDM 3A 11.4.7.2.
    write(apic::SVR, SWITCHED_OFF);
    write(apic::ESR, 0);
}

/// The same, but the APIC stays switched on, as firmware leaves that of the boot processor.
pub fn reset_to_enabled() {
    forget_interrupts();
    write(apic::ESR, 0);
}

/// Silences every source and drops what the guest left pending or in service. The order matters:
/// 1. Masked sources raise nothing new.
/// 2. An APIC that is switched off keeps its requests (SDM 3A 11.4.7.2), so it is switched on. This also sets the spurious vector, of
///    which the guest may have made an exception's.
/// 3. Interrupts in service and the task priority hold others back, so both are cleared before requests are taken.
fn forget_interrupts() {
    GUEST_SOURCES.into_iter().for_each(|source| write(source, lvt::MASKED));
    // A count of 0 stops the timer. A deadline was disarmed above, when the entry left that mode. SDM 3A 11.5.4, 11.5.4.1.
    [apic::INITIAL_COUNT, apic::DIVIDE_CONFIGURATION]
        .into_iter()
        .for_each(|register| write(register, 0));
    write(apic::SVR, SWITCHED_ON);
    write(apic::TPR, 0);
    finish_in_service();
    discard_pending();
}

/// Writes a register of this core's APIC, which is in x2APIC mode.
fn write(register: u32, value: u64) {
    // SAFETY: the callers pass registers that every x2APIC has, with values without reserved bits. They mask, stop or end sources of
    // this core's own, and the hypervisor waits for none of them.
    unsafe { Msr::new(register).write(value) };
}

/// Reads a register of this core's APIC, which is in x2APIC mode.
fn read(register: u32) -> u64 {
    // SAFETY: the callers pass registers that every x2APIC has; reading has no effect.
    unsafe { Msr::new(register).read() }
}

fn mask_local_sources(apic: &LocalApic) {
    // SAFETY: only reads the version register.
    let last = unsafe { apic.max_lvt_entry() };
    let cmci = (last >= LAST_LVT_WITH_CMCI).then_some(apic::LVT_CMCI);
    let machine = [apic::LVT_THERMAL, apic::LVT_PERFORMANCE].into_iter().chain(cmci);
    for register in GUEST_SOURCES.into_iter().chain(machine) {
        let value = read(register);
        // Firmware that manages heat in system-management mode keeps its interrupt: masked, it would not see the processor overheat.
        if register != apic::LVT_THERMAL || value & delivery::MASK != delivery::SMI {
            write(register, value | lvt::MASKED);
        }
    }
    // Priority 0 accepts every vector; writing the error status re-arms it.
    write(apic::TPR, 0);
    write(apic::ESR, 0);
}

/// Ends the interrupts in service, at most one a vector: they would block those of lower priority.
fn finish_in_service() {
    for _ in 0..VECTORS {
        if (0..WORDS).all(|word| read(apic::ISR + word) == 0) {
            return;
        }
        end_of_interrupt();
    }
}

/// Vectors, and registers of 32 bits that hold one bit for each.
const VECTORS: u32 = 256;
const WORDS: u32 = 8;

/// Drops every pending interrupt. An interrupt request can only be cleared by taking it, so the core takes each and ends it. The vectors 16
/// to 31, which exceptions have too, are told apart by [`take_in_service`].
///
/// Ends: each round takes at least one request, and twice as many rounds as there are vectors leave room for what other vCPUs of the
/// partition send meanwhile. A request that is still there behind them came from a sender that runs.
fn discard_pending() {
    for _ in 0..2 * VECTORS {
        if (0..WORDS).all(|word| read(apic::IRR + word) == 0) {
            return;
        }
        // The instruction after STI still runs without interrupts. SDM 3A 7.8.1.
        x86_64::instructions::interrupts::enable();
        x86_64::instructions::nop();
        x86_64::instructions::nop();
        x86_64::instructions::interrupts::disable();
    }
}

/// Ends the interrupt of `vector` if that is in service; returns whether it was. `vector` is below 32. Only in x2APIC mode.
pub fn take_in_service(vector: u64) -> bool {
    let is_in_service = read(apic::ISR) >> (vector & 31) & 1 != 0;
    if is_in_service {
        end_of_interrupt();
    }
    is_in_service
}

/// Ends the interrupt of the highest priority in service.
pub extern "C" fn end_of_interrupt() {
    write(apic::EOI, 0);
}

/// Masks both legacy interrupt controllers.
pub fn silence_legacy_controllers() {
    const DATA_PORTS: [u16; 2] = [0x21, 0xA1];
    for port in DATA_PORTS {
        // SAFETY: the mask registers of the two 8259s, which every board of this kind decodes.
        unsafe { Port::<u8>::new(port).write(0xFF) };
    }
}

/// Bytes of an I/O APIC's registers, and the bound on which they begin. Intel 82093AA 3.0.
pub const IO_APIC_SIZE: u64 = 0x20;
pub const IO_APIC_ALIGNMENT: u64 = 16;

/// Masks every pin of the I/O APIC at this physical address: a pin that firmware left routed would interrupt a guest that owns no
/// device. Only while the boot tables map the first 4 GiB. Returns whether an I/O APIC answers there. Intel 82093AA 3.1, 3.2.
pub fn mask_io_apic(address: u32) -> bool {
    const VERSION: u32 = 1;
    const REDIRECTION: u32 = 0x10;
    const MASKED: u32 = 1 << 16;
    const DATA: usize = 0x10;
    const NOBODY: u32 = u32::MAX;
    let select = address as usize as *mut u32;
    let data = (address as usize + DATA) as *mut u32;
    // SAFETY: firmware's MADT says that an I/O APIC answers there, the address is aligned, and the memory map has no RAM
    // there; the boot tables map it, uncached by the MTRRs; nobody waits for any of its pins.
    unsafe {
        select.write_volatile(VERSION);
        let version = data.read_volatile();
        if version == NOBODY {
            return false;
        }
        for pin in 0..=(version >> 16 & 0xFF) {
            select.write_volatile(REDIRECTION + 2 * pin);
            data.write_volatile(MASKED);
        }
    }
    true
}

/// Orders earlier stores before a following x2APIC command, which a plain MSR write does not. SDM 3A 11.12.3.
pub fn fence() {
    // SAFETY: fences only order.
    unsafe { core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags)) };
}
