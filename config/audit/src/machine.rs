//! Proves what the table says of the machine: cores, APIC ids, vCPUs, ports, names, the end.

use std::collections::BTreeSet;

use bulkhead_table::{LOG_MEMORY, MAX_CORES, MAX_PARTITIONS, Range, Uart};

use crate::claims::{Claim, apart, unique};
use crate::model::{Core, Partition, Role, System};
use crate::proof::{Party, Proof};
use crate::rules::Rule;

/// Ports of a 16550, from its first one on.
const SERIAL_PORTS: u64 = 8;
/// Ports of the two legacy interrupt controllers, which the hypervisor masks at boot and nobody may open again.
const INTERRUPT_CONTROLLERS: [u64; 2] = [0x20, 0xA0];
/// What the boot code reaches.
const REACHABLE: u64 = 1 << 32;
/// Ports that there are.
const PORTS: u64 = 1 << 16;

/// Proves all of it.
pub(crate) fn prove(system: &System, proof: &mut Proof) {
    figures(system, proof);
    log(system, proof);
    names(system, proof);
    apic_ids(system, proof);
    cores(system, proof);
    owners(system, proof);
    vcpus(system, proof);
    ports(system, proof);
    shutdown(system, proof);
}

fn figures(system: &System, proof: &mut Proof) {
    let board = &system.board;
    let about = || vec![Party::thing(format!("board {}", board.name))];
    proof.fact(Rule::Figures, board.tsc_hz > 0, || {
        ("the clock of the board has a frequency of 0 Hz".to_owned(), about())
    });
    if let Some(Uart { clock, baud, .. }) = board.uart {
        proof.fact(Rule::Figures, divides(clock.into(), baud.into()), || {
            (format!("the serial port's clock of {clock} Hz gives no {baud} baud"), about())
        });
    }
}

/// Whether a whole number of 1 to 65535 divides a sixteenth of the clock to within 2 % of the baud rate.
fn divides(clock: u64, baud: u64) -> bool {
    let divisors = [clock / (16 * baud.max(1)), clock / (16 * baud.max(1)) + 1];
    divisors.into_iter().filter(|divisor| (1..=0xFFFF).contains(divisor)).any(|divisor| {
        let (real, wanted) = (clock, 16 * baud * divisor);
        baud > 0 && wanted.abs_diff(real) * 50 <= wanted
    })
}

/// Where the log goes: to a serial port, whose registers may lie in memory, or into memory.
fn log(system: &System, proof: &mut Proof) {
    let board = &system.board;
    let party = || vec![Party::thing("the serial port of the log")];
    if let Some(uart) = board.uart.filter(|uart| uart.in_memory) {
        let (stride, width) = (u64::from(uart.stride), u64::from(uart.width));
        let registers = Range { start: uart.base, size: SERIAL_PORTS * stride };
        let shaped = matches!(stride, 1 | 2 | 4 | 8) && matches!(width, 1 | 4) && width <= stride;
        proof.fact(Rule::SerialRegisters, shaped && uart.base.is_multiple_of(stride), || {
            let message = format!(
                "registers at {:#x}, {stride} bytes apart and read by {width}, are no serial port's",
                uart.base
            );
            (message, party())
        });
        let outside = !board.memory.iter().any(|range| range.overlaps(&registers));
        let placed = uart.base != 0 && registers.end() <= REACHABLE && outside;
        proof.fact(Rule::SerialRegisters, placed, || {
            let message = format!("registers at {:#x} are in RAM, or out of reach", uart.base);
            (message, party())
        });
    }
    let (own, kept) = (system.hypervisor, board.log_memory);
    let right = match board.uart {
        Some(_) => kept.size == 0,
        None => kept.size == LOG_MEMORY && kept.end() == own.end() && own.contains(&kept),
    };
    proof.fact(Rule::LogMemory, right, || {
        let message = format!(
            "the log is kept in {:#x}-{:#x}, and the hypervisor's range ends at {:#x}",
            kept.start,
            kept.end(),
            own.end()
        );
        (message, vec![Party::thing("the hypervisor")])
    });
}

