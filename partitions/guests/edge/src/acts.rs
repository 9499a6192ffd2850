//! The operations: each takes one exit or a few, and the guest goes on behind it.

use guest_rt::hostile::{self, Width};
use guest_rt::registers::write_cr8;
use guest_rt::{
    Alarm, cpuid, disable_interrupts, donate_window, enable_interrupts, extended_state, plan_state,
    print, sleep_until_frame, span_begin, span_end, switch_plan, tsc, wait_for_interrupt, window,
    yield_window,
};

use crate::{Act, ends, interrupts};

const APIC_BASE: u32 = 0x1B;
const TIME_STAMP_COUNTER: u32 = 0x10;
const PLATFORM_INFO: u32 = 0xCE;
/// An MSR that no partition has.
const NOBODYS_MSR: u32 = 0x9B;
const TASK_PRIORITY: u32 = 0x808;
const EOI: u32 = 0x80B;
const CURRENT_COUNT: u32 = 0x839;
const LVT_LINT0: u32 = 0x835;
const LVT_MASKED: u64 = 1 << 16;
const TSC_DEADLINE: u32 = 0x6E0;
const CR0_CACHE_DISABLE: u64 = 1 << 30;
const CR4_VMXE: u64 = 1 << 13;
const CR4_OSXSAVE: u64 = 1 << 18;
/// Ports of a PC: keyboard controller, serial line, clock, ACPI sleep register.
const KEYBOARD: u16 = 0x64;
const SERIAL: u16 = 0x3F8;
const SERIAL_STATUS: u16 = 0x3FD;
const CLOCK_INDEX: u16 = 0x70;
const CLOCK_DATA: u16 = 0x71;
/// The vector of the guest's own timer.
const TIMER: u8 = 0x40;

/// Operations of the guest alone.
pub const ALONE: &str = "alone";
/// Interrupt commands.
pub const INTERRUPTS: &str = "interrupts";
/// Operations behind which nothing comes.
pub const ENDS: &str = "ends";

/// Every operation, with its group. Interrupt commands come last: some leave the other CPUs reset.
pub fn all() -> impl Iterator<Item = (&'static str, Act)> {
    let alone = HERE.into_iter().map(|act| (ALONE, act));
    let interrupts = interrupts::ACTS.into_iter().map(|act| (INTERRUPTS, act));
    alone.chain(interrupts).chain(ends::ACTS.into_iter().map(|act| (ENDS, act)))
}

/// Prepares what the operations need.
pub fn set_up() {
    let _alarm = alarm();
    interrupts::set_up();
    // Without XSAVE the writes of XCR0 are refused, which is an exit too.
    let _ = extended_state::enable();
}

/// Ends what an operation left behind: a timer that is armed.
pub fn calm() {
    alarm().clear();
}

fn alarm() -> Alarm {
    Alarm::new(TIMER, |_| ())
}

const HERE: [Act; 48] = [
    ("cpuid", |_| drop_value(cpuid(0, 0))),
    ("cpuid-extended", |_| drop_value(cpuid(0xD, 1))),
    ("cpuid-unknown", |_| drop_value(cpuid(0x6000_0000, 0))),
    ("vmcall-unknown", |_| refused(hostile::unknown_hypercall())),
    ("vmcall-console", |_| print!("edge: forty-eight bytes of a console that talks;\n")),
    ("vmcall-window", |_| drop_value(window())),
    ("vmcall-plan", |_| drop_value(plan_state())),
    ("vmcall-switch-plan", |_| drop_value(switch_plan(0))),
    ("vmcall-span", |_| {
        span_begin();
        drop_value(span_end());
    }),
    ("vmcall-yield", |_| drop_value(yield_window())),
    ("vmcall-sleep", |world| drop_value(sleep_until_frame(world.frame + 2))),
    ("vmcall-sleep-past", |world| drop_value(sleep_until_frame(world.frame))),
    ("vmcall-donate", |_| drop_value(donate_window())),
    ("rdmsr", |_| drop_value(hostile::read_msr(APIC_BASE))),
    ("rdmsr-other", |_| drop_value(hostile::read_msr(PLATFORM_INFO))),
    ("rdmsr-virtual", |_| drop_value(hostile::read_msr(CURRENT_COUNT))),
    ("rdmsr-refused", |_| drop_value(hostile::read_msr(NOBODYS_MSR))),
    ("wrmsr-task-priority", |_| refused(hostile::write_msr(TASK_PRIORITY, 0))),
    ("wrmsr-lvt", |_| refused(hostile::write_msr(LVT_LINT0, LVT_MASKED))),
    ("wrmsr-refused", |_| refused(hostile::write_msr(NOBODYS_MSR, 0))),
    ("wrmsr-clock", |_| refused(hostile::write_msr(TIME_STAMP_COUNTER, 0))),
    ("end-of-interrupt", |_| refused(hostile::write_msr(EOI, 0))),
    ("timer-past", |_| alarm().set(1)),
    ("timer-soon", |_| alarm().set(tsc() + 60)),
    ("timer-at-the-end", |world| alarm().set(world.end)),
    ("timer-behind-the-end", |world| alarm().set(world.end + 25)),
    ("timer-off", |_| refused(hostile::write_msr(TSC_DEADLINE, 0))),
    ("port-in", |_| drop_value(hostile::port_in(KEYBOARD, Width::Byte))),
    ("port-out", |_| refused(hostile::port_out(KEYBOARD, Width::Double, 0))),
    ("port-string", |_| refused(hostile::port_out_string(KEYBOARD))),
    ("serial-out", |_| refused(hostile::port_out(SERIAL, Width::Byte, 0x2E))),
    ("serial-status", |_| drop_value(hostile::port_in(SERIAL_STATUS, Width::Byte))),
    ("clock-index", |_| refused(hostile::port_out(CLOCK_INDEX, Width::Byte, 9))),
    ("clock-read", |_| drop_value(hostile::port_in(CLOCK_DATA, Width::Byte))),
    ("wbinvd", |_| refused(hostile::write_back_caches())),
    ("xsetbv", |_| refused(hostile::write_extended_control(0, 3))),
    ("xsetbv-refused", |_| refused(hostile::write_extended_control(0, 5))),
    ("cr0", |_| refused(hostile::write_cr0(hostile::read_cr0() ^ CR0_CACHE_DISABLE))),
    ("cr4", |_| refused(hostile::write_cr4(hostile::read_cr4() ^ CR4_OSXSAVE))),
    ("cr4-refused", |_| refused(hostile::write_cr4(hostile::read_cr4() | CR4_VMXE))),
    ("cr8", |_| refused(write_cr8(0))),
    ("counter", |_| refused(hostile::read_counter())),
    ("vmx-instruction", |_| refused((hostile::VMX_INSTRUCTIONS[6].1)())),
    ("exception", |_| refused(hostile::undefined())),
    ("debug-registers", |_| drop_value(hostile::exchange_debug_addresses([8; 4]))),
    ("halt", |world| {
        // Set with interrupts on, the alarm could come ahead of the HLT, which nothing would end then.
        disable_interrupts();
        alarm().set(world.end + 300);
        wait_for_interrupt();
        enable_interrupts();
    }),
    ("pause", |_| (0..100).for_each(|_| core::hint::spin_loop())),
    ("nothing", |_| ()),
];

/// What an operation answers does not matter here.
fn drop_value<T>(value: T) {
    core::hint::black_box(&value);
}

/// Whether it is refused does not matter either.
pub fn refused(answer: Result<(), hostile::Fault>) {
    drop_value(answer);
}
