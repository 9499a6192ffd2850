//! A sound image passes; for each rule there are tables and images in which it alone is broken, and it is told.

#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod common;

use std::collections::BTreeSet;

use bulkhead_audit::model::{Core, PowerOff, Role, Shutdown, System};
use bulkhead_audit::{Report, Rule, audit_table};
use bulkhead_table::{Hygiene, LOG_MEMORY, Owner, Platform, Range, Region, Rights, Uart, Window};
use common::{Parts, system};

/// A change that breaks one rule of the table.
type Corruption = (Rule, &'static str, fn(&mut System));

const ALONE: usize = 0;
const SHARED: usize = 1;
const NEIGHBOUR: usize = 2;

/// The lists of windows of core 0, which is time-shared.
fn plans(system: &mut System) -> &mut Vec<Vec<Window>> {
    match &mut system.cores[0].role {
        Role::Shared(plans) => plans,
        other => panic!("core 0 is {other:?}"),
    }
}

fn serial(system: &mut System) -> &mut Uart {
    system.board.uart.as_mut().unwrap()
}

/// A serial port whose registers are bytes in memory.
const IN_MEMORY: Uart = Uart {
    base: 0xFE03_2000,
    in_memory: true,
    stride: 1,
    width: 1,
    clock: Uart::CLOCK,
    baud: 115_200,
};

fn log_memory(system: &System) -> Range {
    Range { start: system.hypervisor.end() - LOG_MEMORY, size: LOG_MEMORY }
}

fn windows(system: &mut System) -> &mut Vec<Window> {
    &mut plans(system)[0]
}

/// Gives housekeeping's window to the partition with cores of its own, with the time for the cleaning behind the neighbour.
fn alone_in_a_window(system: &mut System) {
    let budget = windows(system)[1].budget;
    let window = &mut windows(system)[2];
    (window.owner, window.budget) = (Owner::Partition(ALONE as u16), budget);
}

/// Adds a core to the board, and gives it a role.
fn spare(system: &mut System, role: Role) {
    let cpu = system.board.apic_ids.len() as u16;
    system.board.apic_ids.push(77);
    system.cores.push(Core { cpu, role });
}

fn region(guest: u64, host: u64, size: u64) -> Region {
    Region { guest, host, size, rights: Rights::ALL }
}

/// Cuts a partition's only region in two, without a change of what is mapped.
fn cut(system: &mut System, partition: usize, at: u64) {
    let whole = system.partitions[partition].memory[0];
    system.partitions[partition].memory = vec![
        Region { size: at, ..whole },
        Region { guest: whole.guest + at, host: whole.host + at, size: whole.size - at, ..whole },
    ];
}

/// A tag of boot information.
fn tag(out: &mut Vec<u8>, kind: u32, content: &[u8]) {
    out.extend(kind.to_le_bytes());
    out.extend((content.len() as u32 + 8).to_le_bytes());
    out.extend(content);
    out.resize(out.len().next_multiple_of(8), 0);
}

/// Boot information that states a partition's memory and schedule pages as they are now.
fn state(system: &mut System, partition: usize) {
    let partition = &mut system.partitions[partition];
    let writable = partition.memory.iter().filter(|region| region.rights.write);
    let mut entries: Vec<_> = writable.map(|region| (region.guest, region.size, 1)).collect();
    if partition.schedule_at > 0 {
        entries.push((partition.schedule_at, 4096 * partition.cpus.len() as u64, 2_u32));
    }
    let mut map = [24_u32, 0].map(u32::to_le_bytes).concat();
    for (start, size, kind) in entries {
        map.extend([start, size, kind.into()].map(u64::to_le_bytes).concat());
    }
    let mut info = vec![0; 8];
    tag(&mut info, 1, b"\0");
    tag(&mut info, 6, &map);
    tag(&mut info, 0, &[]);
    let length = info.len() as u32;
    info[..4].copy_from_slice(&length.to_le_bytes());
    partition.boot_info = info;
}

/// Makes a partition with a core of its own a Linux: boot parameters, tables and all, written here once more.
fn linux(system: &mut System) {
    let partition = &mut system.partitions[ALONE];
    let mut info = vec![0; 0x3800];
    let mut put =
        |at: usize, bytes: &[u8]| info[at - 0x1000..][..bytes.len()].copy_from_slice(bytes);
    put(0x2070, &0x4000_u64.to_le_bytes());
    put(0x21E8, &[3]);
    put(0x2202, b"HdrS");
    put(0x2210, &[0xFF]);
    for (field, value) in [(0x214, 0x10_0000_u32), (0x218, 0), (0x228, 0x3000), (0x260, 0x20_0000)]
    {
        put(0x2000 + field, &value.to_le_bytes());
    }
    let map = [(0_u64, 0x4000_u64, 1_u32), (0x4000, 0x1000, 3), (0x10_0000, 0x70_0000, 1)];
    for ((start, size, kind), at) in map.into_iter().zip((0x22D0..).step_by(20)) {
        let entry = [&start.to_le_bytes()[..], &size.to_le_bytes(), &kind.to_le_bytes()].concat();
        put(at, &entry);
    }
    put(0x3000, b"quiet\0");
    let ids: Vec<u32> =
        partition.cpus.iter().map(|cpu| system.board.apic_ids[usize::from(*cpu)]).collect();
    let apics = ids.iter().flat_map(|id| [0, 8, 0, *id as u8, 1, 0, 0, 0]);
    put(0x4100, &table(b"APIC", &[&[0; 8][..], &apics.collect::<Vec<_>>()].concat()));
    put(0x4200, &table(b"DSDT", &[]));
    let mut fixed = vec![0; 240];
    fixed[104..112].copy_from_slice(&0x4200_u64.to_le_bytes());
    put(0x4300, &table(b"FACP", &fixed));
    put(0x4080, &table(b"XSDT", &[0x4300_u64, 0x4100].map(u64::to_le_bytes).concat()));
    let mut pointer =
        b"RSD PTR \0BULKHD\x02\0\0\0\0\x24\0\0\0\x80\x40\0\0\0\0\0\0\0\0\0\0".to_vec();
    pointer[8] = checksum(&pointer[..20]);
    pointer[32] = checksum(&pointer);
    put(0x4000, &pointer);
    partition.platform = Platform::Pc;
    partition.image.entry = 0x1000;
    partition.boot_info = info;
}

/// What brings the sum of the bytes to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// An ACPI table.
fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = signature.to_vec();
    table.extend((36 + body.len() as u32).to_le_bytes());
    table.resize(36, 0);
    table.extend(body);
    table[9] = checksum(&table);
    table
}

