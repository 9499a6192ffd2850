//! What the audit proves, each with its stable code.
//!
//! A code never changes its meaning and is never used again. The table in `config/README.md` is checked against
//! this one, and each rule has a test in which it alone is broken.

macro_rules! rules {
    ($($name:ident = $code:literal, $statement:literal;)+) => {
        /// Something that the audit proves.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $(#[doc = $statement] $name,)+
        }

        impl Rule {
            /// Every rule, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its stable code, such as `AU21`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
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

rules! {
    Readable = "AU01", "The image holds a hypervisor, in memory that nothing writes to a table of the audit's own format, and a menu.";
    OneProgram = "AU02", "What boots by BIOS and what boots by UEFI is one program with one table; only the wish for a framebuffer differs.";
    Menu = "AU03", "The menu starts that hypervisor and hands over one module for each partition, and nothing else.";
    Digest = "AU04", "The table carries the digest of its sources, and it is the one that the manifest promises.";
    HypervisorImage = "AU05", "The hypervisor's segments lie in its range, apart, none both writable and executable, and its entry is in one that is executable.";
    Staging = "AU06", "The hypervisor's range holds its own image and behind it every staged guest image.";
    Module = "AU07", "Each module has the length and the SHA-256 of the image in the table.";
    LogMemory = "AU08", "A board without a serial port keeps its log in the last pages of the hypervisor's range; one with a serial port keeps none.";
    Core = "AU11", "Each core of the table is one of the board's, is named once, and the boot core comes first.";
    ApicId = "AU12", "Each core of the board has an APIC id of its own.";
    CoreOwner = "AU13", "A core runs the partitions that name it and no other; a dedicated core belongs to one.";
    Vcpu = "AU14", "The vCPUs of all partitions are numbered without a gap, and each has a core of its own in its partition.";
    Port = "AU15", "Each I/O port has one owner.";
    Figures = "AU16", "The board's figures can be used: its clock ticks, its serial port's clock divides down to its baud rate.";
    Name = "AU17", "Each partition has a name of its own.";
    Shutdown = "AU18", "The system waits at its end for partitions that there are, each once.";
    HostPage = "AU21", "Each page of the machine's memory has one owner; no two partitions share one, and none is the hypervisor's.";
    InsideRam = "AU22", "The hypervisor's range and each partition's memory are whole pages of the board's RAM.";
    Ram = "AU23", "The board's RAM is given as whole pages, ascending and apart.";
    GuestPage = "AU24", "Each page of a partition's own address space stands for one thing.";
    Rights = "AU25", "The rights of a region can be expressed by the processor.";
    EptPages = "AU26", "The pool of each partition's nested page tables is large enough.";
    SchedulePage = "AU27", "Each vCPU of a time-shared core has a schedule page, on a page of its own; on a dedicated core none has.";
    SerialRegisters = "AU28", "The registers of a serial port in memory have a shape that there is, and lie below 4 GiB and outside the board's RAM.";
    Plan = "AU31", "There is a plan, each has a name of its own, and each time-shared core has windows listed for each.";
    InsideFrame = "AU32", "Each window has a length and lies inside the major frame.";
    WindowsApart = "AU33", "The windows of a core ascend and share no instant, in any plan and from any plan to the next.";
    SwitchBudget = "AU34", "The time that a switch may take is free before each window, across the edge of the frame too.";
    Housekeeping = "AU35", "A core, or a window in each plan, drains the logs.";
    Donation = "AU36", "Who donates has a receiver, another partition on each of its time-shared cores, and no donation comes back.";
    Hygiene = "AU37", "The time before each window holds what cleaning takes, whichever partition the core comes from; each kind that is asked for has a cost, and only partitions in windows ask.";
    ImagePlace = "AU41", "Each guest image lies in its partition's memory.";
    Entry = "AU42", "The entry of each guest lies in its image, or on a PC in its boot information, in memory that may be executed.";
    BootInfoForm = "AU43", "The boot information of each partition that starts in its image is well-formed Multiboot2 and states the partition's memory and schedule pages as they are.";
    BootInfoPlace = "AU44", "The boot information lies in its partition's memory, on a bound of 8 bytes, and covers nothing of its image but zeros on a PC.";
    PcStart = "AU45", "What a PC guest starts from lies in its RAM and apart: its kernel with what that needs, its RAM disk, its boot information; and it is entered where its protocol says.";
    PcMemoryMap = "AU46", "The memory map of a PC guest ascends, and calls RAM only what the partition may write, and not the page of its console.";
    PcTables = "AU47", "The ACPI tables of a PC guest are whole, lie outside its RAM, and name the APICs of its cores and no other.";
}
