//! What a guest is handed: where it runs, its command line, its clock; and how it ends.
#![expect(unsafe_code, reason = "reads the boot information")]

use core::arch::global_asm;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bulkhead_table::abi;
use spin::Once;

use crate::arguments::{Arguments, BadValue, parse_duration, parse_number, to_ticks};
use crate::handover::Handover;
use crate::machine::{cpuid, halt_for_ever, port_out};
use crate::{apic, console, hypercall, interrupts, println};

global_asm!(
    include_str!("start.s"),
    framebuffer = const cfg!(feature = "probe") as u8,
    room = const cfg!(feature = "header-room") as u8,
);

/// Arguments that guest-rt itself takes on the bare machine.
const OWN_ARGUMENTS: [&str; 2] = ["tsc_khz", "native-power-off"];
/// Longest command line, in bytes.
const COMMAND_LINE_BYTES: usize = 1024;

unsafe extern "C" {
    /// Behind the last byte of the image, from guest.ld.
    static __guest_end: u8;
}

/// The command line, copied out of memory that a guest may use for itself.
static COMMAND_LINE: Once<([u8; COMMAND_LINE_BYTES], usize)> = Once::new();
/// The hypervisor's first leaf.
static LEAVES: AtomicU32 = AtomicU32::new(abi::CPUID_BASE);
static UNDER_HYPERVISOR: AtomicBool = AtomicBool::new(false);
static POWER_OFF: AtomicBool = AtomicBool::new(false);

/// Where a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// On the bare machine.
    Native,
    /// Under Bulkhead, on a core of its own.
    Dedicated,
    /// Under Bulkhead, in windows of a core that others share.
    Shared,
}

/// How a guest judges itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    passed: bool,
    text: &'static str,
}

impl Verdict {
    /// All that the guest promised to show held; `text` says what.
    #[must_use]
    pub const fn pass(text: &'static str) -> Self {
        Self { passed: true, text }
    }

    /// Something did not; `text` says what.
    #[must_use]
    pub const fn fail(text: &'static str) -> Self {
        Self { passed: false, text }
    }
}

/// The machine and the command line that a guest was started with.
///
/// The methods that read arguments end the guest with verdict fail, and a line that says what to write
/// instead, when an argument is not understood.
#[derive(Debug)]
pub struct Guest {
    machine: Machine,
    handover: Handover,
    arguments: Arguments<'static>,
    /// Usable memory behind the image: start and size in bytes.
    spare: (u64, u64),
}

impl Guest {
    /// Where the guest runs.
    #[must_use]
    pub const fn machine(&self) -> Machine {
        self.machine
    }