/// A Linux with some bytes of its boot information changed, by address.
fn other_linux(system: &mut System, at: usize, bytes: &[u8]) {
    linux(system);
    system.partitions[ALONE].boot_info[at - 0x1000..][..bytes.len()].copy_from_slice(bytes);
}

/// Moves a partition's schedule page, and says so in its boot information.
fn move_schedule(system: &mut System, partition: usize, to: u64) {
    system.partitions[partition].schedule_at = to;
    state(system, partition);
}

const CORRUPTIONS: &[Corruption] = &[
    (Rule::Core, "a core that the board has not", |system| {
        system.board.apic_ids.truncate(3);
    }),
    (Rule::Core, "a core is there twice", |system| {
        let again = system.cores[3].clone();
        system.cores.push(again);
    }),
    (Rule::Core, "the boot core is not the first", |system| {
        system.board.apic_ids.push(77);
        let cpus = system.partitions.iter_mut().flat_map(|partition| &mut partition.cpus);
        cpus.for_each(|cpu| *cpu += 1);
        system.cores.iter_mut().for_each(|core| core.cpu += 1);
    }),
    (Rule::ApicId, "two cores with one APIC id", |system| system.board.apic_ids[3] = 1),
    (Rule::CoreOwner, "a dedicated core runs another partition", |system| {
        system.cores[2].role = Role::Dedicated(SHARED as u16);
    }),
    (Rule::CoreOwner, "a dedicated core runs a partition that there is not", |system| {
        spare(system, Role::Dedicated(77));
    }),
    (Rule::CoreOwner, "a window of a partition that names another core", |system| {
        alone_in_a_window(system);
        spare(system, Role::Housekeeping);
    }),
    (Rule::CoreOwner, "a partition names a core on which others have the windows", |system| {
        system.partitions[NEIGHBOUR].cpus = vec![1];
    }),
    (Rule::CoreOwner, "a partition names housekeeping's core", |system| {
        spare(system, Role::Housekeeping);
        system.partitions[SHARED].cpus = vec![0, 1, 4];
        state(system, SHARED);
        system.partitions[NEIGHBOUR].first_vcpu += 1;
    }),
    (Rule::CoreOwner, "a partition with cores of both kinds", |system| {
        alone_in_a_window(system);
        spare(system, Role::Housekeeping);
        system.partitions[ALONE].cpus = vec![0, 2, 3];
        system.partitions[ALONE].ept_pages += 2;
        move_schedule(system, ALONE, 0x4000_0000);
        system.partitions[SHARED].first_vcpu += 1;
        system.partitions[NEIGHBOUR].first_vcpu += 1;
    }),
    (Rule::CoreOwner, "a partition without a window", |system| {
        windows(system).remove(1);
    }),
    (Rule::Vcpu, "two partitions share the number of a vCPU", |system| {
        system.partitions[NEIGHBOUR].first_vcpu = 1;
    }),
    (Rule::Vcpu, "two vCPUs of a partition on one core", |system| {
        system.partitions[NEIGHBOUR].cpus = vec![0, 0];
        state(system, NEIGHBOUR);
    }),
    (Rule::Port, "the power switch is one of the serial ports", |system| {
        let port = serial(system).base as u16 + 7;
        system.board.power_off = Some(PowerOff { port, bytes: b"x".to_vec() });
    }),
    (Rule::Port, "the serial port is the interrupt controller", |system| {
        serial(system).base = 0x19;
    }),
    (Rule::Port, "the serial port ends behind the last port", |system| {
        serial(system).base = 0xFFF9;
    }),
    (Rule::Figures, "a clock that stands", |system| system.board.tsc_hz = 0),
    (Rule::Figures, "a baud rate of nothing", |system| serial(system).baud = 0),
    (Rule::Figures, "a baud rate that the clock does not give", |system| {
        serial(system).baud = 100_000
    }),
    (Rule::Figures, "a clock that is too slow", |system| serial(system).clock = 1_000_000),
    (Rule::SerialRegisters, "accesses wider than a register", |system| {
        *serial(system) = Uart { width: 4, ..IN_MEMORY };
    }),
    (Rule::SerialRegisters, "a stride that there is not", |system| {
        *serial(system) = Uart { stride: 3, ..IN_MEMORY };
    }),
    (Rule::SerialRegisters, "registers at 0", |system| {
        *serial(system) = Uart { base: 0, ..IN_MEMORY };
    }),
    (Rule::SerialRegisters, "registers in RAM", |system| {
        *serial(system) = Uart { base: system.board.memory[0].end() - 8, ..IN_MEMORY };
    }),
    (Rule::SerialRegisters, "registers that end behind 4 GiB", |system| {
        *serial(system) = Uart { base: 0xFFFF_FFF9, ..IN_MEMORY };
    }),
    (Rule::LogMemory, "memory for the log beside a serial port", |system| {
        system.board.log_memory = log_memory(system);
    }),
    (Rule::LogMemory, "neither a serial port nor memory for the log", |system| {
        system.board.uart = None;
    }),
    (Rule::LogMemory, "the log outside of the hypervisor's range", |system| {
        system.board.uart = None;
        system.board.log_memory = log_memory(system);
        system.board.log_memory.start += 4096;
    }),
    (Rule::Name, "two partitions with one name", |system| {
        system.partitions[ALONE].name = system.partitions[SHARED].name.clone();
    }),
    (Rule::Name, "a partition without a name", |system| system.partitions[ALONE].name.clear()),
    (Rule::Shutdown, "the end waits for nobody", |system| {
        system.shutdown = Some(Shutdown { when_finished: Vec::new(), at_latest: 0 });
    }),
    (Rule::Shutdown, "the end waits for somebody else", |system| {
        system.shutdown = Some(Shutdown { when_finished: vec![3], at_latest: 0 });
    }),
    (Rule::Shutdown, "the end waits twice", |system| {
        system.shutdown = Some(Shutdown { when_finished: vec![1, 1], at_latest: 0 });
    }),
    (Rule::HostPage, "two partitions share one page", |system| {
        system.partitions[SHARED].memory[0].host =
            system.partitions[ALONE].memory[0].host + 0x80_0000 - 0x20_0000;
    }),
    (Rule::HostPage, "a partition has a page of the hypervisor", |system| {
        system.hypervisor.size += 4096;
    }),
    (Rule::HostPage, "a partition has one page twice", |system| {
        let whole = system.partitions[NEIGHBOUR].memory[0];
        system.partitions[NEIGHBOUR].memory =
            vec![whole, region(0x4000_0000, whole.host, whole.size)];
        system.partitions[NEIGHBOUR].ept_pages = 100;
        system.partitions[NEIGHBOUR].memory[1].rights.write = false;
    }),
    (Rule::InsideRam, "a page outside of the board's RAM", |system| {
        system.partitions[NEIGHBOUR].memory[0].host = 0x2000_0000;
    }),
    (Rule::InsideRam, "memory across the end of the RAM", |system| {
        system.partitions[NEIGHBOUR].memory[0].host = 0x1FE0_0000;
    }),
    (Rule::InsideRam, "the hypervisor outside of the RAM", |system| {
        system.board.memory[0] = Range { start: 0x20_0000, size: 0x1F00_0000 };
    }),
    (Rule::InsideRam, "memory that begins within a page", |system| {
        system.partitions[NEIGHBOUR].memory[0].host += 0x10_0800;
        system.partitions[NEIGHBOUR].ept_pages = 100;
    }),
    (Rule::Ram, "RAM that overlaps RAM", |system| {
        system.board.memory.push(Range { start: 0x1000_0000, size: 4096 });
    }),
    (Rule::Ram, "RAM that is no whole page", |system| {
        system.board.memory.push(Range { start: 0x3000_0000, size: 4095 });
    }),
    (Rule::GuestPage, "two regions at one guest-physical address", |system| {
        cut(system, ALONE, 0x40_0000);
        system.partitions[ALONE].memory[1].guest = 0x20_0000;
        state(system, ALONE);
    }),
    (Rule::GuestPage, "memory over the local APIC", |system| {
        cut(system, ALONE, 0x40_0000);
        system.partitions[ALONE].memory[1].guest = 0xFEC0_0000;
        system.partitions[ALONE].ept_pages = 100;
        state(system, ALONE);
    }),
    (Rule::GuestPage, "a schedule page on RAM", |system| {
        move_schedule(system, SHARED, 0x3000);
    }),
    (Rule::GuestPage, "guest-physical memory behind 48 bits", |system| {
        cut(system, ALONE, 0x40_0000);
        system.partitions[ALONE].memory[1].guest = 1 << 48;
        system.partitions[ALONE].ept_pages = 100;
        state(system, ALONE);
    }),
    (Rule::Rights, "memory that is only written", |system| {
        cut(system, ALONE, 0x40_0000);
        system.partitions[ALONE].memory[1].rights =
            Rights { read: false, write: true, execute: false };
        state(system, ALONE);
    }),
    (Rule::EptPages, "one nested page table too few", |system| {
        system.partitions[ALONE].ept_pages -= 1;
    }),
    (Rule::EptPages, "no place for the table of an unaligned end", |system| {
        system.partitions[NEIGHBOUR].ept_pages -= 1;
    }),
    (Rule::EptPages, "small pages where large ones would do", |system| {
        system.board.large_code_pages = true;
        system.partitions[ALONE].ept_pages = 3;
        system.partitions[ALONE].memory[0].host = 0x1000_1000;
    }),
    (
        Rule::EptPages,
        "large pages of code on a board that does not say that they are safe",
        |system| {
            system.partitions[ALONE].ept_pages = 3;
        },
    ),
    (Rule::SchedulePage, "a schedule page that is none, on a time-shared core", |system| {
        move_schedule(system, SHARED, 0xFEB0_0008);
    }),
    (Rule::SchedulePage, "a schedule page on a dedicated core", |system| {
        move_schedule(system, ALONE, 0x4000_0000);
    }),
    (Rule::Plan, "no plan", |system| {
        system.plans.clear();
    }),
    (Rule::Plan, "two plans of one name", |system| {
        system.plans[1] = system.plans[0].clone();
    }),
    (Rule::Plan, "a core without windows for a plan", |system| {
        system.plans.push("startup".to_owned());
        spare(system, Role::Housekeeping);
    }),
    (Rule::InsideFrame, "a window that leaves the frame", |system| {
        windows(system)[2].length = 25_001;
    }),
    (Rule::InsideFrame, "a window without length", |system| windows(system)[1].length = 0),
    (Rule::InsideFrame, "a window that ends behind all time", |system| {
        windows(system)[2].length = u64::MAX;
    }),
    (Rule::WindowsApart, "two windows share a tick", |system| {
        let first = windows(system)[0];
        windows(system)[1].start = first.start + first.length - 1;
    }),
    (Rule::WindowsApart, "windows out of their order", |system| windows(system).swap(0, 1)),
    (Rule::SwitchBudget, "a gap of one tick less than the switch may take", |system| {
        let next = windows(system)[1];
        let first = &mut windows(system)[0];
        first.length = next.start - next.budget + 1 - first.start;
    }),
    (Rule::SwitchBudget, "less for the switch than the board needs", |system| {
        let least = system.board.switch_budget;
        // Housekeeping's: nothing is cleaned before it.
        windows(system)[2].budget = least - 1;
    }),
    (Rule::SwitchBudget, "more for the switch than there is", |system| {
        windows(system)[1].budget = 1_000_000;
    }),
    (Rule::SwitchBudget, "the budget across the edge of the frame", |system| {
        let first = windows(system)[0];
        windows(system)[0].start = 0;
        windows(system)[0].length = first.length + first.start;
        windows(system)[2].length = 24_500;
    }),
    (Rule::SwitchBudget, "the budget across the edge, into another plan", |system| {
        let later = &mut plans(system)[1][0];
        (later.start, later.length) = (500, later.length + later.start - 500);
        windows(system)[2].length = 25_000;
    }),
    (Rule::Housekeeping, "nobody drains the logs", |system| {
        let lists = plans(system).iter_mut();
        lists.for_each(|list| list.retain(|window| window.owner != Owner::Housekeeping));
    }),
    (Rule::Housekeeping, "nobody drains the logs in the second plan", |system| {
        plans(system)[1].retain(|window| window.owner != Owner::Housekeeping);
    }),
    (Rule::Donation, "who donates to itself", |system| {
        system.partitions[SHARED].donates_to = Some(SHARED as u16);
    }),
    (Rule::Donation, "who donates to a partition on another core", |system| {
        system.partitions[SHARED].donates_to = Some(ALONE as u16);
    }),
    (Rule::Donation, "who donates to a partition that there is not", |system| {
        system.partitions[SHARED].donates_to = Some(9);
    }),
    (Rule::Donation, "donations that come back", |system| {
        system.partitions[SHARED].donates_to = Some(NEIGHBOUR as u16);
        system.partitions[NEIGHBOUR].donates_to = Some(SHARED as u16);
        // Its time would be too short on the other's second core.
        system.partitions[NEIGHBOUR].hygiene = Hygiene::NONE;
    }),
    (Rule::Hygiene, "no time for the cleaning", |system| {
        let least = system.board.switch_budget;
        windows(system)[1].budget = least;
    }),
    (Rule::Hygiene, "a tick too little for the cleaning behind housekeeping", |system| {
        windows(system)[0].budget -= 1;
    }),
    (Rule::Hygiene, "no time for the cleaning at a change of plan", |system| {
        let least = system.board.switch_budget;
        plans(system)[1][0].budget = least;
    }),
    (Rule::Hygiene, "another kind of cleaning than there is time for", |system| {
        system.partitions[SHARED].hygiene.buffer_clear = true;
    }),
    (Rule::Hygiene, "a receiver asks, whose donor follows it", |system| {
        system.partitions[NEIGHBOUR].hygiene = Hygiene::NONE;
        system.partitions[SHARED].hygiene.l1d_flush = true;
        // The neighbour may have given its window away: then its own next one comes behind the receiver.
        let again = Window { start: 75_000, length: 20_000, ..windows(system)[1] };
        let least = system.board.switch_budget;
        windows(system)[2] = Window { budget: least, ..again };
        spare(system, Role::Housekeeping);
    }),
    (Rule::Hygiene, "a kind that the board puts no cost to", |system| {
        system.board.hygiene.branch_barrier = 0;
    }),
    (Rule::Hygiene, "a partition that has its cores for itself asks", |system| {
        system.partitions[ALONE].hygiene.l1d_flush = true;
    }),
    (Rule::ImagePlace, "an image that ends behind the memory", |system| {
        system.partitions[ALONE].image.size = 0x70_0001;
    }),
    (Rule::ImagePlace, "an image behind all addresses", |system| {
        let image = &mut system.partitions[ALONE].image;
        image.size = u64::MAX - image.load_at;
    }),
    (Rule::Entry, "an entry behind the image", |system| {
        let image = &mut system.partitions[ALONE].image;
        image.entry = image.load_at + image.size;
    }),
    (Rule::Entry, "an entry in memory that may not be executed", |system| {
        system.partitions[ALONE].memory[0].rights.execute = false;
    }),
    (Rule::BootInfoForm, "other memory than there is", |system| {
        system.partitions[ALONE].memory[0].size += 0x1000;
        state(system, ALONE);
        system.partitions[ALONE].memory[0].size -= 0x1000;
    }),
    (Rule::BootInfoForm, "no word of the schedule page", |system| {
        let at = system.partitions[SHARED].schedule_at;
        move_schedule(system, SHARED, 0);
        system.partitions[SHARED].schedule_at = at;
    }),
    (Rule::BootInfoForm, "a wrong length", |system| system.partitions[ALONE].boot_info[0] ^= 8),
    (Rule::BootInfoForm, "no last tag", |system| {
        let info = &mut system.partitions[ALONE].boot_info;
        info.truncate(info.len() - 8);
        let length = info.len() as u32;
        info[..4].copy_from_slice(&length.to_le_bytes());
    }),
    (Rule::BootInfoForm, "nothing", |system| system.partitions[ALONE].boot_info.clear()),
    (Rule::BootInfoPlace, "boot information behind the memory", |system| {
        system.partitions[ALONE].boot_info_at = 0x80_0000 - 8;
    }),
    (Rule::BootInfoPlace, "boot information off its bound", |system| {
        system.partitions[ALONE].boot_info_at = 0x1004;
    }),
    (Rule::BootInfoPlace, "boot information on the image", |system| {
        system.partitions[ALONE].boot_info_at = 0x10_1000;
    }),
    (Rule::Entry, "a bare guest starts in its boot information", |system| {
        linux(system);
        system.partitions[ALONE].platform = Platform::Bare;
        state(system, ALONE);
    }),
    (Rule::PcStart, "no boot parameters", |system| other_linux(system, 0x2210, &[0])),
    (Rule::PcStart, "a kernel where none is loaded", |system| {
        other_linux(system, 0x2214, &0x30_0000_u32.to_le_bytes());
    }),
    (Rule::PcStart, "a kernel that needs more than there is", |system| {
        other_linux(system, 0x2260, &0x70_1000_u32.to_le_bytes());
    }),
    (Rule::PcStart, "a RAM disk on the kernel", |system| {
        other_linux(system, 0x2218, &[0x10_0800_u32, 0x100].map(u32::to_le_bytes).concat());
    }),
    (Rule::PcStart, "a RAM disk where none is loaded", |system| {
        other_linux(system, 0x2218, &[0x40_0000_u32, 0x100].map(u32::to_le_bytes).concat());
    }),
    (Rule::PcStart, "a command line without an end", |system| other_linux(system, 0x3000, b"\n")),
    (Rule::PcMemoryMap, "RAM behind the memory", |system| {
        other_linux(system, 0x22D0 + 48, &0x70_1000_u64.to_le_bytes());
    }),
    (Rule::PcMemoryMap, "the console page as RAM", |system| {
        other_linux(system, 0x22D0 + 40, &[0xF_F000_u64, 0x1000].map(u64::to_le_bytes).concat());
    }),
    (Rule::PcTables, "a table with one bit changed", |system| other_linux(system, 0x4220, &[1])),
    (Rule::PcTables, "the core of another", |system| {
        linux(system);
        system.board.apic_ids[2] = 40;
    }),
];