fn names(system: &System, proof: &mut Proof) {
    let named = system.partitions.iter().map(|each| (each.name.as_str(), each.party()));
    unique(proof, Rule::Name, "the name", named);
    for partition in &system.partitions {
        proof.fact(Rule::Name, !partition.name.is_empty(), || {
            ("a partition has an empty name".to_owned(), vec![partition.party()])
        });
    }
    let count = system.partitions.len();
    proof.fact(Rule::Name, (1..=MAX_PARTITIONS).contains(&count), || {
        (
            format!("the table has {count} partitions, and may have 1 to {MAX_PARTITIONS}"),
            Vec::new(),
        )
    });
}

fn apic_ids(system: &System, proof: &mut Proof) {
    let ids = &system.board.apic_ids;
    let cpu = |number: usize| Party::thing(format!("core {number} of the board"));
    let numbered = ids.iter().enumerate().map(|(number, id)| (*id, cpu(number)));
    unique(proof, Rule::ApicId, "the APIC id", numbered);
    let count = ids.len();
    proof.fact(Rule::ApicId, (1..=MAX_CORES).contains(&count), || {
        (format!("the board has {count} cores, and may have 1 to {MAX_CORES}"), Vec::new())
    });
}

fn cores(system: &System, proof: &mut Proof) {
    let party = |core: &Core| Party::thing(format!("core {}", core.cpu));
    for (number, core) in system.cores.iter().enumerate() {
        let there = usize::from(core.cpu) < system.board.apic_ids.len();
        proof.fact(Rule::Core, there, || {
            (format!("core {} is not on the board", core.cpu), vec![party(core)])
        });
        let before = number.checked_sub(1).and_then(|before| system.cores.get(before));
        let ascends = before.is_none_or(|before| before.cpu < core.cpu);
        proof.fact(Rule::Core, ascends, || {
            let message = format!("core {} does not follow the core before it", core.cpu);
            (message, before.into_iter().chain([core]).map(party).collect())
        });
    }
    let boots = system.cores.first().is_some_and(|first| first.cpu == 0);
    proof.fact(Rule::Core, boots, || {
        ("core 0, which boots, is not the first of the table".to_owned(), Vec::new())
    });
}

/// Who runs on each core is who names it; and one who has a dedicated core has no windows elsewhere.
fn owners(system: &System, proof: &mut Proof) {
    for core in &system.cores {
        for id in runners(core) {
            let named = partition(system, id).is_some_and(|each| each.cpus.contains(&core.cpu));
            proof.fact(Rule::CoreOwner, named, || {
                let party = system.party(id);
                (format!("core {} runs {party}, which does not name it", core.cpu), vec![party])
            });
        }
    }
    for (id, partition) in (0_u16..).zip(&system.partitions) {
        for cpu in &partition.cpus {
            names_its_core(system, id, partition, *cpu, proof);
        }
        let dedicated = |cpu: &u16| {
            system.core(*cpu).is_some_and(|core| matches!(core.role, Role::Dedicated(_)))
        };
        let kinds = partition.cpus.iter().filter(|cpu| dedicated(cpu)).count();
        proof.fact(Rule::CoreOwner, kinds == 0 || kinds == partition.cpus.len(), || {
            let party = partition.party();
            (format!("{party} has dedicated and time-shared cores"), vec![party])
        });
    }
}

fn runners(core: &Core) -> Vec<u16> {
    let mut all: Vec<u16> = match &core.role {
        Role::Dedicated(id) => vec![*id],
        Role::Housekeeping => Vec::new(),
        Role::Shared(plans) => {
            let owners = plans.iter().flatten().map(|window| window.owner);
            owners
                .filter_map(|owner| match owner {
                    bulkhead_table::Owner::Partition(id) => Some(id),
                    bulkhead_table::Owner::Housekeeping => None,
                })
                .collect()
        }
    };
    all.sort_unstable();
    all.dedup();
    all
}

