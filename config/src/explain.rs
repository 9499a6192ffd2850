//! The explanation of each rule: why it exists, a file that breaks it, and what mends that file.
//!
//! The bad example is the rejecting file of the tests itself, and the good one is made from it by the changes that
//! stand here, so that neither drifts from what the compiler does. A rule without an explanation does not compile.

use crate::rules::Rule;

/// Longest example that is shown as a whole, in lines.
const WHOLE_LINES: usize = 40;

/// Of a longer one, so many lines are shown at its beginning and at its end.
const END_LINES: usize = 6;

/// Longest line that is shown as a whole, in characters.
const WHOLE_LINE: usize = 110;

/// Why a rule exists, with an example on each side of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Why the rule exists: what would go wrong without it.
    pub why: &'static str,
    /// The file that breaks it, by its path below `config/tests/reject`: a system file, or a board file in `boards`.
    pub file: &'static str,
    /// The text of that file.
    pub bad: &'static str,
    /// What mends it: texts and what takes their place, in this order.
    changes: &'static [(&'static str, &'static str)],
}

impl Explanation {
    /// The good example, whole: the bad one with its changes.
    #[must_use]
    pub fn good(&self) -> String {
        let mend = |text: String, (old, new): &(&str, &str)| text.replacen(old, new, 1);
        self.changes.iter().fold(self.bad.to_owned(), mend)
    }

    /// The bad example as it is shown: whole, or of a long one the sections that differ from the good one.
    #[must_use]
    pub fn shown_bad(&self) -> String {
        if self.bad.lines().count() <= WHOLE_LINES {
            return shortened(self.bad.trim_end());
        }
        shortened(&sections_without(self.bad, &self.good()))
    }

    /// What of the good example is not in the bad one, by whole sections; a sentence where it only leaves some out.
    #[must_use]
    pub fn shown_good(&self) -> String {
        let changed = sections_without(&self.good(), self.bad);
        shortened(&if changed.is_empty() { self.left_out() } else { changed })
    }

    fn left_out(&self) -> String {
        let gone = sections_without(self.bad, &self.good());
        let quoted: Vec<_> = gone.lines().map(|line| format!("# {line}")).collect();
        format!("# The same without:\n{}", quoted.join("\n").replace("# \n", "#\n"))
    }
}

/// The text without the middle of what is long.
fn shortened(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(shortened_line).collect();
    if lines.len() <= WHOLE_LINES {
        return lines.join("\n");
    }
    let (head, rest) = lines.split_at(END_LINES);
    let (_, tail) = rest.split_at(rest.len() - END_LINES);
    format!("{}\n...\n{}", head.join("\n"), tail.join("\n"))
}

fn shortened_line(line: &str) -> String {
    match line.char_indices().nth(WHOLE_LINE) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or(line)),
        None => line.to_owned(),
    }
}

/// The sections of `text`, divided by empty lines, that `other` does not have.
fn sections_without(text: &str, other: &str) -> String {
    let known: Vec<&str> = sections(other).collect();
    let own: Vec<_> = sections(text).filter(|section| !known.contains(section)).collect();
    own.join("\n\n")
}

fn sections(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").map(str::trim).filter(|section| !section.is_empty())
}

macro_rules! explanations {
    ($($rule:ident, $file:literal, $why:literal, [$($old:literal => $new:literal),+ $(,)?];)+) => {
        impl Rule {
            /// Why it exists, and an example on each side of it.
            #[must_use]
            pub const fn explanation(self) -> Explanation {
                match self {
                    $(Self::$rule => Explanation {
                        why: $why,
                        file: $file,
                        bad: include_str!(concat!("../tests/reject/", $file)),
                        changes: &[$(($old, $new)),+],
                    },)+
                }
            }
        }
    };
}