/// A change that breaks one rule of the image.
type Damage = (Rule, &'static str, fn(&mut Parts));

const DAMAGES: &[Damage] = &[
    (Rule::Readable, "no hypervisor", |parts| parts.uefi = b"not an ELF file".to_vec()),
    (Rule::Readable, "a hypervisor that is cut off", |parts| parts.bios.truncate(0x1800)),
    (Rule::Readable, "a menu that starts something else", |parts| {
        parts.menu.push_str("chainloader +1\n");
    }),
    (Rule::Readable, "a table of another format", |parts| {
        note(&mut parts.uefi)[28] = 1;
    }),
    (Rule::OneProgram, "two hypervisors", |parts| *parts.bios.last_mut().unwrap() ^= 1),
    (Rule::OneProgram, "two tables", |parts| {
        let at = find(&parts.bios, b"neighbour");
        parts.bios[at] = b'N';
    }),
    (Rule::Menu, "a module is not handed over", |parts| {
        parts.menu = parts.menu.replace("module2 /boot/shared.bin shared\n", "");
    }),
    (Rule::Menu, "a module is handed over twice", |parts| {
        let line = "module2 /boot/shared.bin shared\n";
        parts.menu = parts.menu.replace(line, &line.repeat(2));
    }),
    (Rule::Menu, "a module for nobody", |parts| {
        let line = "module2 /boot/shared.bin shared\n";
        parts.menu = parts.menu.replace(line, &format!("{line}module2 /boot/shared.bin other\n"));
    }),
    (Rule::Digest, "another table than was promised", |parts| parts.promised = "00".repeat(32)),
    (Rule::HypervisorImage, "an entry where there is no code", |parts| {
        both(parts, |elf| elf[24..32].copy_from_slice(&0x400_0000_u64.to_le_bytes()));
    }),
    (Rule::HypervisorImage, "a segment that is writable and executable", |parts| {
        both(parts, |elf| data_header(elf)[4] |= 1);
    }),
    (Rule::HypervisorImage, "a segment that is mapped elsewhere", |parts| {
        both(parts, |elf| data_header(elf)[16 + 3] ^= 4);
    }),
    (Rule::HypervisorImage, "a segment outside of the hypervisor's range", |parts| {
        both(parts, |elf| {
            for field in [16, 24] {
                data_header(elf)[field..field + 8].copy_from_slice(&0x4000_u64.to_le_bytes());
            }
        });
    }),
    (Rule::Staging, "images that do not fit behind the hypervisor", |parts| {
        both(parts, |elf| {
            // Three pages before the end of the range; each image takes two.
            let header = data_header(elf);
            let start = u64::from_le_bytes(header[24..32].try_into().unwrap());
            header[40..48].copy_from_slice(&(0x1FF_D000 - start).to_le_bytes());
        });
    }),
    (Rule::Module, "a module with one bit changed", |parts| parts.modules[1].1[100] ^= 1),
    (Rule::Module, "a module that is too long", |parts| parts.modules[1].1.push(0)),
    (Rule::Module, "a module that is not on the disk", |parts| parts.modules[1].0.push('x')),
];

fn both(parts: &mut Parts, change: fn(&mut Vec<u8>)) {
    change(&mut parts.uefi);
    change(&mut parts.bios);
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).position(|found| found == what).unwrap()
}

