//! The language: its sections and keys, as data. The reader refuses by it, the README is written from it.

mod devices;

pub use devices::{
    ABILITIES, CACHE_ALLOCATION, IO_APIC, IOMMU, OVERRIDE, PCI, PCI_BAR, RESERVED, TIMERS,
};

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A string.
    Text,
    /// A name: `[a-z][a-z0-9-]*`, at most 32 characters.
    Name,
    /// A path, relative to the file that holds it.
    Path,
    /// The path of a board file, relative to the system file.
    Board,
    /// `"100 ns"`, `"20 us"`, `"1.5 ms"`, `"1 s"`, `"1000 ticks"`.
    Duration,
    /// `"64 KiB"`, `"8 MiB"`, `"1 GiB"`.
    Size,
    /// `"50 MHz"`.
    Frequency,
    /// `"0.1 %"`.
    Percentage,
    /// An integer, or a string with a hexadecimal number: `0x3f8`, `"0x100000"`.
    Address,
    /// An integer.
    Number,
    /// A list of integers.
    Numbers,
    /// A list of names.
    Names,
    /// A list of paths, each relative to the file that holds it.
    Paths,
    /// A list of plans.
    Plans,
    /// `true` or `false`.
    Flag,
    /// A list of what is cleaned at a switch: words of [`HYGIENE_WORDS`].
    Hygiene,
    /// A machine: a word of [`PLATFORM_WORDS`].
    Platform,
    /// One word out of these.
    Word {
        /// All that there are.
        words: &'static [&'static str],
        /// One of them, as it is written.
        example: &'static str,
    },
    /// A list of PCI functions: `["0000:00:1f.2"]`.
    Functions,
    /// A table of its own, `[section]`.
    Table(&'static Section),
    /// Any number of tables, `[[section]]`.
    Tables(&'static Section),
    /// Tables by their names, `[section.NAME]`.
    NamedTables(&'static Section),
}

impl Form {
    /// Whether a file and what it includes may each have some of it; everything else is there once.
    #[must_use]
    pub const fn adds_up(self) -> bool {
        matches!(self, Self::Paths | Self::Tables(_) | Self::NamedTables(_))
    }

    /// With its article, for messages and the README.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Name => "a name",
            Self::Path => "a path",
            Self::Board => "the path of a board file",
            Self::Duration => "a duration",
            Self::Size => "a size",
            Self::Frequency => "a frequency",
            Self::Percentage => "a percentage",
            Self::Address => "a number or a hexadecimal string",
            Self::Number => "an integer",
            Self::Numbers => "a list of integers",
            Self::Names => "a list of names",
            Self::Paths => "a list of paths",
            Self::Plans => "a list of plans",
            Self::Flag => "true or false",
            Self::Hygiene => "a list of `l1d-flush`, `branch-barrier`, `buffer-clear`",
            Self::Platform => "`bare` or `pc`",
            Self::Word { .. } => "a word",
            Self::Functions => "a list of PCI addresses",
            Self::Table(_) => "a section of its own",
            Self::Tables(_) => "any number of sections",
            Self::NamedTables(_) => "sections by name",
        }
    }

    /// How it is written.
    #[must_use]
    pub const fn example(self) -> &'static str {
        match self {
            Self::Text => "\"period=100us\"",
            Self::Name => "\"motion\"",
            Self::Path => "\"guests/latency\"",
            Self::Board => "\"boards/bochs-skylake-x.toml\"",
            Self::Duration => "\"20 us\"",
            Self::Size => "\"8 MiB\"",
            Self::Frequency => "\"50 MHz\"",
            Self::Percentage => "\"0.1 %\"",
            Self::Address => "0x100000",
            Self::Number => "1",
            Self::Numbers => "[1]",
            Self::Names => "[\"motion\", \"plc\"]",
            Self::Paths => "[\"shared/lines.toml\"]",
            Self::Plans => "[\"normal\", \"maintenance\"]",
            Self::Flag => "true",
            Self::Hygiene => "[\"l1d-flush\", \"buffer-clear\"]",
            Self::Platform => "\"pc\"",
            Self::Word { example, .. } => example,
            Self::Functions => "[\"0000:00:1f.2\"]",
            Self::Table(section) | Self::Tables(section) | Self::NamedTables(section) => {
                section.header
            }
        }
    }
}

