//! The rules of the language, each with its stable code.
//!
//! A code never changes its meaning and is never used again: scripts and manuals quote it. The table in the
//! README and the list of rejecting files are checked against this one.

macro_rules! rules {
    ($($name:ident = $code:literal, $severity:ident, $statement:literal;)+) => {
        /// A rule of the language.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $(#[doc = $statement] $name,)+
        }

        impl Rule {
            /// Every rule, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its stable code, such as `BH0302`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// Whether what breaks it is refused or only told.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)+ }
            }

            /// The rule of this code, however its letters are written.
            #[must_use]
            pub fn of_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|rule| rule.code().eq_ignore_ascii_case(code))
            }

            /// What must hold, in one sentence.
            #[must_use]
            pub const fn statement(self) -> &'static str {
                match self { $(Self::$name => $statement,)+ }
            }
        }
    };
}

/// How grave a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The system is refused.
    Error,
    /// The system compiles; a person should look.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

rules! {
    Syntax = "BH0101", Error, "A file is valid TOML.";
    UnknownKey = "BH0102", Error, "Every key is one of the language.";
    NotEnforced = "BH0103", Error, "A key that the hypervisor does not enforce yet is refused.";
    MissingKey = "BH0104", Error, "A required key is there.";
    WrongType = "BH0105", Error, "A value has the TOML type that its key wants.";
    MissingUnit = "BH0106", Error, "A quantity carries its unit.";
    WrongUnit = "BH0107", Error, "A unit is one of the quantity that the key wants.";
    BadNumber = "BH0108", Error, "A number is well formed and within the range of its key.";
    Inexact = "BH0109", Error, "A quantity is a whole number of ticks, bytes, hertz or parts per million; nothing is rounded.";
    BadName = "BH0110", Error, "A name is `[a-z][a-z0-9-]*`, at most 32 characters long, and no partition has one of the hypervisor's own: `housekeeping`, `hypervisor`, `bulkhead`, `boot`.";
    DuplicateName = "BH0111", Error, "A key, and so the name of a partition, is given once, in all included files together.";
    Unreadable = "BH0112", Error, "The system file, its board file and what they include can be read.";
    IncludeCycle = "BH0113", Error, "No file includes itself, directly or by way of others.";
    IncludeTwice = "BH0114", Error, "A file is included once.";

    UnknownWord = "BH0115", Error, "A word is one that its key knows.";
    EmptyList = "BH0116", Error, "A list of words, files, devices or neighbours that is given is not empty.";
    WrongKind = "BH0117", Error, "Where a system file is wanted there is none of a board, and the other way round.";

    DuplicateApicId = "BH0201", Error, "Each core of the board has its own APIC id.";
    BoardMemoryUnaligned = "BH0202", Error, "A memory range of the board, the hypervisor's included, is not empty and made of whole pages.";
    BoardMemoryOrder = "BH0203", Error, "The memory ranges of the board ascend and share no byte.";
    HypervisorOutside = "BH0204", Error, "The hypervisor's range lies inside one memory range of the board.";
    HypervisorTooSmall = "BH0205", Error, "The hypervisor's range holds its own image, its reserve and every staged guest image.";
    BadBaud = "BH0206", Error, "The serial port's clock divides down to its baud rate, within 2 %.";
    TooManyCores = "BH0207", Error, "The board has at least one core and no more than the table can name.";
    PowerOffEmpty = "BH0208", Error, "The power-off text is not empty.";
    HypervisorStart = "BH0209", Error, "The hypervisor's range starts at 0x100000, where it is linked, and ends below 4 GiB.";
    BoardMemoryLow = "BH0210", Error, "A memory range of the board starts at 1 MiB or above: what is below belongs to firmware and the start of the cores.";
    TopologyIncomplete = "BH0211", Error, "Every core of the board says its package, core and thread, or none does.";
    PositionTwice = "BH0212", Error, "No two cores of the board are the same thread of the same core.";
    CacheShape = "BH0213", Error, "A cache has a level from 1 to 4, a size, and cores.";
    CacheCores = "BH0214", Error, "A cache names cores of the board, each once.";
    CacheTwice = "BH0215", Error, "A core has one cache of a level.";
    CacheNesting = "BH0216", Error, "Cores that share a cache share every larger one behind it.";
    CacheSplitsSiblings = "BH0217", Error, "The threads of one core share its caches.";
    RegistersInMemory = "BH0220", Error, "The registers of a device lie outside the board's memory.";
    RegistersOverlap = "BH0221", Error, "The registers of two devices share no byte.";
    PortsOverlap = "BH0222", Error, "The I/O ports of two devices of the board share none.";
    InterruptsOverlap = "BH0223", Error, "Each interrupt is a pin of one I/O APIC.";
    OverrideUnknown = "BH0224", Error, "An override leads to a pin of an I/O APIC.";
    OverrideTwice = "BH0225", Error, "An ISA interrupt is overridden once.";
    PciNotation = "BH0226", Error, "PCI addresses, ids and classes are written in hexadecimal digits as `0000:00:1f.2`, `8086:2922` and `010601`.";
    PciTwice = "BH0227", Error, "A PCI function is listed once.";
    PciNoFunctionZero = "BH0228", Error, "A PCI device has its function 0.";
    BarShape = "BH0229", Error, "A base address register decodes a power of two of bytes, at a multiple of its size, within the I/O ports that there are.";
    BarTwice = "BH0230", Error, "A base address register is given once, and is one of the function's six.";
    MsiCount = "BH0231", Error, "A PCI function has 1, 2, 4, 8, 16 or 32 MSI vectors, and 1 to 2048 MSI-X ones.";
    ReservedInMemory = "BH0232", Error, "What firmware keeps lies outside the board's memory.";
    PciUnknown = "BH0233", Error, "An IOMMU, and a range for DMA, names PCI functions of the board.";
    IommuTwice = "BH0234", Error, "A PCI function is served by one IOMMU.";
    DevicesWithoutDma = "BH0235", Error, "Only a range for DMA names devices.";
    AbilityMissing = "BH0236", Error, "The board has the abilities that the hypervisor needs.";
    CacheAllocationTwice = "BH0237", Error, "A level of caches that can be divided is 2 or 3, and is given once.";
    TimerMissing = "BH0238", Error, "A board that describes its timers has a PM timer, against which the hypervisor measures its clock.";
    SerialPorts = "BH0290", Error, "The serial port's eight I/O ports exist, and none is the chipset's: interrupt controllers, timers, keyboard, clock, DMA, PCI configuration.";
    PowerOffPort = "BH0291", Error, "The power-off port is neither an interrupt controller's nor one of the serial port's.";
    ZeroTolerance = "BH0292", Error, "The tolerance of the clock is not zero.";
    SerialPlace = "BH0293", Error, "A serial port is at I/O ports or in memory: it has `port` or `address`, and `stride` and `width` only with `address`.";
    SerialRegisters = "BH0294", Error, "The registers of a serial port in memory are of a shape that there is, and lie below 4 GiB.";
    VouchedNeedlessly = "BH0295", Error, "A board file vouches for its clock only where the processor announces no invariant one.";

    CoreClaimedTwice = "BH0301", Error, "A core without windows belongs to one partition.";
    CoreMixed = "BH0302", Error, "A core is dedicated or time-shared, not both: each partition on a time-shared core has a window.";
    CoreUnknown = "BH0303", Error, "A core is one of the board's.";
    CoreCount = "BH0304", Error, "A partition names a core.";
    HousekeepingMissing = "BH0305", Error, "A core, or a window, drains the logs.";
    HousekeepingOnDedicated = "BH0306", Error, "Housekeeping windows lie on a time-shared core.";
    HousekeepingCoreUsed = "BH0307", Error, "A core that is housekeeping as a whole runs no partition.";
    TooManyPartitions = "BH0308", Error, "There are no more partitions than the table can name.";
    NoPartition = "BH0309", Error, "A system has at least one partition.";
    BootCoreUnused = "BH0310", Error, "Core 0, the boot core, has a role.";
    CoresAscend = "BH0311", Error, "A partition names each of its cores once, in ascending order.";
    SiblingsSplit = "BH0312", Error, "The threads of one core run one partition, unless each accepts the other by name.";
    AcceptedUnknown = "BH0313", Error, "A partition accepts other partitions of the system, each once.";
    AcceptedAbsent = "BH0314", Error, "A partition is accepted where it runs on another thread of the same core.";

    WindowOutsideFrame = "BH0401", Error, "A window lies inside the major frame.";
    WindowsOverlap = "BH0402", Error, "Windows of a core share no instant, the switch budget and the cost of hygiene before each start included, across the edge of the frame and a change of plan too.";
    ZeroDuration = "BH0403", Error, "A duration that must not be zero is at least one tick long.";
    FrameWithoutWindows = "BH0404", Error, "A major frame has windows.";
    WindowsWithoutFrame = "BH0405", Error, "Windows have a major frame.";
    NoWindow = "BH0406", Error, "A list of windows is not empty.";
    TooManyWindows = "BH0407", Error, "A core has no more windows in one plan than the table can hold.";
    WindowCoreMissing = "BH0408", Error, "In a partition with several cores, each window says on which it lies.";
    WindowCoreForeign = "BH0409", Error, "A window lies on a core of its partition.";
    WindowMissing = "BH0410", Error, "A partition has a window on each of its time-shared cores in each plan, or says that it is off.";
    CoreWithoutWindow = "BH0411", Error, "A time-shared core has a window in each plan.";
    HousekeepingOff = "BH0412", Error, "Housekeeping in windows has one in each plan.";
    PlanUnknown = "BH0413", Error, "A plan that is named is one of the schedule's.";
    PlanTwice = "BH0414", Error, "A list of plans names each once.";
    PlanListEmpty = "BH0415", Error, "A list of plans is not empty.";
    TooManyPlans = "BH0416", Error, "There are no more plans than the table can name.";
    AlwaysOff = "BH0417", Error, "A partition is on in at least one plan.";
    WindowWhileOff = "BH0418", Error, "A partition has no window in a plan in which it says that it is off.";
    OffWithoutWindows = "BH0419", Error, "Only a partition in windows can be off in a plan.";
    SwitchAlone = "BH0420", Error, "A right to switch plans is given where there is another plan.";
    PlanUnreachable = "BH0421", Error, "Where there are several plans, a partition may switch.";
    SkewBeyondFrame = "BH0422", Error, "Where there are several plans, the clocks of two cores differ by less than a frame.";
    ReceiverUnknown = "BH0423", Error, "The receiver of donated time is a partition of the system.";
    DonatesToItself = "BH0424", Error, "A partition donates to another one.";
    DonatesApart = "BH0425", Error, "The receiver of donated time has a vCPU on each core of the donor.";
    DonationCircle = "BH0426", Error, "Donations form no circle: time comes to rest with somebody who uses it.";
    DonatesWithoutWindows = "BH0427", Error, "Only a partition in windows can donate their rest.";
    HygieneWithoutCost = "BH0428", Error, "Hygiene that a partition asks for has a declared cost on the board.";
    HygieneDedicated = "BH0429", Error, "Only a partition in windows can ask for hygiene.";
    ReceiverOff = "BH0430", Error, "The receiver of donated time is on in every plan in which the donor is.";
    WindowBelowBudget = "BH0431", Error, "A window is not shorter than the board's switch budget.";

    MemoryTooSmall = "BH0501", Error, "A partition's memory reaches beyond its boot information: it is at least 8 KiB.";
    MemoryUnaligned = "BH0502", Error, "A partition's memory is made of whole pages.";
    MemoryDoesNotFit = "BH0503", Error, "The memory of all partitions fits the board's, outside the hypervisor's range.";
    MemoryTooLarge = "BH0504", Error, "A partition's memory ends below the addresses of devices, at 3 GiB, and goes on at 4 GiB on a PC alone.";

    ImageMissing = "BH0601", Error, "A guest image is an ELF file, or a folder with a Cargo.toml or a Makefile.";
    ImageNotBuilt = "BH0602", Error, "The guest image of a folder has been built.";
    ImageNotElf = "BH0603", Error, "A guest image is an ELF file; on a PC a Multiboot header may say instead where it is loaded.";
    ImageMachine = "BH0604", Error, "A guest image is ELF64 for x86-64, or ELF32 for i386.";
    ImageDynamic = "BH0605", Error, "A guest image is a static executable with fixed addresses.";
    ImageBroken = "BH0606", Error, "A guest image is whole and consistent.";
    ImageDoesNotFit = "BH0607", Error, "A guest image fits its partition's memory.";
    ImageEntryOutside = "BH0608", Error, "The entry of a guest image lies inside its loaded bytes.";
    ImageOnBootInfo = "BH0609", Error, "A guest image leaves free where its boot information goes: the page at 0x1000, on a PC 0xe0000 to 0xfffff.";
    BadArguments = "BH0610", Error, "Arguments are printable ASCII that fits the boot information.";
    ImageEntryData = "BH0611", Error, "The entry of a guest image lies in a segment of code.";
    ImageAmbiguous = "BH0612", Error, "The folder of a guest says in one way how it is built.";
    TwoPrograms = "BH0613", Error, "A partition runs an image or a kernel, not both.";
    KernelKey = "BH0614", Error, "`cmdline` goes with a kernel, `arguments` and a bare platform with an image, a RAM disk with either on a PC.";
    KernelMissing = "BH0615", Error, "A kernel and an initial RAM disk are files.";
    KernelForm = "BH0616", Error, "A kernel is a bzImage.";
    KernelBroken = "BH0617", Error, "A kernel is whole and consistent.";
    Kernel32Bit = "BH0618", Error, "A kernel has the 64-bit entry.";
    KernelTooOld = "BH0619", Error, "A kernel speaks Linux's boot protocol 2.12 or later.";
    KernelDoesNotFit = "BH0620", Error, "A partition's memory holds what its kernel needs to start.";
    RamdiskEmpty = "BH0621", Error, "An initial RAM disk is not empty.";
    RamdiskDoesNotFit = "BH0622", Error, "An initial RAM disk fits the partition's memory beside the kernel, or behind the image.";
    CommandLineTooLong = "BH0623", Error, "A command line is no longer than its kernel takes.";
    ImageDemands = "BH0624", Error, "A guest image demands to be started in a way that there is, and nothing that a partition has not.";

    ShutdownUnknown = "BH0701", Error, "The shutdown waits for partitions of the system, each named once.";
    ShutdownEmpty = "BH0702", Error, "The shutdown waits for at least one partition.";
    LogWithoutWindows = "BH0703", Error, "Windows are logged where there are windows.";
    EndsWithinFrame = "BH0704", Error, "The system runs for one major frame at least.";
    LimitOnNothing = "BH0705", Error, "A limit is on what the system has: timers and exits on a dedicated core, windows and switches on a time-shared one.";
    LimitsEmpty = "BH0706", Error, "A section of limits sets one.";

    ShortWindow = "BH0901", Warning, "A window is longer than the switch before it, hygiene included.";
    SharedCache = "BH0902", Warning, "A partition with cores of its own shares no first- or second-level cache with another one.";
    SmallPages = "BH0903", Warning, "A partition's memory is a multiple of 2 MiB, so that large pages map all of it.";
    NoSerialPort = "BH0904", Warning, "The board has a serial port, which carries the log, consoles, typed input and measurements.";
}