/// The description of the note that leads to the table: its address, the sample, its size, its format.
fn note(elf: &mut [u8]) -> &mut [u8] {
    let header = [9_u32, 32, 1].map(u32::to_le_bytes).concat();
    let at = find(elf, &header) + header.len() + 12;
    &mut elf[at..at + 32]
}

/// The program header of the writable segment.
fn data_header(elf: &mut [u8]) -> &mut [u8] {
    const WRITE: u8 = 2;
    let count = usize::from(elf[56]);
    let mut headers = elf[64..].chunks_exact_mut(56).take(count);
    headers.find(|header| header[0] == 1 && header[4] & WRITE != 0).unwrap()
}

fn codes(report: &Report) -> BTreeSet<&'static str> {
    report.faults.iter().map(|fault| fault.code).collect()
}

/// What is wrong with the answer to a corruption; `None` when its rule is broken and no other.
fn complaint(rule: Rule, what: &str, report: &Report) -> Option<String> {
    let told: Vec<_> = report.faults.iter().map(ToString::to_string).collect();
    let right = codes(report) == BTreeSet::from([rule.code()]);
    (!right).then(|| format!("{what}: not {} alone, but\n{}", rule.code(), told.join("\n")))
}

#[test]
fn a_sound_table_is_proven() {
    let report = audit_table(&system());
    assert!(report.is_proven(), "{:#?}", report.faults);
    assert_eq!((report.partitions, report.cores, report.windows), (3, 4, 7));
    assert!(report.facts > 50, "{}", report.summary());
}

