//! The contract between the compiler and the hypervisor: types of the static partition table.
//!
//! The compiler (`config`) proves a system file and emits one [`PartitionTable`] as Rust source;
//! the hypervisor is compiled around it and reads it through one accessor. Everything here is plain
//! data: no behaviour beyond look-ups, no dependency, no allocation.
//!
//! Units: addresses and sizes are bytes, instants and durations are TSC ticks of the board's declared
//! clock ([`Board::tsc_hz`]), unless a field says otherwise.
//!
//! The audit reads the table back out of the built hypervisor, the very bytes that it runs by. So every type has a
//! defined representation: `repr(C)`; `repr(C, u8)` where there are variants; and what may be absent is a
//! reference, which is null when it is. [`note`] says where the table lies.
#![no_std]
#![forbid(unsafe_code)]

pub mod abi;
pub mod note;
pub mod pc;

/// Version of the layout of these types; the hypervisor refuses a table of another version.
pub const FORMAT: u32 = 7;

/// Most logical processors that a table can name. Bounds every per-core array of the hypervisor.
pub const MAX_CORES: usize = 256;

/// Most vCPUs of one partition: the hypervisor keeps sets of them in a word.
pub const MAX_VCPUS: usize = 64;

/// Most partitions that a table can name.
pub const MAX_PARTITIONS: usize = 64;

/// Most schedules (plans) that a table can name.
pub const MAX_PLANS: usize = 16;

/// Most windows of one core in one plan.
pub const MAX_WINDOWS: usize = 128;

/// Size of a page of host- or guest-physical memory, in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// A whole system, as the hypervisor enforces it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionTable {
    /// Always [`FORMAT`] of the compiler that wrote it.
    pub format: u32,
    /// `[system] name`.
    pub system: &'static str,
    /// SHA-256 over every source that went in: system file, board file, flattened guest images.
    pub digest: [u8; 32],
    /// What the hypervisor must find before it starts any partition.
    pub board: Board,
    /// Host-physical range that is the hypervisor's own: its image, its stacks, the staged guest images.
    pub hypervisor: Range,
    /// The partitions, in the order of the file. A [`PartitionId`] indexes this slice.
    pub partitions: &'static [Partition],
    /// The cores that the system uses, in ascending order of [`Core::cpu`]. Entry 0 is the boot core.
    /// A core of the board that is not named here is never started.
    pub cores: &'static [Core],
    /// Length of the major frame that all time-shared cores share in every plan, so that a change of plan
    /// moves no instant; 0 when no core is time-shared.
    pub frame: u64,
    /// Names of the plans (ARINC 653: module schedules); a [`PlanId`] indexes them. The system starts in the first; there is
    /// always one.
    pub plans: &'static [&'static str],
    /// Whether each window that ran is told in the log.
    pub log_windows: bool,
    /// When the module ends by itself; `None` means never.
    pub shutdown: Option<&'static Shutdown>,
}

/// Index into [`PartitionTable::partitions`].
pub type PartitionId = u16;

/// Index into [`PartitionTable::plans`].
pub type PlanId = u16;

/// A half-open range of host-physical memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
}

impl Range {
    /// First byte behind the range. Saturates, so that an untrusted range cannot wrap.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// Whether `other` lies wholly inside.
    #[must_use]
    pub const fn contains(&self, other: &Self) -> bool {
        other.start >= self.start && other.end() <= self.end()
    }

    /// Whether the two share a byte.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// The board as its file declares it; verified at boot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// `[board] name`.
    pub name: &'static str,
    /// Local APIC ids of the board's logical processors, indexed by the `cpu` number of the file.
    pub apic_ids: &'static [u32],
    /// Usable RAM, ascending, page-aligned, disjoint.
    pub memory: &'static [Range],
    /// Declared frequency of the time-stamp counter, in hertz.
    pub tsc_hz: u64,
    /// Largest accepted deviation of the measured frequency, in parts per million.
    pub tsc_tolerance_ppm: u32,
    /// Whether the board file vouches for a time-stamp counter of one rate in every state, which CPUID need not announce then; boot
    /// measures it twice.
    pub tsc_vouched: bool,
    /// Largest accepted difference between the TSCs of two cores, in ticks.
    pub tsc_skew: u64,
    /// Time that precedes each window for the switch into it, in ticks, hygiene not counted.
    pub switch_budget: u64,
    /// What each kind of hygiene takes.
    pub hygiene: HygieneCosts,
    /// The serial port that carries the log; `None`: the log goes to the screen, and to [`Self::log_memory`].
    pub uart: Option<&'static Uart>,
    /// Memory that keeps the log of a board without a serial port: the last [`LOG_MEMORY`] bytes of
    /// [`PartitionTable::hypervisor`]. Empty where there is a serial port.
    pub log_memory: Range,
    /// Whether the partitions' code may be mapped by pages of more than 4 KiB: the processor is free of the iTLB multihit erratum
    /// (CVE-2018-12207), as `[abilities]` says with `no-itlb-multihit`. Verified at boot.
    pub large_code_pages: bool,
    /// What is taken over from firmware of how the processor manages its power.
    pub power: Power,
    /// How to switch the machine off; `None` halts with a sentence.
    pub power_off: Option<&'static PowerOff>,
}

