//! The local APIC of each core: x2APIC mode, on, every local source masked; and the legacy controllers silenced.
#![expect(
    unsafe_code,
    reason = "writes APIC registers and the ports of the legacy interrupt controllers"
)]

use x2apic::lapic::{LocalApic, LocalApicBuilder, TimerDivide, TimerMode};
use x86_64::instructions::port::Port;
use x86_64::registers::model_specific::{ApicBase, ApicBaseFlags, Msr};

/// Vectors that are named because the APIC wants names; the sources stay masked.
const TIMER_VECTOR: usize = 0xFD;
const ERROR_VECTOR: usize = 0xFE;
const SPURIOUS_VECTOR: usize = 0xFF;

/// x2APIC registers as MSRs. SDM 3A table 11-6.
const TASK_PRIORITY: u32 = 0x808;
const IN_SERVICE: u32 = 0x810;
const REQUESTED: u32 = 0x820;
const END_OF_INTERRUPT: u32 = 0x80B;
const ERROR_STATUS: u32 = 0x828;
const LVT_CMCI: u32 = 0x82F;
/// Timer, thermal, performance counters, LINT0, LINT1, error.
const LVT: [u32; 6] = [0x832, 0x833, 0x834, 0x835, 0x836, 0x837];
const MASKED: u64 = 1 << 16;
/// Highest LVT entry of an APIC that has the CMCI entry. SDM 3A 11.4.8.
const LAST_LVT_WITH_CMCI: u8 = 6;

/// Puts this core's APIC into x2APIC mode, on, with every local source masked and nothing in service.
///
/// # Errors
/// A reason when the processor has no x2APIC; the board check told that before.
pub fn init() -> Result<LocalApic, &'static str> {
    let mut apic = LocalApicBuilder::new()
        .timer_vector(TIMER_VECTOR)
        .error_vector(ERROR_VECTOR)
        .spurious_vector(SPURIOUS_VECTOR)
        .timer_mode(TimerMode::TscDeadline)
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
    // `enable` leaves the timer and both pins unmasked; the deadline is disarmed, so nothing came in between.
    mask_local_sources(&apic);
    finish_in_service();
    discard_pending();
    Ok(apic)
}

/// Puts this core's APIC, in x2APIC mode, into the state behind INIT, as far as software can: every local source masked and cleared,
/// nothing pending, timer disarmed, disabled. SDM 3A 11.4.7.3.
pub fn reset() {
    const SPURIOUS: u32 = 0x80F;
    const SPURIOUS_RESET: u64 = 0xFF;
    const TIMER: [u32; 3] = [0x838, 0x83E, 0x6E0];
    for register in LVT {
        // SAFETY: masking a source of this core's own has no other effect.
        unsafe { Msr::new(register).write(MASKED) };
    }
    // SAFETY: the timer's count, divider and deadline take 0, which stops it; priority 0 accepts every vector.
    unsafe {
        TIMER.into_iter().for_each(|register| Msr::new(register).write(0));
        Msr::new(TASK_PRIORITY).write(0);
    }
    finish_in_service();
    discard_pending();
    // SAFETY: disabled, the APIC takes nothing but NMI, INIT and start-up interrupts. SDM 3A 11.4.7.2.
    unsafe {
        Msr::new(SPURIOUS).write(SPURIOUS_RESET);
        Msr::new(ERROR_STATUS).write(0);
    }
}

/// The same, and then as firmware leaves the APIC of the boot processor: enabled. It is enabled ahead of it, too: disabled, it keeps
/// what is pending. SDM 3A 11.4.7.2.
pub fn reset_to_enabled() {
    const SPURIOUS: u32 = 0x80F;
    const ENABLED: u64 = 0x1FF;
    // SAFETY: every local source is masked, or will be in a moment, by which nothing but what is pending already comes, to handlers that end it.
    unsafe { Msr::new(SPURIOUS).write(ENABLED) };
    reset();
    // SAFETY: every local source is masked.
    unsafe { Msr::new(SPURIOUS).write(ENABLED) };
}

fn mask_local_sources(apic: &LocalApic) {
    // SAFETY: only reads the version register.
    let last = unsafe { apic.max_lvt_entry() };
    let cmci = (last >= LAST_LVT_WITH_CMCI).then_some(LVT_CMCI);
    for register in LVT.into_iter().chain(cmci) {
        let mut register = Msr::new(register);
        // SAFETY: each of these registers exists (the CMCI entry by the version), and masking a source that nobody
        // here waits for has no other effect.
        unsafe {
            let value = register.read();
            register.write(value | MASKED);
        }
    }
    // SAFETY: priority 0 accepts every vector; writing the error status re-arms it.
    unsafe {
        Msr::new(TASK_PRIORITY).write(0);
        Msr::new(ERROR_STATUS).write(0);
    }
}

/// Ends interrupts that firmware left in service, so that they do not block a guest's. At most one a vector.
fn finish_in_service() {
    for _ in 0..256 {
        // SAFETY: reads the in-service registers.
        unsafe {
            if (0..8).all(|word| Msr::new(IN_SERVICE + word).read() == 0) {
                return;
            }
        }
        end_of_interrupt();
    }
}

/// Takes interrupts that firmware's devices left pending and forgets them: a dedicated guest would get them at its first
/// STI. An interrupt request can only be cleared by taking it.
fn discard_pending() {
    // SAFETY: reads the request registers.
    let is_pending = (0..8).any(|word| unsafe { Msr::new(REQUESTED + word).read() } != 0);
    if is_pending {
        x86_64::instructions::interrupts::enable();
        // The instruction after STI still runs without interrupts; each handler returns to the next one.
        (0..256).for_each(|_| x86_64::instructions::nop());
        x86_64::instructions::interrupts::disable();
    }
}

/// Ends the interrupt of the highest priority in service.
pub extern "C" fn end_of_interrupt() {
    // SAFETY: only called in x2APIC mode, which `init` has entered, for interrupts that nobody waits for.
    unsafe { Msr::new(END_OF_INTERRUPT).write(0) };
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