#[test]
fn a_sound_image_is_proven_and_needs_no_manifest() {
    let report = Parts::good().audit();
    assert!(report.is_proven(), "{:#?}", report.faults);
    assert!(bulkhead_audit::audit_image(&Parts::good().image(), None).is_proven());
}

#[test]
fn a_sound_linux_is_proven() {
    let mut system = system();
    linux(&mut system);
    let report = audit_table(&system);
    assert!(report.is_proven(), "{:#?}", report.faults);
}

#[test]
fn sound_systems_of_every_kind_are_proven() {
    let mut system = system();
    cut(&mut system, ALONE, 0x40_0000);
    state(&mut system, ALONE);
    spare(&mut system, Role::Housekeeping);
    system.partitions[NEIGHBOUR].donates_to = None;
    let report = audit_table(&system);
    assert!(report.is_proven(), "{:#?}", report.faults);
}

#[test]
fn each_corrupted_table_breaks_its_rule_and_no_other() {
    let complaints = CORRUPTIONS.iter().filter_map(|(rule, what, corrupt)| {
        let mut system = system();
        corrupt(&mut system);
        complaint(*rule, what, &audit_table(&system))
    });
    let complaints: Vec<_> = complaints.collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
}

#[test]
fn each_damaged_image_breaks_its_rule_and_no_other() {
    let complaints = DAMAGES.iter().filter_map(|(rule, what, damage)| {
        let mut parts = Parts::good();
        damage(&mut parts);
        complaint(*rule, what, &parts.audit())
    });
    let complaints: Vec<_> = complaints.collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
}