/// What the hypervisor takes over of frequency, turbo and idle states. The rest stays as firmware left it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Power {
    /// Turbo is off.
    pub turbo_off: bool,
    /// The frequency is held at the one that the processor guarantees.
    pub base_frequency: bool,
    /// A core that sleeps gets no deeper than C1, and not into C1E.
    pub c1_only: bool,
}

/// Bytes that keep the log of a board without a serial port.
pub const LOG_MEMORY: u64 = 512 << 10;

/// A 16550-compatible serial port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    /// Its first register: an I/O port (COM1 is 0x3F8), or a physical address.
    pub base: u64,
    /// Whether the registers lie in memory, and not at I/O ports.
    pub in_memory: bool,
    /// Bytes from one register to the next; 1 at I/O ports.
    pub stride: u8,
    /// Bytes of an access: 1, or 4 for a port in memory that takes no other.
    pub width: u8,
    /// Its input clock in hertz; the baud rate is a sixteenth of it or less.
    pub clock: u32,
    /// Baud rate.
    pub baud: u32,
}

impl Uart {
    /// Registers of a 16550.
    pub const REGISTERS: u64 = 8;

    /// The input clock of a PC's own serial ports, in hertz.
    pub const CLOCK: u32 = 1_843_200;

    /// Clocks of a bit.
    const CLOCKS: u32 = 16;

    /// Largest difference between the wanted and the real baud rate, in thousandths: a frame of ten bits bears a third of
    /// a bit.
    const TOLERANCE: u64 = 20;

    /// Bytes, or I/O ports, that the registers take.
    #[must_use]
    pub const fn extent(&self) -> u64 {
        Self::REGISTERS * self.stride as u64
    }

    /// What the clock is divided by for a baud rate: the nearest whole number. `None` where none comes near enough.
    #[must_use]
    pub const fn divisor(&self) -> Option<u16> {
        let (Some(wanted), clock) = (self.baud.checked_mul(Self::CLOCKS), self.clock) else {
            return None;
        };
        if wanted == 0 {
            return None;
        }
        let divisor = (clock as u64 + wanted as u64 / 2) / wanted as u64;
        if divisor == 0 || divisor > u16::MAX as u64 {
            return None;
        }
        // The real rate is clock / 16 / divisor.
        let real = wanted as u64 * divisor;
        if real.abs_diff(clock as u64) * 1000 > Self::TOLERANCE * real {
            return None;
        }
        Some(divisor as u16)
    }
}

/// A port to which a string of bytes is written, one at a time, to end the machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerOff {
    /// I/O port.
    pub port: u16,
    /// What is written.
    pub bytes: &'static [u8],
}

/// One partition: one virtual machine.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// `[partition.NAME]`; also the name of its boot module.
    pub name: &'static str,
    /// Where the file declares it: `demo.toml:23`. Quoted in messages about the partition.
    pub place: &'static str,
    /// Board CPU numbers on which it runs, ascending, never empty: vCPU `n` runs on `cpus[n]`, and its virtual APIC id is that
    /// core's. All are of one kind. vCPU 0 starts by itself, the others when the partition starts them (INIT, SIPI).
    pub cpus: &'static [u16],
    /// Index of vCPU 0 among the vCPUs of all partitions; the others follow it.
    pub first_vcpu: u16,
    /// The machine that it finds around its processors and memory.
    pub platform: Platform,
    /// The flattened guest image that the boot loader hands over as a module.
    pub image: Image,
    /// Guest-physical memory, ascending, disjoint.
    pub memory: &'static [Region],
    /// 4 KiB pages that this partition's EPT needs; the pool is cut to exactly this.
    pub ept_pages: usize,
    /// What the guest finds at [`Self::boot_info_at`] when it starts. On [`Platform::Bare`], Multiboot2 boot information:
    /// command line, memory map. On [`Platform::Pc`], all that its own boot protocol wants, the code that goes over to that
    /// protocol included. Built by the compiler, only copied by the hypervisor.
    pub boot_info: &'static [u8],
    /// Guest-physical address of [`Self::boot_info`]; 8-byte aligned.
    pub boot_info_at: u64,
    /// Guest-physical address of the read-only schedule page of vCPU 0 ([`abi::SchedulePage`]); that of vCPU `n` lies `n` pages
    /// behind it. 0 on dedicated cores, which have none.
    pub schedule_at: u64,
    /// Whether it may ask for another plan.
    pub may_switch_plan: bool,
    /// Who receives what it donates of its windows; `None`: it may not donate.
    pub donates_to: Option<&'static PartitionId>,
    /// What is cleaned whenever a time-shared core passes to it from another partition, or from it to another.
    pub hygiene: Hygiene,
}