    /// The command line as a whole.
    #[must_use]
    pub fn command_line(&self) -> &'static str {
        command_line()
    }

    /// How the guest was started.
    #[must_use]
    pub const fn handover(&self) -> Handover {
        self.handover
    }

    /// Start and size in bytes of the usable memory behind the guest's image.
    #[must_use]
    pub const fn spare_memory(&self) -> (u64, u64) {
        self.spare
    }

    /// Says which arguments the guest knows; any other, and any that is repeated, ends it.
    pub fn allow_arguments(&self, known: &[&str]) {
        if let Some(name) = self.arguments.unknown(known, &OWN_ARGUMENTS) {
            println!(
                "command line: unknown argument `{name}`; known are {known:?} and {OWN_ARGUMENTS:?}"
            );
            finish(Verdict::fail("an unknown argument"));
        }
        if let Some(name) = self.arguments.repeated() {
            println!("command line: `{name}` is given more than once; leave one");
            finish(Verdict::fail("a repeated argument"));
        }
    }

    /// The value of an argument; empty when it stands without `=`.
    #[must_use]
    pub fn argument(&self, name: &str) -> Option<&'static str> {
        self.arguments.get(name)
    }

    /// The number given as `name=N`, else `default`.
    #[must_use]
    pub fn number(&self, name: &str, default: u64) -> u64 {
        self.argument(name).map_or(default, |text| understood(name, text, parse_number(text)))
    }

    /// The duration given as `name=100us` (units ns, us, ms, s), else `default`, in ticks.
    #[must_use]
    pub fn ticks(&self, name: &str, default: &str) -> u64 {
        let text = self.argument(name).unwrap_or(default);
        let nanoseconds = understood(name, text, parse_duration(text));
        understood(name, text, to_ticks(nanoseconds, self.tsc_khz()))
    }

    /// The one of `choices` that is given as `name=word`, else the first.
    #[must_use]
    pub fn choice(&self, name: &str, choices: &[&'static str]) -> &'static str {
        let Some(&first) = choices.first() else {
            return "";
        };
        let Some(text) = self.argument(name) else {
            return first;
        };
        choices.iter().find(|choice| **choice == text).copied().unwrap_or_else(|| {
            println!("command line: {name}={text}: write one of {choices:?}");
            finish(Verdict::fail("an argument that is not understood"))
        })
    }

    /// Frequency of the time-stamp counter, in kHz: from the hypervisor, else from the command line.
    #[must_use]
    pub fn tsc_khz(&self) -> u64 {
        let khz = match self.machine {
            Machine::Native => self.number("tsc_khz", 0),
            Machine::Dedicated | Machine::Shared => {
                u64::from(cpuid(own_leaf(abi::CPUID_TIMING), 0).eax)
            }
        };
        if khz == 0 {
            println!(
                "clock: the TSC frequency is unknown; on the bare machine say tsc_khz=N on the command line"
            );
            finish(Verdict::fail("no clock"));
        }
        khz
    }
}

/// The value, or the end of the guest.
fn understood(name: &str, text: &str, parsed: Result<u64, BadValue>) -> u64 {
    parsed.unwrap_or_else(|why| {
        println!("command line: {name}={text}: {why}");
        finish(Verdict::fail("an argument that is not understood"))
    })
}

/// Whether Bulkhead runs this guest.
#[inline(always)]
pub(crate) fn under_hypervisor() -> bool {
    UNDER_HYPERVISOR.load(Ordering::Relaxed)
}

/// Sets the machine up, runs `main` and ends with its verdict. Called by [`entry!`](crate::entry) only.
#[doc(hidden)]
pub fn start(magic: u32, boot_info: u32, main: fn(&Guest) -> Verdict) -> ! {
    let machine = detect();
    UNDER_HYPERVISOR.store(machine != Machine::Native, Ordering::Relaxed);
    if machine == Machine::Native {
        console::set_up_uart();
    }
    hypercall::choose_instruction();
    interrupts::set_up(0);
    let (handover, spare) = read_boot_info(magic, boot_info);
    let arguments = Arguments::new(command_line());
    POWER_OFF.store(arguments.get("native-power-off").is_some(), Ordering::Relaxed);
    if let Err(lacking) = apic::set_up() {
        println!("{lacking}");
        finish(Verdict::fail("the machine lacks something"));
    }
    finish(main(&Guest { machine, handover, arguments, spare }))
}

pub(crate) fn detect() -> Machine {
    let hypervisor_present = cpuid(1, 0).ecx >> 31 == 1;
    if !hypervisor_present {
        return Machine::Native;
    }
    let Some(base) =
        [abi::CPUID_BASE, abi::CPUID_BASE_OF_PC].into_iter().find(|base| is_ours(*base))
    else {
        return Machine::Native;
    };
    LEAVES.store(base, Ordering::Relaxed);
    match cpuid(own_leaf(abi::CPUID_INTERFACE), 0).ecx {
        abi::core_kind::SHARED => Machine::Shared,
        _ => Machine::Dedicated,
    }
}

/// Whether the leaves from `base` on are Bulkhead's.
fn is_ours(base: u32) -> bool {
    let found = cpuid(base, 0);
    let mut signature = [0; 12];
    for (part, register) in signature.chunks_exact_mut(4).zip([found.ebx, found.ecx, found.edx]) {
        part.copy_from_slice(&register.to_le_bytes());
    }
    signature == abi::CPUID_SIGNATURE
}

/// Where a leaf of the hypervisor's lies on the platform of this partition.
pub(crate) fn own_leaf(leaf: u32) -> u32 {
    leaf - abi::CPUID_BASE + LEAVES.load(Ordering::Relaxed)
}

/// Keeps the command line, and says how the guest was started and which memory behind the image is spare.
fn read_boot_info(magic: u32, address: u32) -> (Handover, (u64, u64)) {
    let Some(handover) = Handover::of(magic, address) else {
        println!(
            "boot: started with EAX={magic:#x}, which is not multiboot2; use GRUB's `multiboot2` command"
        );
        finish(Verdict::fail("not started by multiboot2"));
    };
    let mut bytes = [0; COMMAND_LINE_BYTES];
    let Some(length) = handover.command_line(&mut bytes) else {
        println!("boot: the boot information at {address:#x} is malformed; the loader is at fault");
        finish(Verdict::fail("malformed boot information"));
    };
    if length > COMMAND_LINE_BYTES {
        println!("boot: the command line is longer than {COMMAND_LINE_BYTES} bytes; shorten it");
        finish(Verdict::fail("command line too long"));
    }
    COMMAND_LINE.call_once(|| (bytes, length));
    let image_end = &raw const __guest_end as u64;
    let spare_end = handover.ram_end(image_end).map_or(image_end, |end| end.min(1 << 32));
    (handover, (image_end, spare_end - image_end))
}

fn command_line() -> &'static str {
    COMMAND_LINE
        .get()
        .and_then(|(bytes, length)| bytes.get(..*length))
        .and_then(|bytes| core::str::from_utf8(bytes).ok())
        .unwrap_or("")
}

/// Reports the verdict and ends the guest. Natively the machine is halted, or, with the argument
/// `native-power-off`, an emulator is told to end.
pub fn finish(verdict: Verdict) -> ! {
    let word = if verdict.passed { "pass" } else { "fail" };
    println!("{}verdict {word} {}", abi::REPORT_PREFIX, verdict.text);
    finish_silently(verdict.passed)
}

/// Ends the guest without a line.
pub(crate) fn finish_silently(passed: bool) -> ! {
    if under_hypervisor() {
        hypercall::finish(if passed { abi::verdict::PASS } else { abi::verdict::FAIL });
    }
    console::drain_uart();
    if POWER_OFF.load(Ordering::Relaxed) {
        b"Shutdown".iter().for_each(|byte| port_out(0x8900, *byte));
    }
    halt_for_ever()
}

#[panic_handler]
fn panicked(panic: &PanicInfo<'_>) -> ! {
    println!("{panic}");
    finish(Verdict::fail("panicked"))
}