#[test]
fn each_rule_has_a_corruption() {
    let tables = CORRUPTIONS.iter().map(|(rule, ..)| *rule);
    let covered: BTreeSet<Rule> = tables.chain(DAMAGES.iter().map(|(rule, ..)| *rule)).collect();
    let missing: Vec<_> = Rule::ALL.iter().filter(|rule| !covered.contains(rule)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn codes_ascend() {
    assert!(Rule::ALL.is_sorted_by(|one, other| one.code() < other.code()));
}

#[test]
fn a_fault_names_both_owners_and_where_they_are_declared() {
    let mut system = system();
    system.partitions[SHARED].memory[0].host = system.partitions[ALONE].memory[0].host;
    let report = audit_table(&system);
    let names: Vec<_> = report.faults[0].parties.iter().map(|party| party.name.as_str()).collect();
    assert_eq!(names, ["partition shared", "partition alone"]);
    for partition in [SHARED, ALONE] {
        let place = &system.partitions[partition].place;
        assert!(report.faults[0].message.contains(place), "{}", report.faults[0]);
    }
    assert!(report.to_json().contains("\"code\":\"AU21\""));
}

#[test]
fn all_faults_are_told_at_once() {
    let mut system = system();
    let corruptions = [Rule::ApicId, Rule::HostPage, Rule::SwitchBudget, Rule::Entry];
    for rule in corruptions {
        let (_, _, corrupt) = CORRUPTIONS.iter().find(|(broken, ..)| *broken == rule).unwrap();
        corrupt(&mut system);
    }
    let report = audit_table(&system);
    assert_eq!(codes(&report), corruptions.map(Rule::code).into_iter().collect());
    assert!(report.summary().starts_with("4 faults;"), "{}", report.summary());
}