impl Partition {
    /// The vCPU that runs on board CPU `cpu`.
    #[must_use]
    pub fn vcpu_on(&self, cpu: u16) -> Option<usize> {
        self.cpus.iter().position(|own| *own == cpu)
    }
}

/// The machine that a partition finds around its processors and memory.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Platform {
    /// Nothing but the calls of [`abi`]: for guests that are made for this hypervisor.
    #[default]
    Bare = 0,
    /// A small PC, for operating systems as they are: serial port, real-time clock, registers for reset and power-off.
    Pc = 1,
}

/// What is cleaned when a time-shared core passes from one partition to another. The time for it is in [`Window::budget`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hygiene {
    /// The level-1 data cache is flushed (IA32_FLUSH_CMD).
    pub l1d_flush: bool,
    /// Indirect branch predictions of before are forgotten (IBPB, IA32_PRED_CMD).
    pub branch_barrier: bool,
    /// The processor's internal buffers are overwritten (VERW).
    pub buffer_clear: bool,
}

impl Hygiene {
    /// Nothing.
    pub const NONE: Self = Self { l1d_flush: false, branch_barrier: false, buffer_clear: false };

    /// Whether it is more than nothing.
    #[must_use]
    pub const fn is_any(self) -> bool {
        self.l1d_flush || self.branch_barrier || self.buffer_clear
    }

    /// What either asks for.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            l1d_flush: self.l1d_flush || other.l1d_flush,
            branch_barrier: self.branch_barrier || other.branch_barrier,
            buffer_clear: self.buffer_clear || other.buffer_clear,
        }
    }
}

/// What each kind of hygiene takes on the board, in ticks; 0 where the board file declares no cost.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HygieneCosts {
    /// Flush of the level-1 data cache.
    pub l1d_flush: u64,
    /// Indirect branch prediction barrier.
    pub branch_barrier: u64,
    /// Overwriting of internal buffers.
    pub buffer_clear: u64,
}

impl HygieneCosts {
    /// Ticks that cleaning `what` takes. Saturates.
    #[must_use]
    pub const fn of(&self, what: Hygiene) -> u64 {
        let flush = if what.l1d_flush { self.l1d_flush } else { 0 };
        let barrier = if what.branch_barrier { self.branch_barrier } else { 0 };
        let clear = if what.buffer_clear { self.buffer_clear } else { 0 };
        flush.saturating_add(barrier).saturating_add(clear)
    }
}

/// A flattened guest image: the loadable segments of an ELF file, gaps filled with zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Length of the module in bytes.
    pub size: u64,
    /// SHA-256 of the module.
    pub digest: [u8; 32],
    /// Guest-physical address of its first byte. Memory outside it is zero at start.
    pub load_at: u64,
    /// Guest-physical address of the first instruction: in the image on [`Platform::Bare`], in the boot information on
    /// [`Platform::Pc`]. The guest starts as a Multiboot2 kernel does: 32-bit protected mode, paging off,
    /// EAX = 0x36D76289, EBX = address of the boot information.
    pub entry: u64,
}

/// A piece of guest-physical memory and what backs it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical start; page-aligned.
    pub guest: u64,
    /// Host-physical start; page-aligned.
    pub host: u64,
    /// Bytes; a multiple of the page size.
    pub size: u64,
    /// What the guest may do there.
    pub rights: Rights,
}

/// Access rights of a region.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
}

impl Rights {
    /// All three, as ordinary guest RAM has them.
    pub const ALL: Self = Self { read: true, write: true, execute: true };
}

/// One core and what it does.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// Board CPU number; indexes [`Board::apic_ids`].
    pub cpu: u16,
    /// Its role for the whole life of the system.
    pub role: Role,
}

/// What a core does.
#[repr(C, u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One partition, nothing else; no exits in steady state.
    Dedicated(PartitionId),
    /// A cyclic major frame of windows, by plan: as many lists as there are plans. The windows of a list ascend.
    Shared(&'static [&'static [Window]]),
    /// Drains the logs; runs no guest.
    Housekeeping,
}

/// A window of the major frame. Start and end are absolute within the frame; the budget before `start` is
/// free of any other window, across the edge of the frame too.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Ticks from the start of the frame to the first instant of guest time.
    pub start: u64,
    /// Ticks of guest time.
    pub length: u64,
    /// Ticks before `start` for the switch: the board's switch budget, and the declared cost of the hygiene at this switch. Hygiene
    /// counts for whoever may hold the core before: the owner of the last window of a partition, or a receiver of its time. Before a
    /// window of housekeeping nothing is cleaned.
    pub budget: u64,
    /// Who runs.
    pub owner: Owner,
}

/// The owner of a window.
#[repr(C, u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A partition.
    Partition(PartitionId),
    /// The hypervisor, to drain the logs.
    Housekeeping,
}

/// When the module (the whole system) ends by itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Ends once every one of these has finished (or was stopped). Never empty.
    pub when_finished: &'static [PartitionId],
    /// Ends at this many ticks after the epoch at the latest; 0 means no limit.
    pub at_latest: u64,
}