fn partition(system: &System, id: u16) -> Option<&Partition> {
    system.partitions.get(usize::from(id))
}

fn names_its_core(system: &System, id: u16, own: &Partition, cpu: u16, proof: &mut Proof) {
    let core = system.core(cpu);
    let runs = core.is_some_and(|core| core.runs(id));
    // One that only receives what another donates has no window of its own.
    let receives = core.is_some_and(|core| {
        let giver = |each: &(u16, &Partition)| each.1.donates_to == Some(id) && core.runs(each.0);
        (0_u16..).zip(&system.partitions).any(|each| giver(&each))
    });
    proof.fact(Rule::CoreOwner, runs || receives, || {
        let party = own.party();
        let mut parties = vec![party.clone()];
        let instead = match core.map(|core| &core.role) {
            None => "which the table does not start".to_owned(),
            Some(Role::Housekeeping) => "which is housekeeping's".to_owned(),
            Some(Role::Dedicated(other)) => {
                parties.push(system.party(*other));
                format!("which is dedicated to {}", system.party(*other))
            }
            Some(Role::Shared(_)) => "which has no window for it in any plan".to_owned(),
        };
        (format!("{party} names core {cpu}, {instead}"), parties)
    });
}

fn vcpus(system: &System, proof: &mut Proof) {
    let mut next = 0_usize;
    for partition in &system.partitions {
        let (party, first) = (partition.party(), usize::from(partition.first_vcpu));
        proof.fact(Rule::Vcpu, first == next, || {
            let message =
                format!("the vCPUs of {party} are numbered from {first} on, and {next} comes next");
            (message, vec![party.clone()])
        });
        next = next.saturating_add(partition.cpus.len());
        let ascend = partition.cpus.is_sorted_by(|one, other| one < other);
        proof.fact(Rule::Vcpu, ascend && !partition.cpus.is_empty(), || {
            let cpus = &partition.cpus;
            (
                format!("{party} has the cores {cpus:?}, which do not ascend, or none"),
                vec![party.clone()],
            )
        });
    }
}

fn ports(system: &System, proof: &mut Proof) {
    let ports = |start: u64, size| Range { start, size };
    let board = &system.board;
    let serial = board.uart.filter(|uart| !uart.in_memory);
    let serial = serial.map(|uart| ports(uart.base, SERIAL_PORTS));
    let claim = |range| Claim::new(range, Party::thing("the serial port of the log"));
    let mut claims: Vec<Claim> = serial.map(claim).into_iter().collect();
    if let Some(power_off) = &board.power_off {
        let range = ports(power_off.port.into(), 1);
        claims.push(Claim::new(range, Party::thing("the power switch")));
    }
    let controller = |start| {
        Claim::new(ports(start, 2), Party::thing("the interrupt controllers, which stay masked"))
    };
    claims.extend(INTERRUPT_CONTROLLERS.map(controller));
    for claim in &claims {
        proof.fact(Rule::Port, claim.range.end() <= PORTS, || {
            let message = format!("{} ends behind the last I/O port", claim.party);
            (message, vec![claim.party.clone()])
        });
    }
    apart(proof, Rule::Port, "the I/O ports", claims);
}

fn shutdown(system: &System, proof: &mut Proof) {
    let Some(shutdown) = &system.shutdown else { return };
    proof.fact(Rule::Shutdown, !shutdown.when_finished.is_empty(), || {
        ("the system ends when no partition has finished: at once".to_owned(), Vec::new())
    });
    let mut seen = BTreeSet::new();
    for id in &shutdown.when_finished {
        let there = partition(system, *id).is_some();
        proof.fact(Rule::Shutdown, there, || {
            let party = system.party(*id);
            (format!("the end waits for {party}"), vec![party])
        });
        let first = seen.insert(*id);
        proof.fact(Rule::Shutdown, first, || {
            let party = system.party(*id);
            (format!("the end waits for {party} twice"), vec![party])
        });
    }
}