explanations! {
    Syntax, "BH0101-broken-line.toml",
    "Nothing can be proven about a file that cannot be read. A text lacks its closing quote most of the time, and the \
     lines behind it are then read as part of it.",
    ["image = \"good.elf\n" => "image = \"good.elf\"\n", "nonsense\n" => ""];

    UnknownKey, "BH0102-unknown-key.toml",
    "A key that nobody reads is the worst kind of mistake: the file says one thing, the machine does another, and no \
     message tells. So a misspelt key is refused like a wrong one.",
    ["argument = " => "arguments = ", "colour = \"red\"\n" => "", "\n[schedul]\nframe = \"2 ms\"\n" => ""];

    NotEnforced, "BH0103-not-enforced.toml",
    "These keys are to come. Until the hypervisor enforces one, writing it would promise what nothing holds.",
    [
        "devices = [\"00:1f.2\"]\nports = [\"0x60\"]\ninterrupts = [1]\nhealth = \"restart\"\nbudget = \"1 ms\"\n" => "",
        "\n[channel.setpoints]\nfrom = \"a\"\n" => "",
    ];

    MissingKey, "BH0104-missing-keys.toml",
    "A required key has no default that is right for every machine: memory, a core and an image are yours to name. A \
     default would be a decision that nobody took.",
    [
        "name = \"test\"\n" => "name = \"test\"\nboard = \"boards/bochs-skylake-x.toml\"\n",
        "image = \"good.elf\"\n" => "image = \"good.elf\"\nmemory = \"8 MiB\"\n",
    ];

    WrongType, "BH0105-wrong-type.toml",
    "TOML tells a text from a number from a list, and so does the language: guessing what was meant would be silent \
     misconfiguration.",
    [
        "image = [\"good.elf\"]" => "image = \"good.elf\"",
        "cores = 1" => "cores = [1]",
        "cores = [\"2\"]" => "cores = [2]",
        "\n[partition]\nc = 3\n" => "",
    ];

    MissingUnit, "BH0106-bare-number.toml",
    "Is 20 a count of microseconds, of milliseconds or of ticks? A reader of the plant's files must not have to know \
     our habits, so each quantity says its unit.",
    [
        "frame = 2" => "frame = \"2 ms\"",
        "memory = 8388608" => "memory = \"8 MiB\"",
        "start = \"20\"" => "start = \"20 us\"",
        "length = \"600\"" => "length = \"600 us\"",
        "memory = \"8\"" => "memory = \"8 MiB\"",
    ];

    WrongUnit, "BH0107-wrong-unit.toml",
    "One spelling for each unit, so that files can be compared and searched. `MB` is refused because half of the world \
     means 1,000,000 bytes by it, and the other half 1,048,576.",
    [
        "frame = \"64 KiB\"" => "frame = \"2 ms\"",
        "memory = \"8 ms\"" => "memory = \"8 MiB\"",
        "20 usec" => "20 us",
        "600 fortnights" => "600 us",
        "memory = \"8 MB\"" => "memory = \"8 MiB\"",
    ];

    BadNumber, "BH0108-bad-numbers.toml",
    "A number outside its range has no meaning on the machine: there is no core -2, and a frame of centuries does not \
     fit the counter.",
    [
        "99999999999999 s" => "2 ms",
        "many MiB" => "8 MiB",
        "1.0000000000000000000 MiB" => "8 MiB",
        "cores = [-2]" => "cores = [2]",
    ];

    Inexact, "BH0109-inexact.toml",
    "Rounding in silence is how two files that look alike drift apart: a window that is short by half a tick is late \
     by an hour after a long run. What you write is what happens, to the tick, or it is refused with the two nearest \
     values.",
    ["20.005 us" => "20 us", "0.3 KiB" => "8 MiB"];

    BadName, "BH0110-names.toml",
    "Names travel: into file names, logs, reports and the boot loader's modules. Lower-case letters, digits and hyphens \
     mean the same everywhere. `housekeeping`, `hypervisor`, `bulkhead` and `boot` are the hypervisor's own in logs and reports.",
    [
        "[partition.Motion]" => "[partition.motion]",
        "[partition.\"\"]" => "[partition.plc]",
        "[partition.housekeeping]" => "[partition.office]",
    ];

    DuplicateName, "BH0111-partition-twice.toml",
    "Of two values for one key, one would win in silence.",
    [
        "[partition.a]\nimage = \"good.elf\"\nmemory = \"8 MiB\"\ncores = [2]\ncores = [3]\n"
            => "[partition.b]\nimage = \"good.elf\"\nmemory = \"8 MiB\"\ncores = [2]\n",
    ];

    Unreadable, "BH0112-no-board.toml",
    "A system is proven against one board; without it, there is nothing to prove. The path counts from the folder of \
     the file that names it.",
    ["boards/press.toml" => "boards/bochs-skylake-x.toml"];

    IncludeCycle, "BH0113-itself.toml",
    "A file that includes itself has no beginning: each of its sections would be given again and again.",
    ["include = [\"system.toml\"]\n\n" => ""];

    IncludeTwice, "BH0114-twice.toml",
    "Sections that are included twice claim everything twice. It is one file by two paths most of the time.",
    [", \"boards/../shared/lines.toml\"" => ""];

    UnknownWord, "BH0115-hygiene.toml",
    "A word that nobody knows would be a wish that nobody fulfils.",
    ["\"l1d-flash\", \"everything\"" => "\"l1d-flush\", \"branch-barrier\", \"buffer-clear\""];

    EmptyList, "BH0116-no-hygiene.toml",
    "A list of nothing looks as if something had been decided. Without the key it is plain that nothing is cleaned.",
    ["hygiene = []\n" => ""];

    WrongKind, "BH0117-no-board.toml",
    "Each of its sections would be unknown and each needed one missing: one slip, told twenty times.",
    ["boards/../shared/lines.toml" => "boards/bochs-skylake-x.toml"];

    DuplicateApicId, "boards/duplicate-apic-id.toml",
    "The APIC id is the address of a core: with two of one id, one core is never reached, or starts twice.",
    ["apic-id = 2\n[[core]]\napic-id = 1" => "apic-id = 2\n[[core]]\napic-id = 3"];

    BoardMemoryUnaligned, "boards/unaligned-memory.toml",
    "Page tables guard whole pages. A range that ends inside one would give its neighbour's bytes away with it.",
    ["size = \"0 MiB\"" => "size = \"31 MiB\"", "0x100010" => "0x100000", "510.5 KiB" => "510 MiB"];

    BoardMemoryOrder, "boards/overlapping-memory.toml",
    "Memory that is listed twice would be given to two owners. Ascending order lets a reader see holes and overlaps.",
    [
        "size = \"510 MiB\"" => "size = \"63 MiB\"",
        "start = \"0x10000000\"" => "start = \"0x4000000\"",
        "start = \"0x4000000\"\nsize = \"64 MiB\"\n[[memory]]\nstart = \"0x4000000\""
            => "start = \"0x4000000\"\nsize = \"64 MiB\"\n[[memory]]\nstart = \"0x10000000\"",
    ];

    HypervisorOutside, "boards/hypervisor-outside.toml",
    "The boot loader writes the hypervisor and the staged images into this range. Where there is no RAM, the machine \
     dies before it can say why.",
    ["size = \"511 MiB\"" => "size = \"31 MiB\""];

    HypervisorTooSmall, "BH0205-images-too-large.toml",
    "The range also keeps each guest's image as it was proven. What does not fit would overwrite memory behind it. The \
     range is the board's to make larger: here another board has more.",
    ["boards/small-hypervisor.toml" => "boards/bochs-skylake-x.toml"];

    BadBaud, "boards/odd-baud.toml",
    "A 16550 divides a sixteenth of its clock by a whole number. At any other rate the log would arrive as noise, on the day when it is \
     needed.",
    ["baud = 100000" => "baud = 115200"];

    TooManyCores, "boards/many-cores.toml",
    "The table of the hypervisor has room for so many cores and no heap to grow. A board may have more: name the ones \
     to use.",
    ["    { apic-id = 256 },\n" => ""];

    PowerOffEmpty, "boards/empty-power-off.toml",
    "A power-off that writes nothing leaves the machine on, and everybody believes it is off.",
    ["bytes = \"\"" => "bytes = \"Shutdown\""];

    HypervisorStart, "boards/moved-hypervisor.toml",
    "The hypervisor is linked to one address and uses 32-bit addresses until paging is on. Loaded elsewhere, its first \
     jump goes astray.",
    ["start = \"0x200000\"" => "start = \"0x100000\""];

    BoardMemoryLow, "boards/low-memory.toml",
    "Firmware keeps its tables below 1 MiB, and the other cores start there. A guest on top of it stops both.",
    ["start = 0\nsize = \"511 MiB\"" => "start = \"0x100000\"\nsize = \"510 MiB\""];

    TopologyIncomplete, "boards/half-positions.toml",
    "Which threads share a core is known of all cores or of none: one gap would hide a sibling.",
    ["apic-id = 2\n" => "apic-id = 2\npackage = 0\ncore = 1\nthread = 0\n",
     "apic-id = 3\npackage = 0\ncore = 1\n" => "apic-id = 3\npackage = 0\ncore = 1\nthread = 1\n"];

    PositionTwice, "boards/position-twice.toml",
    "Two logical processors cannot be the same thread. One of the two is somewhere else, beside somebody who is not asked.",
    ["apic-id = 3\npackage = 0\ncore = 1\nthread = 0" => "apic-id = 3\npackage = 0\ncore = 1\nthread = 1"];

    CacheShape, "boards/cache-shape.toml",
    "A cache without bytes, without cores, or of a level that no processor has says nothing that could be checked.",
    ["level = 0" => "level = 1", "level = 5" => "level = 1", "\"0 B\"" => "\"32 KiB\"", "cores = []" => "cores = [3]"];

    CacheCores, "boards/cache-cores.toml",
    "A cache that names the wrong cores makes neighbours of strangers, and hides the true ones.",
    ["cores = [0, 4]" => "cores = [0, 1]", "cores = [0, 1, 1, 2, 3]" => "cores = [0, 1, 2, 3]"];

    CacheTwice, "boards/cache-twice.toml",
    "A core loads data through one cache of a level. In two of them it would be a neighbour of cores that it shares nothing with. \
     Caches for instructions are left out.",
    ["cores = [1, 2]" => "cores = [2, 3]"];

    CacheNesting, "boards/cache-nesting.toml",
    "Larger caches stand behind smaller ones, so that whoever shares the small one shares the large one.",
    ["cores = [0, 2, 3]" => "cores = [0, 1, 2, 3]"];

    CacheSplitsSiblings, "boards/cache-splits.toml",
    "Threads of one core load through the same caches.",
    ["cores = [0]" => "cores = [0, 1]"];

    RegistersInMemory, "boards/registers-in-memory.toml",
    "An access to these addresses reaches either the device or the RAM. A partition that were given that RAM \
     would program the device.",
    ["0x1ec00000" => "0xfec00000"];

    RegistersOverlap, "boards/registers-overlap.toml",
    "Two devices at one address answer at once, or one hides the other. Who is given one of them would hold both.",
    ["start = \"0xfed00000\"" => "start = \"0xfeb00000\""];

    PortsOverlap, "boards/ports-overlap.toml",
    "A port that two devices answer is nobody's: the log would run through the clock.",
    ["0x3fc" => "0xb008"];

    InterruptsOverlap, "boards/interrupts-overlap.toml",
    "An interrupt is named by its number alone. If two pins have one number, masking one leaves the other open.",
    ["first-interrupt = 16" => "first-interrupt = 24"];

    OverrideUnknown, "boards/override-unknown.toml",
    "An interrupt that leads to no pin never arrives, and whoever waits for it waits for ever.",
    ["interrupt = 40" => "interrupt = 2"];

    OverrideTwice, "boards/override-twice.toml",
    "One of the two would win, and the file does not say which.",
    ["\n[[override]]\nirq = 0\ninterrupt = 5\ntrigger = \"edge\"\npolarity = \"high\"\n" => ""];

    PciNotation, "boards/pci-notation.toml",
    "One spelling, so that files can be compared and searched, and so that no segment is guessed.",
    ["00:1f.2" => "0000:00:1f.0", "0x8086" => "8086:2922", "SATA" => "010601"];

    PciTwice, "boards/pci-twice.toml",
    "A function that is listed twice could be given away twice.",
    ["\n[[pci]]\naddress = \"0000:00:02.0\"\nid = \"8086:2930\"\nclass = \"010601\"\n" => ""];

    PciNoFunctionZero, "boards/pci-no-function-zero.toml",
    "Software looks for function 0 first and takes its absence for an empty slot. Where it is missing from the \
     file, a part of the device was overlooked, and parts of one device often share more than they show.",
    ["1f.2" => "1f.0"];

    BarShape, "boards/bar-shape.toml",
    "A base address register masks the low bits of an address. What is no power of two, or not at a multiple of \
     itself, was mistyped, and the page tables would open the neighbour's registers.",
    ["3 KiB" => "4 KiB", "0xfeb11000" => "0xfeb10000"];

    BarTwice, "boards/bar-twice.toml",
    "A function has six of them. A number that repeats, or goes beyond, belongs to another function.",
    ["index = 0\nspace = \"memory\"\nstart = \"0xfeb10000\"" => "index = 1\nspace = \"memory\"\nstart = \"0xfeb10000\"", "index = 6" => "index = 2"];

    MsiCount, "boards/msi-count.toml",
    "Blocks of MSI vectors are powers of two by their encoding. Another number was mistyped, and vectors would be \
     set aside that never come.",
    ["msi = 3" => "msi = 4", "msi-x = 4096" => "msi-x = 5"];

    ReservedInMemory, "boards/reserved-in-memory.toml",
    "Firmware writes there from its own interrupts, or lets a device do so: a partition in that memory would be \
     changed under its feet.",
    ["0x1ff00000" => "0x1fff0000", "0x8000000" => "0x20000000"];

    PciUnknown, "boards/pci-unknown.toml",
    "What the IOMMU does with a function that nobody lists, nobody checks.",
    ["00:03.0" => "00:02.0", "00:04.0" => "00:02.0"];

    IommuTwice, "boards/iommu-twice.toml",
    "The accesses of a function go through one IOMMU. Programmed in the other one, a wall would stand where \
     nobody passes.",
    ["registers = \"0xfed90000\"\nsegment = 0\nrest = true\ndevices = [\"0000:00:02.0\"]" => "registers = \"0xfed90000\"\nsegment = 0\nrest = false"];

    DevicesWithoutDma, "boards/devices-without-dma.toml",
    "The list says which devices keep a way into this memory. On memory without one, it would say something that \
     nothing does.",
    ["\"acpi-tables\"" => "\"dma\""];

    AbilityMissing, "boards/ability-missing.toml",
    "The hypervisor verifies these at boot and refuses the machine. Known from the board file, it is refused on \
     the desk and not in the plant.",
    ["\"no-execute\"]" => "\"no-execute\", \"invariant-tsc\"]"];

    TimerMissing, "boards/no-pm-timer.toml",
    "The hypervisor measures the time-stamp counter against the PM timer before it starts any partition: all windows are counted in its ticks. \
     A machine without one is refused at boot. Firmware's FADT names its I/O port; `bulkhead probe` reads it.",
    ["hpet = " => "pm-timer = 0x608\nhpet = "];

    CacheAllocationTwice, "boards/cache-allocation-twice.toml",
    "CPUID tells of caches of level 2 and 3, each once. Another level was mistyped, and its ways could not be \
     given to anybody.",
    ["level = 3\nways = 20" => "level = 2\nways = 20", "\n[[cache-allocation]]\nlevel = 1\nways = 8\nclasses = 16\n" => ""];

    SerialPorts, "boards/high-serial.toml",
    "The log would go to ports that are not there, or upset the interrupt controllers with every letter.",
    ["port = 0xfff9" => "port = 0x3f8"];

    PowerOffPort, "boards/power-off-on-controller.toml",
    "The hypervisor masks the old interrupt controllers at the start, so that no stray interrupt disturbs a partition. Bytes \
     written there would open them.",
    ["port = 0x21" => "port = 0x8900"];

    ZeroTolerance, "boards/exact-clock.toml",
    "The clock is measured at boot, and no two measurements agree to the last hertz: every machine would be refused.",
    ["\"0 %\"" => "\"0.1 %\""];

    VouchedNeedlessly, "boards/vouched.toml",
    "A vouch that is not needed would hold unseen on the day on which the board's processor is replaced by one whose counter \
     stops in sleep.",
    ["vouched = true\n" => ""];

    SerialPlace, "boards/serial-in-both.toml",
    "A 16550 answers at one place, and the hypervisor writes there only. With both keys one of them would do nothing, and \
     with neither the log would go nowhere; a board without a serial port has no section.",
    ["address = \"0xfe032000\"\n" => ""];

    SerialRegisters, "boards/serial-in-high-memory.toml",
    "The boot code reaches the first 4 GiB, and writes its first words to the serial port before anything else is set up. \
     An access that is wider than a register would write its neighbours too.",
    ["0x40fe032000" => "0xfe032000"];

    CoreClaimedTwice, "BH0301-one-core-twice.toml",
    "A dedicated core takes no exits because nobody else is there. Two partitions on it would each believe to be \
     alone: give each a core, or windows to both.",
    ["cores = [1]\n\n[partition.b]\nimage = \"good.elf\"\nmemory = \"8 MiB\"\ncores = [1]"
        => "cores = [1]\n\n[partition.b]\nimage = \"good.elf\"\nmemory = \"8 MiB\"\ncores = [2]"];

    CoreMixed, "BH0302-mixed.toml",
    "Whoever has no windows owns the core at every instant, the windows of the others included. A core is one kind or \
     the other.",
    ["memory = \"8 MiB\"\ncores = [1]\n\n[[partition.a.window]]" => "memory = \"8 MiB\"\ncores = [2]\n\n[[partition.a.window]]"];

    CoreUnknown, "BH0303-unknown-core.toml",
    "Cores count from 0 in the order of the board file. A core that is not there would leave its partition without a \
     machine, found out at boot.",
    ["cores = [4]" => "cores = [3]"];

    CoreCount, "BH0304-no-core.toml",
    "A partition without a core never runs. Leaving it out of the file says the same, honestly.",
    ["cores = []" => "cores = [1]"];

    HousekeepingMissing, "BH0305-missing.toml",
    "Logs leave the machine in somebody's time. If nobody's is declared, it would be a partition's, and its latency \
     would depend on how much is logged.",
    ["[partition.a]" => "[housekeeping]\ncore = 0\n\n[partition.a]", "cores = [0]" => "cores = [1]"];

    HousekeepingOnDedicated, "BH0306-dedicated.toml",
    "A dedicated core is never taken away from its partition, so there is no instant at which housekeeping could run.",
    ["cores = [0]" => "cores = [0]\n\n[[partition.a.window]]\nstart = \"20 us\"\nlength = \"900 us\""];

    HousekeepingCoreUsed, "BH0307-core-used.toml",
    "Without windows, housekeeping drains the logs on its core all the time. A partition there would never run.",
    [
        "cores = [0]\n\n[partition.b]" => "cores = [1]\n\n[partition.b]",
        "cores = [0]\n\n[[partition.b.window]]" => "cores = [2]\n\n[[partition.b.window]]",
    ];

    TooManyPartitions, "BH0308-too-many-partitions.toml",
    "The table of the hypervisor has room for so many partitions and no heap to grow.",
    ["p64 = { image = \"good.elf\", memory = \"2 MiB\", cores = [1], window = [{ start = \"6420 us\", length = \"80 us\" }] }\n" => ""];

    NoPartition, "BH0309-no-partition.toml",
    "A system that runs nothing boots, says so, and waits for ever. It is a forgotten section, not a wish.",
    ["[partition]" => "[partition.a]\nimage = \"good.elf\"\nmemory = \"8 MiB\"\ncores = [1]"];

    BootCoreUnused, "BH0310-boot-core-idle.toml",
    "Core 0 boots the machine and starts the others. It cannot be switched off afterwards, so it has to be somebody's.",
    ["core = 1" => "core = 0"];

    CoresAscend, "BH0311-cores-descend.toml",
    "vCPU 0 runs on the first core of the list and starts the others, and a virtual APIC id is the core's own. In ascending \
     order the guest finds its processors as it finds those of a machine. A core cannot run two vCPUs of one partition.",
    ["cores = [2, 1]" => "cores = [1, 2]", "cores = [3, 3]" => "cores = [3]"];

    SiblingsSplit, "BH0312-dedicated-threads.toml",
    "Two threads of a core share its execution units, its level-1 cache and its predictors at every instant. Each slows the \
     other by as much as it likes, and flaws of processors let each read what the other loads. Whoever wants that says so, on both sides.",
    ["cores = [2]\n" => "cores = [2]\naccept-smt-sibling = [\"noise\"]\n",
     "cores = [3]\n" => "cores = [3]\naccept-smt-sibling = [\"motion\"]\n"];

    AcceptedUnknown, "BH0313-accepted.toml",
    "A misspelt name would accept nobody, and its own name says nothing.",
    ["[\"noise\", \"nosie\", \"motion\", \"noise\"]" => "[\"noise\"]"];

    AcceptedAbsent, "BH0314-nobody-there.toml",
    "A consent that is not needed would hold unseen on the day on which the partition is moved beside the other.",
    ["accept-smt-sibling = [\"noise\"]\n" => ""];

    WindowOutsideFrame, "BH0401-outside-frame.toml",
    "The frame repeats: what is behind its end would run inside the next one, on top of the first window.",
    ["1000.02 us" => "1000 us", "start = \"3 ms\"" => "start = \"1 ms\""];

    WindowsOverlap, "BH0402-overlap.toml",
    "One core runs one partition at an instant. The board's switch budget before each start is the hypervisor's, or \
     the window would begin late, always, by what the switch takes. Hygiene belongs to the switch at which the core passes from \
     one partition to another. It counts from the partition before, also where housekeeping or idle time lies in between.",
    ["start = \"600 us\"" => "start = \"640 us\""];

    ZeroDuration, "BH0403-zero-window.toml",
    "Nothing can be done in no time: a frame of zero never ends, and a window of zero never begins.",
    ["at-latest = \"0 s\"" => "at-latest = \"10 s\"", "10 ns" => "20 us", "length = \"0 us\"" => "length = \"600 us\""];

    FrameWithoutWindows, "BH0404-frame-alone.toml",
    "A frame that divides nothing has no effect, and a key without effect is a mistake in the making.",
    ["[schedule]\nframe = \"2 ms\"\n\n" => ""];

    WindowsWithoutFrame, "BH0405-windows-alone.toml",
    "A window starts at an instant of the frame and comes again with the next one. Without a frame, it has no next.",
    ["[housekeeping]" => "[schedule]\nframe = \"2 ms\"\n\n[housekeeping]"];

    NoWindow, "BH0406-empty-list.toml",
    "A partition with an empty list shares its core and never runs. Without the key, the core is its own.",
    ["window = []\n" => ""];

    TooManyWindows, "BH0407-too-many-windows.toml",
    "The windows of a core stand in a table of fixed size. So many in one frame mean that most of it is switching.",
    ["    { start = \"12820 us\", length = \"50 us\" },\n" => ""];

    WindowCoreMissing, "BH0408-which-core.toml",
    "The windows of a partition need not coincide on its cores. Which core a window is for cannot be guessed.",
    ["start = \"700 us\"\nlength = \"500 us\"\n" => "start = \"700 us\"\nlength = \"500 us\"\ncore = 2\n"];

    WindowCoreForeign, "BH0409-foreign-core.toml",
    "A window gives time to a vCPU, and there is one only on the cores that the partition names.",
    ["cores = [1, 2]" => "cores = [1, 2, 3]"];

    WindowMissing, "BH0410-plan-without-windows.toml",
    "A partition that is forgotten in a plan stands still when that plan begins, on the day of the maintenance. So that it \
     stands still on purpose only, the file says it.",
    ["cores = [1]\n\n[[partition.b" => "cores = [1]\noff-in = [\"maintenance\"]\n\n[[partition.b"];

    CoreWithoutWindow, "BH0411-empty-plan.toml",
    "A core finds out about a change of plan from window to window. With none in a plan it would sleep in that plan for ever.",
    ["off-in = [\"maintenance\"]\n" => ""];

    HousekeepingOff, "BH0412-no-drain.toml",
    "Logs go on in every plan, and the rings that hold them are full at some time. Events of a plan without housekeeping would \
     be lost.",
    ["length = \"400 us\"\nplans = [\"normal\"]\n" => "length = \"400 us\"\n"];

    PlanUnknown, "BH0413-unknown-plan.toml",
    "A misspelt plan would leave a window out of the plan that was meant.",
    ["maintenence" => "maintenance", "off-in = [\"night\"]\n" => ""];

    PlanTwice, "BH0414-plan-twice.toml",
    "Partitions ask for a plan by its number in this list; two numbers for one name would be two plans for one.",
    ["plans = [\"normal\", \"maintenance\", \"normal\"]" => "plans = [\"normal\", \"maintenance\"]",
     "plans = [\"normal\", \"maintenance\", \"maintenance\"]" => "plans = [\"normal\", \"maintenance\"]"];

    PlanListEmpty, "BH0415-no-plan.toml",
    "A window in no plan never comes, and a partition that is off in none is not off. Without the key it is plain what holds.",
    ["plans = []\n" => "", "plans = []\n" => "", "off-in = []\n" => ""];

    TooManyPlans, "BH0416-too-many-plans.toml",
    "The hypervisor's table of plans has a fixed size.",
    [", \"p16\"" => ""];

    AlwaysOff, "BH0417-always-off.toml",
    "A partition that never runs keeps memory and makes the file say something that never happens.",
    ["off-in = [\"normal\", \"maintenance\"]" => "off-in = [\"maintenance\"]"];

    WindowWhileOff, "BH0418-window-while-off.toml",
    "Either the window is wrong or `off-in` is. Both cannot hold, and only you know which was meant.",
    ["length = \"500 us\"\nplans = [\"normal\", \"maintenance\"]\n" => "length = \"500 us\"\nplans = [\"normal\"]\n"];

    OffWithoutWindows, "BH0419-off-dedicated.toml",
    "Plans divide the time of time-shared cores. A partition with cores of its own runs always: `off-in` would promise what \
     nothing does.",
    ["off-in = [\"maintenance\"]\n" => ""];

    SwitchAlone, "BH0420-one-plan.toml",
    "A right without use looks like one in an audit.",
    ["may-switch-plan = true\n" => ""];

    PlanUnreachable, "BH0421-nobody-switches.toml",
    "The system starts in its first plan, and only a partition with the right brings in another. Without one the others are dead \
     text.",
    ["may-switch-plan = false" => "may-switch-plan = true"];

    SkewBeyondFrame, "BH0422-skew.toml",
    "A change of plan holds from a numbered frame on, two ahead of the running one, so that no core misses it. That is enough \
     while two cores agree about the running frame to within one.",
    ["frame = \"400 us\"" => "frame = \"2 ms\""];

    ReceiverUnknown, "BH0423-unknown-receiver.toml",
    "The rest of a window would be given to nobody.",
    ["donates-to = \"nosie\"" => "donates-to = \"noise\""];

    DonatesToItself, "BH0424-itself.toml",
    "A partition keeps what it does not give away.",
    ["donates-to = \"a\"\n" => ""];

    DonatesApart, "BH0425-elsewhere.toml",
    "Time is given on the core on which it is left over. A receiver without a vCPU there leaves the core idle.",
    ["cores = [1]\n\n[[partition.b.window]]\nstart = \"700 us\"\nlength = \"500 us\"\n" =>
     "cores = [1, 2]\n\n[[partition.b.window]]\nstart = \"700 us\"\nlength = \"500 us\"\ncore = 1\n\n[[partition.b.window]]\nstart = \"700 us\"\nlength = \"500 us\"\ncore = 2\n"];

    DonationCircle, "BH0426-circle.toml",
    "In a circle the rest of a window could be handed round until nothing is left but switches. Along a line it comes to rest \
     with somebody, and it is known beforehand which partitions may hold the core at the next window: they decide the time for hygiene.",
    ["donates-to = \"a\"\n" => ""];

    DonatesWithoutWindows, "BH0427-dedicated-donor.toml",
    "A core of its own is never shared: there is no window to give the rest of.",
    ["donates-to = \"b\"\n" => ""];

    HygieneWithoutCost, "BH0428-no-cost.toml",
    "Cleaning takes time, which is kept free before the window. How much it is only the board can say.",
    ["hygiene = [\"l1d-flush\", \"buffer-clear\"]\n" => ""];

    HygieneDedicated, "BH0429-dedicated.toml",
    "On a core of its own nobody comes after or before: nothing is switched, so nothing would be cleaned.",
    ["hygiene = [\"l1d-flush\"]\n" => ""];

    ReceiverOff, "BH0430-receiver-off.toml",
    "Who is off in a plan does not run in it, whatever others have left over: that is what an auditor reads from `off-in`.",
    ["\noff-in = [\"maintenance\"]" => ""];

    WindowBelowBudget, "BH0431-short-window.toml",
    "The board says what a switch may take. A window that is shorter than that is a slip of its unit most of the time, and \
     costs its core more than it gives its owner.",
    ["length = \"15 us\"" => "length = \"150 us\""];

    MemoryTooSmall, "BH0501-too-small.toml",
    "The page at 0x1000 holds the guest's boot information: without it, the guest knows neither its memory nor its \
     arguments.",
    ["memory = \"0 MiB\"" => "memory = \"8 MiB\"", "memory = \"4 KiB\"" => "memory = \"8 MiB\""];

    MemoryUnaligned, "BH0502-unaligned.toml",
    "Page tables guard whole pages of 4 KiB; half a page can neither be given nor kept back.",
    ["8194 KiB" => "8192 KiB"];

    MemoryDoesNotFit, "BH0503-too-large.toml",
    "Every byte has one owner, and there are only so many. Memory is placed in the order of the file, on bounds of \
     2 MiB.",
    ["300 MiB\"\ncores = [2]" => "150 MiB\"\ncores = [2]"];

    MemoryTooLarge, "BH0504-devices.toml",
    "From 3 GiB on, the addresses of a PC belong to devices, the local APIC among them. RAM there would hide them.",
    ["memory = \"4 GiB\"" => "memory = \"3 GiB\""];

    ImageMissing, "BH0601-no-file.toml",
    "A partition without a program never runs. The path counts from the folder of the system file.",
    ["guests/motion" => "good.elf", "image = \"empty\"" => "image = \"good.elf\""];

    ImageNotBuilt, "BH0602-not-built.toml",
    "The digest of the image goes into the table, so the image must be there. `bulkhead build` builds the guests of \
     folders first; the example names a finished file instead.",
    ["image = \"made\"" => "image = \"good.elf\""];

    ImageNotElf, "BH0603-not-elf.toml",
    "The compiler lays the segments of an ELF file out to where they are linked. Other files do not say where that is.",
    ["text.elf" => "good.elf"];

    ImageMachine, "BH0604-arm.toml",
    "A program for another processor would fault at its first instruction.",
    ["arm.elf" => "i386.elf"];

    ImageDynamic, "BH0605-dynamic.toml",
    "Nobody in a partition would relocate it or load its libraries: link it statically, at fixed addresses.",
    ["dynamic.elf" => "good.elf", "pie.elf" => "good.elf"];

    ImageBroken, "BH0606-broken.toml",
    "A file that was cut off, or whose segments overlap, is not what its author built. What runs must be what was \
     proven.",
    ["truncated.elf" => "good.elf", "hostile.elf" => "good.elf", "overlapping.elf" => "good.elf", "empty.elf" => "good.elf"];

    ImageDoesNotFit, "BH0607-too-large.toml",
    "A segment behind the partition's memory would lie in somebody else's.",
    ["memory = \"4 MiB\"" => "memory = \"8 MiB\"", "huge.elf" => "good.elf", "sparse.elf" => "good.elf"];

    ImageEntryOutside, "BH0608-entry.toml",
    "The first instruction must be one that the image brings: zeros run as instructions too, for a while.",
    ["no-entry.elf" => "good.elf"];

    ImageOnBootInfo, "BH0609-boot-info.toml",
    "The hypervisor writes the boot information there, over whatever the image has: to 0x1000, and on a PC to where its firmware is.",
    ["low.elf" => "good.elf", "rom.elf" => "good.elf"];

    BadArguments, "BH0610-arguments.toml",
    "Guests read their arguments as bytes, from one page. What does not fit would be cut off in silence.",
    ["arguments = \"xxxx" => "# Shortened: arguments = \"xxxx", "a\\nb" => "a b"];

    ImageEntryData, "BH0611-data.toml",
    "The linker took another symbol for the entry than was meant. The guest would run into its data.",
    ["data-entry.elf" => "good.elf"];

    ImageAmbiguous, "BH0612-two-recipes.toml",
    "Two recipes make two images, and the file would not say which one was proven.",
    ["twofold" => "good.elf"];

    TwoPrograms, "BH0613-image-and-kernel.toml",
    "A partition starts one program, and the file would not say which of the two.",
    ["image = \"good.elf\"\n" => ""];

    KernelKey, "BH0614-keys.toml",
    "An image gets its arguments as Multiboot2 has it, a kernel its command line as Linux does. A kernel that found no clock and \
     no console would start, and be silent.",
    ["initrd = \"good.initrd\"\n" => "", "cmdline" => "arguments", "arguments = \"quiet\"\nmemory = \"16 MiB\"\ncores = [2]" => "cmdline = \"quiet\"\nmemory = \"16 MiB\"\ncores = [2]", "\"bare\"" => "\"pc\""];

    KernelMissing, "BH0615-no-file.toml",
    "The digest of both goes into the table, so they must be there. `bulkhead linux` gets Debian's kernels, `bulkhead initrd` \
     makes a RAM disk.",
    ["boot/vmlinuz" => "good.bzimage", "god.initrd" => "good.initrd"];

    KernelForm, "BH0616-no-bzimage.toml",
    "The header of a bzImage says where the kernel may lie and what it needs before it knows its memory. `vmlinux`, the ELF file \
     of a kernel's build, and raw boot sectors do not.",
    ["good.elf" => "good.bzimage", "text.elf" => "good.bzimage", "sector.bzimage" => "good.bzimage"];

    KernelBroken, "BH0617-broken.toml",
    "A kernel that was cut off halts at its start, with a sentence on a console that it does not have yet.",
    ["truncated.bzimage" => "good.bzimage", "hollow.bzimage" => "good.bzimage", "odd.bzimage" => "good.bzimage"];

    Kernel32Bit, "BH0618-i386.toml",
    "A partition's kernel is entered in 64-bit mode; one for i386 has nothing there.",
    ["i386.bzimage" => "good.bzimage"];

    KernelTooOld, "BH0619-old.toml",
    "Before boot protocol 2.12 a kernel does not say whether it can be entered in 64-bit mode, and it does not take the address of \
     its ACPI tables.",
    ["old.bzimage" => "good.bzimage"];

    KernelDoesNotFit, "BH0620-memory.toml",
    "A kernel unpacks itself before it looks at its memory map. Behind the end of its memory it would be stopped for a violation.",
    ["4 MiB" => "16 MiB"];

    RamdiskEmpty, "BH0621-empty.toml",
    "An empty file is a RAM disk whose making failed. The kernel would start, and find no program to run.",
    ["empty.initrd" => "good.initrd"];

    RamdiskDoesNotFit, "BH0622-too-large.toml",
    "The RAM disk lies right below the kernel, which moves up for it if it can. Both must end in the partition's memory.",
    ["memory = \"6 MiB\"" => "memory = \"16 MiB\"", "fixed.bzimage" => "good.bzimage"];

    CommandLineTooLong, "BH0623-line.toml",
    "A kernel cuts off what is longer than it takes, in silence.",
    ["console=ttyS0 quiet" => "quiet"];

    ImageDemands, "BH0624-demands.toml",
    "A loader must refuse what it cannot give: a guest that got no video mode would draw into nothing, and one that is started by \
     another protocol takes what it finds in EBX for something else.",
    ["video.elf" => "multiboot.elf", "framebuffer.elf" => "good.elf", "image = \"multiboot.elf\"\nmemory" => "image = \"good.elf\"\nmemory"];

    ShutdownUnknown, "BH0701-unknown.toml",
    "The system would wait for ever for a partition that is not there.",
    ["[\"motoin\", \"motion\", \"motion\", \"office\"]" => "[\"motion\"]"];

    ShutdownEmpty, "BH0702-empty.toml",
    "Once nobody is waited for, the system ends at its start. Without the section, it runs for ever.",
    ["when-finished = []" => "when-finished = [\"a\"]"];

    LogWithoutWindows, "BH0703-no-windows.toml",
    "A picture of windows was asked for, and there would be none in it.",
    ["[log]\nwindows = true\n\n" => ""];

    EndsWithinFrame, "BH0704-within-frame.toml",
    "Windows late in the frame would never come.",
    ["\"1.9 ms\"" => "\"1 s\""];

    LimitOnNothing, "BH0705-on-nothing.toml",
    "A limit that nothing can break looks like a promise that is kept.",
    ["window.max = \"5 us\"\nswitch = \"20 us\"\n" => "timer.max = \"5 us\"\n"];

    LimitsEmpty, "BH0706-no-limit.toml",
    "A section of limits without any looks as if the figures were held to something.",
    ["[limits]\n" => "[limits]\ntimer.p99_999 = \"5 us\"\n"];

    ShortWindow, "BH0901-short-window.toml",
    "A window that is no longer than the switch into it spends more of the core on switching than on work. It is \
     enforced all the same, hence a warning.",
    ["length = \"20 us\"" => "length = \"600 us\""];

    SharedCache, "BH0902-module.toml",
    "A core of its own is for timing that nobody disturbs. Whoever shares a small cache with it can empty that at any time, and \
     every load behind it is late. The isolation holds all the same, hence a warning.",
    ["cores = [3]" => "cores = [1]"];

    SmallPages, "BH0903-small-pages.toml",
    "Large pages cost one entry of the translation cache for 2 MiB. The rest behind the last whole one takes an entry for each \
     4 KiB, and the memory saved is given to nobody. It works all the same, hence a warning.",
    ["\"7 MiB\"" => "\"8 MiB\""];

    NoSerialPort, "boards/no-serial.toml",
    "Such a board runs all the same: what is said at boot and at the end stands on the screen, and the log in memory, where it \
     survives a warm reset. But nobody follows it live, nothing can be typed to a partition, and `measure`, `monitor` and \
     `--console` have nothing to read.",
    ["[power-off]" => "[serial]\nport = 0x3f8\nbaud = 115200\n\n[power-off]"];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_changes_something() {
        for rule in Rule::ALL {
            let explanation = rule.explanation();
            let mut text = explanation.bad.to_owned();
            for (old, new) in explanation.changes {
                assert!(text.contains(old), "{rule:?}: {old:?} is not there");
                text = text.replacen(old, new, 1);
            }
        }
    }

    #[test]
    fn long_examples_lose_their_middle() {
        let text: String = (0..100).map(|line| format!("{line}\n")).collect();
        assert_eq!(shortened(&text), "0\n1\n2\n3\n4\n5\n...\n94\n95\n96\n97\n98\n99");
        assert_eq!(shortened(&"x".repeat(200)).len(), WHOLE_LINE + 3);
    }
}