/// A key that the hypervisor enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// As written.
    pub name: &'static str,
    /// What its value looks like.
    pub form: Form,
    /// Whether it must be there.
    pub required: bool,
    /// A key of the same section that may stand there instead.
    pub instead: Option<&'static str>,
    /// What it does.
    pub meaning: &'static str,
}

/// A key that the design foresees: refused until the hypervisor enforces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later {
    /// As it will be written.
    pub name: &'static str,
    /// What it will do.
    pub meaning: &'static str,
}

/// A table of a system or board file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// As written, such as `[schedule]`.
    pub header: &'static str,
    /// What it is about.
    pub meaning: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// Keys to come.
    pub later: &'static [Later],
}

impl Section {
    /// The key of this name.
    #[must_use]
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

const fn must(name: &'static str, form: Form, meaning: &'static str) -> Key {
    Key { name, form, required: true, instead: None, meaning }
}

/// Needed, unless the key `instead` is there.
const fn either(
    name: &'static str,
    instead: &'static str,
    form: Form,
    meaning: &'static str,
) -> Key {
    Key { name, form, required: true, instead: Some(instead), meaning }
}

const fn may(name: &'static str, form: Form, meaning: &'static str) -> Key {
    Key { name, form, required: false, instead: None, meaning }
}

const fn later(name: &'static str, meaning: &'static str) -> Later {
    Later { name, meaning }
}

/// At the top of a system or board file, or of what one includes.
pub(crate) const INCLUDE: Key = may(
    "include",
    Form::Paths,
    "files whose sections stand before those of this one; nothing in them is overridden",
);

/// A system file as a whole.
pub const SYSTEM_FILE: Section = Section {
    header: "the system file",
    meaning: "Who owns which cores, memory and time.",
    keys: &[
        INCLUDE,
        must("system", Form::Table(&SYSTEM), "names the system and its board"),
        may("schedule", Form::Table(&SCHEDULE), "the major frame"),
        may("shutdown", Form::Table(&SHUTDOWN), "when the system ends by itself"),
        may("log", Form::Table(&LOG), "what is logged beyond events"),
        may("limits", Form::Table(&LIMITS), "what `bulkhead measure` holds its figures to"),
        may(
            "housekeeping",
            Form::Table(&HOUSEKEEPING),
            "who drains the logs; always needed, under a rule of its own",
        ),
        must("partition", Form::NamedTables(&PARTITION), "the partitions, `[partition.NAME]`"),
    ],
    later: &[
        later("channel", "ports between partitions"),
        later("channels", "ports between partitions"),
        later("device", "devices handed to partitions"),
        later("devices", "devices handed to partitions"),
        later("health", "what follows a fault"),
    ],
};

/// `[system]`.
pub const SYSTEM: Section = Section {
    header: "[system]",
    meaning: "The system and the board that it is made for.",
    keys: &[
        must("name", Form::Name, "names the system in logs and reports"),
        must("board", Form::Board, "the board file"),
    ],
    later: &[],
};

/// `[schedule]`.
pub const SCHEDULE: Section = Section {
    header: "[schedule]",
    meaning: "Time on all time-shared cores; there only where a core has windows.",
    keys: &[
        must(
            "frame",
            Form::Duration,
            "length of the major frame in every plan: the windows of each time-shared core repeat after it",
        ),
        may(
            "plans",
            Form::Plans,
            "names of the plans; the system starts in the first. Without it there is one, `normal`",
        ),
    ],
    later: &[],
};

/// `[log]`.
pub const LOG: Section = Section {
    header: "[log]",
    meaning: "What is logged beyond events.",
    keys: &[must(
        "windows",
        Form::Flag,
        "whether each window that ran is logged, for a picture of time",
    )],
    later: &[],
};

/// `[limits]`.
pub const LIMITS: Section = Section {
    header: "[limits]",
    meaning: "What `bulkhead measure` holds its figures to: one that is not kept fails the measurement, and so does one that nothing \
              measured. The hypervisor does not look at it. Keys are named as in reports.",
    keys: &[
        may("timer", Form::Table(&LIMITS_TIMER), "how late timers wake tasks on dedicated cores"),
        may(
            "window",
            Form::Table(&LIMITS_WINDOW),
            "how far behind their declared starts windows begin, as the guest sees it",
        ),
        may("switch", Form::Duration, "most that a switch of partitions takes, waiting left out"),
        may(
            "exits_per_second",
            Form::Number,
            "most exits a second in the measured span of a partition on dedicated cores",
        ),
    ],
    later: &[],
};

/// Values of a distribution that can be limited.
const DISTRIBUTION: &[Key] = &[
    may("median", Form::Duration, "half of the samples are not above it"),
    may("p90", Form::Duration, "the same of 90 % of them"),
    may("p99", Form::Duration, "of 99 %"),
    may("p99_9", Form::Duration, "of 99.9 %"),
    may("p99_99", Form::Duration, "of 99.99 %; takes 10,000 samples"),
    may("p99_999", Form::Duration, "of 99.999 %; takes 100,000 samples"),
    may("max", Form::Duration, "no sample is above it"),
];

/// `[limits.timer]`.
pub const LIMITS_TIMER: Section = Section {
    header: "[limits.timer]",
    meaning: "How late the timers of tasks on dedicated cores wake them: the histograms `wakeup`.",
    keys: DISTRIBUTION,
    later: &[],
};

/// `[limits.window]`.
pub const LIMITS_WINDOW: Section = Section {
    header: "[limits.window]",
    meaning: "How far behind their declared starts windows begin, as the guest sees it: the histograms `window-start`.",
    keys: DISTRIBUTION,
    later: &[],
};

/// `[shutdown]`.
pub const SHUTDOWN: Section = Section {
    header: "[shutdown]",
    meaning: "When the system ends by itself; without it, it runs for ever.",
    keys: &[
        must("when-finished", Form::Names, "ends once each of these partitions has finished"),
        may("at-latest", Form::Duration, "ends this long after the start at the latest"),
    ],
    later: &[],
};

/// `[housekeeping]`.
pub const HOUSEKEEPING: Section = Section {
    header: "[housekeeping]",
    meaning: "Drains the logs, away from the partitions' time: a core of its own, or windows of a time-shared core.",
    keys: &[
        must("core", Form::Number, "the core; without windows it does nothing else"),
        may("window", Form::Tables(&HOUSEKEEPING_WINDOW), "its windows on a time-shared core"),
    ],
    later: &[],
};

/// `[partition.NAME]`.
pub const PARTITION: Section = Section {
    header: "[partition.NAME]",
    meaning: "One virtual machine. Without windows its cores are dedicated to it.",
    keys: &[
        either(
            "image",
            "kernel",
            Form::Path,
            "what runs in it, unless a `kernel` does: an ELF file, or the folder of a guest with a Cargo.toml or a Makefile",
        ),
        may("arguments", Form::Text, "the command line of an `image`"),
        may("kernel", Form::Path, "a Linux for x86-64 as it is, a bzImage; its platform is `pc`"),
        may(
            "initrd",
            Form::Path,
            "the initial RAM disk of a `kernel`; the module of an `image` on a PC",
        ),
        may("cmdline", Form::Text, "the command line of a `kernel`"),
        may(
            "platform",
            Form::Platform,
            "the machine around an `image`: `bare` has nothing but calls of the hypervisor; `pc` has a 16550 at port 0x3f8, a real-time clock, and registers for reset and power-off",
        ),
        must("memory", Form::Size, "its RAM, from guest-physical address 0 on"),
        must(
            "cores",
            Form::Numbers,
            "the cores that it runs on, ascending: one vCPU each, of which the first starts by itself",
        ),
        may("window", Form::Tables(&WINDOW), "its windows on time-shared cores"),
        may("off-in", Form::Plans, "plans in which it does not run: it has no windows there"),
        may("may-switch-plan", Form::Flag, "whether it may ask for another plan"),
        may(
            "donates-to",
            Form::Name,
            "the partition that may get the rest of a window of this one, on the same core",
        ),
        may(
            "hygiene",
            Form::Hygiene,
            "what is cleaned whenever a core passes to it from another partition, or from it to another; takes the time that the board's `[hygiene]` says",
        ),
        may(
            "accept-smt-sibling",
            Form::Names,
            "partitions that may run on other threads of its cores; each accepts the other",
        ),
    ],
    later: &[
        later("budget", "processor time within a window"),
        later("channel", "ports to other partitions"),
        later("channels", "ports to other partitions"),
        later("device", "devices of its own"),
        later("devices", "devices of its own"),
        later("health", "what follows a fault"),
        later("interrupts", "interrupts of its own"),
        later("ports", "I/O ports of its own"),
    ],
};

/// Keys of every window.
const WINDOW_START: Key =
    must("start", Form::Duration, "from the start of the frame to the first instant of guest time");
const WINDOW_LENGTH: Key = must("length", Form::Duration, "guest time");

/// `[[partition.NAME.window]]`.
pub const WINDOW: Section = Section {
    header: "[[partition.NAME.window]]",
    meaning: "A slice of the major frame; before its start, the board's switch budget and the time for hygiene are kept free.",
    keys: &[
        WINDOW_START,
        WINDOW_LENGTH,
        may("core", Form::Number, "on which core; needed where the partition has several"),
        may(
            "plans",
            Form::Plans,
            "in which plans; without it in each in which the partition is on",
        ),
    ],
    later: &[later("budget", "processor time within a window")],
};

/// `[[housekeeping.window]]`.
pub const HOUSEKEEPING_WINDOW: Section = Section {
    header: "[[housekeeping.window]]",
    meaning: "A slice of the major frame in which the logs are drained.",
    keys: &[
        WINDOW_START,
        WINDOW_LENGTH,
        may("plans", Form::Plans, "in which plans; without it in each"),
    ],
    later: &[],
};

/// What a partition may have cleaned at a switch.
pub const HYGIENE_WORDS: &[&str] = &["l1d-flush", "branch-barrier", "buffer-clear"];

/// The machines that a partition may have around its processors and memory; the first is the one without the key.
pub const PLATFORM_WORDS: &[&str] = &["bare", "pc"];

/// A board file as a whole.
pub const BOARD_FILE: Section = Section {
    header: "the board file",
    meaning: "What the hypervisor must find on the machine before it starts any partition.",
    keys: &[
        INCLUDE,
        must("board", Form::Table(&BOARD), "names the board"),
        must("clock", Form::Table(&CLOCK), "its time-stamp counter"),
        must("hypervisor", Form::Table(&HYPERVISOR), "the hypervisor's own memory"),
        may(
            "serial",
            Form::Table(&SERIAL),
            "where the log goes; without it, to the screen and to memory",
        ),
        may("power-off", Form::Table(&POWER_OFF), "how to switch the machine off"),
        may("power", Form::Table(&POWER), "who owns frequency, turbo and idle states"),
        may("hygiene", Form::Table(&HYGIENE), "what cleaning at a switch of partitions takes"),
        must(
            "core",
            Form::Tables(&CORE),
            "its cores, `[[core]]`, numbered from 0 in the order of the file; core 0 boots",
        ),
        may("cache", Form::Tables(&CACHE), "its caches, `[[cache]]`"),
        must("memory", Form::Tables(&MEMORY), "its usable RAM, `[[memory]]`"),
        may("reserved", Form::Tables(&RESERVED), "memory that firmware keeps, `[[reserved]]`"),
        may("abilities", Form::Table(&ABILITIES), "what the processor can do"),
        may(
            "cache-allocation",
            Form::Tables(&CACHE_ALLOCATION),
            "caches that can be divided, `[[cache-allocation]]`",
        ),
        may("timers", Form::Table(&TIMERS), "timers of the chipset"),
        may("io-apic", Form::Tables(&IO_APIC), "where interrupt lines arrive, `[[io-apic]]`"),
        may(
            "override",
            Form::Tables(&OVERRIDE),
            "ISA interrupts that arrive elsewhere, `[[override]]`",
        ),
        may("pci", Form::Tables(&PCI), "PCI functions, `[[pci]]`"),
        may("iommu", Form::Tables(&IOMMU), "IOMMUs, `[[iommu]]`"),
    ],
    later: &[
        later("device", "devices to hand to partitions"),
        later("devices", "devices to hand to partitions"),
        later("interrupts", "interrupt routing"),
    ],
};

/// `[board]`.
pub const BOARD: Section = Section {
    header: "[board]",
    meaning: "The machine.",
    keys: &[must("name", Form::Name, "names the board in logs and reports")],
    later: &[],
};

/// `[clock]`.
pub const CLOCK: Section = Section {
    header: "[clock]",
    meaning: "The time-stamp counter (TSC), measured at boot against these figures.",
    keys: &[
        must("tsc", Form::Frequency, "its frequency: one tick of all schedules"),
        must("tolerance", Form::Percentage, "largest deviation of the measured frequency"),
        may(
            "vouched",
            Form::Flag,
            "the file vouches for a TSC of one rate in every state, which CPUID does not announce; boot then measures it twice",
        ),
        must("skew", Form::Duration, "largest difference between the TSCs of two cores"),
        must(
            "switch-budget",
            Form::Duration,
            "time before each window kept free for the switch into it",
        ),
    ],
    later: &[],
};

/// `[hypervisor]`.
pub const HYPERVISOR: Section = Section {
    header: "[hypervisor]",
    meaning: "Memory of the hypervisor: its image, its stacks, the staged guest images.",
    keys: &[
        must("start", Form::Address, "first byte; the hypervisor is linked to start at 0x100000"),
        must("size", Form::Size, "length"),
    ],
    later: &[],
};

/// `[serial]`.
pub const SERIAL: Section = Section {
    header: "[serial]",
    meaning: "The 16550 port that carries the log: at I/O ports, or with its registers in memory. A board without one leaves the section out: \
        its log goes to the screen and to memory.",
    keys: &[
        may("port", Form::Address, "its first I/O port; COM1 is 0x3f8"),
        may("address", Form::Address, "its first register in memory, where it has no `port`"),
        may(
            "stride",
            Form::Number,
            "with `address`: bytes from one register to the next, 1, 2, 4 or 8; without it 1",
        ),
        may("width", Form::Number, "with `address`: bits of an access, 8 or 32; without it 8"),
        may("clock", Form::Frequency, "its input clock; without it 1.8432 MHz"),
        must("baud", Form::Number, "bits a second; a sixteenth of the clock or less"),
    ],
    later: &[],
};

/// `[power-off]`.
pub const POWER_OFF: Section = Section {
    header: "[power-off]",
    meaning: "How to switch the machine off at the end; without it, it halts with a sentence.",
    keys: &[
        must("port", Form::Address, "the I/O port"),
        must("bytes", Form::Text, "the text whose bytes are written to it, one at a time"),
    ],
    later: &[],
};

/// What `[power]` says: the hypervisor's word, and that it stays as firmware left it.
const TURBO: Form = Form::Word { words: &["off", FIRMWARE], example: "\"off\"" };
const FREQUENCY: Form = Form::Word { words: &["base", FIRMWARE], example: "\"base\"" };
const IDLE: Form = Form::Word { words: &["c1", FIRMWARE], example: "\"c1\"" };

/// As firmware left it.
pub const FIRMWARE: &str = "firmware";

/// `[power]`.
pub const POWER: Section = Section {
    header: "[power]",
    meaning: "Who owns frequency, turbo and idle states: the hypervisor sets them at boot, on each core, or they stay as `firmware` left them, \
        which is so without a key too.",
    keys: &[
        may("turbo", TURBO, "`off` (IA32_MISC_ENABLE), or `firmware`"),
        may(
            "frequency",
            FREQUENCY,
            "`base`: held at the guaranteed one (HWP, or IA32_PERF_CTL), or `firmware`",
        ),
        may("idle", IDLE, "`c1`: nothing deeper, C1E neither (MSR_POWER_CTL), or `firmware`"),
    ],
    later: &[],
};

/// `[hygiene]`.
pub const HYGIENE: Section = Section {
    header: "[hygiene]",
    meaning: "What cleaning at a switch of partitions takes at most; needed where a partition asks for it.",
    keys: &[
        may("l1d-flush", Form::Duration, "flush of the level-1 data cache (IA32_FLUSH_CMD)"),
        may(
            "branch-barrier",
            Form::Duration,
            "indirect branch prediction barrier (IBPB, IA32_PRED_CMD)",
        ),
        may("buffer-clear", Form::Duration, "overwriting of the processor's buffers (VERW)"),
    ],
    later: &[],
};

/// `[[core]]`.
pub const CORE: Section = Section {
    header: "[[core]]",
    meaning: "A logical processor.",
    keys: &[
        must("apic-id", Form::Number, "its local APIC id"),
        may("package", Form::Number, "its package (socket), as CPUID leaf 0BH or 1FH numbers it"),
        may("core", Form::Number, "its core within the package"),
        may("thread", Form::Number, "its thread within the core: the others are its SMT siblings"),
    ],
    later: &[],
};

/// `[[cache]]`.
pub const CACHE: Section = Section {
    header: "[[cache]]",
    meaning: "A cache that holds data, and the cores that share it.",
    keys: &[
        must("level", Form::Number, "1 to 4; 1 is nearest to the core"),
        must("size", Form::Size, "its bytes"),
        must("cores", Form::Numbers, "who shares it, by the numbers of the cores"),
    ],
    later: &[],
};

/// `[[memory]]`.
pub const MEMORY: Section = Section {
    header: "[[memory]]",
    meaning: "A range of usable RAM, in ascending order.",
    keys: &[
        must("start", Form::Address, "first byte; page-aligned"),
        must("size", Form::Size, "length; whole pages"),
    ],
    later: &[],
};

/// Every section of a system file, in the order of the README.
pub const SYSTEM_SECTIONS: &[&Section] = &[
    &SYSTEM_FILE,
    &SYSTEM,
    &SCHEDULE,
    &SHUTDOWN,
    &LOG,
    &LIMITS,
    &LIMITS_TIMER,
    &LIMITS_WINDOW,
    &HOUSEKEEPING,
    &HOUSEKEEPING_WINDOW,
    &PARTITION,
    &WINDOW,
];

/// Every section of a board file, in the order of the README.
pub const BOARD_SECTIONS: &[&Section] = &[
    &BOARD_FILE,
    &BOARD,
    &CLOCK,
    &HYPERVISOR,
    &SERIAL,
    &POWER_OFF,
    &POWER,
    &HYGIENE,
    &CORE,
    &CACHE,
    &MEMORY,
    &RESERVED,
    &ABILITIES,
    &CACHE_ALLOCATION,
    &TIMERS,
    &IO_APIC,
    &OVERRIDE,
    &PCI,
    &PCI_BAR,
    &IOMMU,
];
