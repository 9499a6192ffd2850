//! The report for a person: what runs where, when, and from which bytes.

use std::fmt::Write;

use bulkhead_table::{Hygiene, Platform, Uart, Window};

use crate::language::HYGIENE_WORDS;
use crate::memory::{EDGE, near_end};
use crate::plan::{Plan, PlannedPartition, PlannedRole};
use crate::topology::siblings;
use crate::units::{duration_text, size_text};
use crate::view::serial_text;
use crate::{Module, limits};

/// The report; `images` is empty when none were looked at.
pub(crate) fn report(plan: &Plan, images: &[Module]) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = head(&mut out, plan)
        .and_then(|()| cores(&mut out, plan))
        .and_then(|()| neighbours(&mut out, plan))
        .and_then(|()| memory(&mut out, plan))
        .and_then(|()| module_images(&mut out, plan, images));
    out
}

fn head(out: &mut String, plan: &Plan) -> std::fmt::Result {
    let hz = plan.tsc_hz();
    writeln!(out, "System {} on board {}", plan.system, plan.board.name)?;
    writeln!(out, "  clock       {} MHz, one tick is {}", hz as f64 / 1e6, duration_text(1, hz))?;
    log(out, plan)?;
    if let Some(limits) = limits::text(&plan.limits, hz) {
        writeln!(out, "  limits      at most {limits}")?;
    }
    match &plan.shutdown {
        None => writeln!(out, "  ends        never by itself"),
        Some(shutdown) => {
            let names: Vec<_> = shutdown.when_finished.iter().map(|id| plan.name_of(*id)).collect();
            write!(out, "  ends        when {} finished", names.join(" and "))?;
            match plan.at_latest() {
                Some(ticks) => writeln!(out, ", at the latest after {}", duration_text(ticks, hz)),
                None => writeln!(out),
            }
        }
    }
}

/// Where the log goes, where that is not a port of a PC's own.
fn log(out: &mut String, plan: &Plan) -> std::fmt::Result {
    match (plan.uart(), plan.log_memory()) {
        (None, Some(memory)) => writeln!(
            out,
            "  log         on the screen, and in memory {:#x} to {:#x}: the board has no serial port",
            memory.start,
            memory.end()
        ),
        (uart @ Some(Uart { in_memory: true, .. }), _) => {
            writeln!(out, "  log         serial port, {}", serial_text(uart))
        }
        _ => Ok(()),
    }
}

fn cores(out: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(out, "\nCores")?;
    for (cpu, apic_id) in plan.board.apic_ids.iter().enumerate() {
        write!(out, "  {cpu:>2} (APIC id {apic_id})  ")?;
        let core = plan.cores.binary_search_by_key(&cpu, |core| usize::from(core.cpu));
        match core.ok().and_then(|index| plan.cores.get(index)).map(|core| &core.role) {
            None => writeln!(out, "not started")?,
            Some(PlannedRole::Dedicated(id)) => {
                writeln!(out, "dedicated to {}", plan.name_of(*id))?;
            }
            Some(PlannedRole::Housekeeping) => writeln!(out, "housekeeping")?,
            Some(PlannedRole::Shared(plans)) => {
                for (number, (name, windows)) in plan.plans.iter().zip(plans).enumerate() {
                    if number > 0 {
                        write!(out, "                   ")?;
                    }
                    shared(out, plan, name, windows)?;
                }
            }
        }
    }
    Ok(())
}

fn shared(out: &mut String, plan: &Plan, name: &str, windows: &[Window]) -> std::fmt::Result {
    let hz = plan.tsc_hz();
    let used: u64 = windows.iter().map(|window| window.length).sum();
    let switching: u64 = windows.iter().map(|window| window.budget).sum();
    let percent = |ticks: u64| 100.0 * ticks as f64 / plan.frame.max(1) as f64;
    writeln!(
        out,
        "time-shared, plan {name}, frame {} ({} ticks), {:.1} % in windows, {:.1} % for switches",
        duration_text(plan.frame, hz),
        plan.frame,
        percent(used),
        percent(switching)
    )?;
    for window in windows {
        writeln!(
            out,
            "       {:<32} {:>10} to {:>10}   ticks {:>9} to {:>9}   switch {:>8}",
            plan.owner_name(window.owner),
            duration_text(window.start, hz),
            duration_text(window.start + window.length, hz),
            window.start,
            window.start + window.length,
            duration_text(window.budget, hz)
        )?;
    }
    Ok(())
}

/// Which caches and cores partitions share, where the board says it.
fn neighbours(out: &mut String, plan: &Plan) -> std::fmt::Result {
    let runs = |cpus: &[u16]| {
        let on =
            |partition: &&PlannedPartition| partition.cpus.iter().any(|cpu| cpus.contains(cpu));
        let names: Vec<_> =
            plan.partitions.iter().filter(on).map(|partition| partition.name.as_str()).collect();
        if names.is_empty() { "no partition".to_owned() } else { names.join(", ") }
    };
    let siblings = siblings(plan.positions());
    let shared: Vec<_> = plan.caches().filter(|cache| cache.cores.len() > 1).collect();
    if siblings.is_empty() && shared.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nShared between cores")?;
    for cpus in siblings {
        writeln!(out, "  threads of one core    cores {:<12}  {}", numbers(&cpus), runs(&cpus))?;
    }
    for cache in shared {
        let what = format!("cache of level {}", cache.level);
        let (size, cpus) = (size_text(cache.size), numbers(&cache.cores));
        writeln!(out, "  {what:<16} {size:>8}  cores {cpus:<12}  {}", runs(&cache.cores))?;
    }
    Ok(())
}

fn memory(out: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(out, "\nMemory of the machine")?;
    let mut rows = vec![(plan.board.hypervisor, "hypervisor")];
    rows.extend(plan.log_memory().map(|range| (range, "  the log, in the hypervisor's")));
    for partition in &plan.partitions {
        for region in &partition.regions {
            let range = bulkhead_table::Range { start: region.host, size: region.size };
            rows.push((range, partition.name.as_str()));
        }
    }
    rows.sort_by_key(|(range, _)| range.start);
    for (range, owner) in &rows {
        let (start, end) = (range.start, range.end());
        writeln!(out, "  {start:#014x} to {end:#014x}  {:>9}  {owner}", size_text(range.size))?;
    }
    near_ends(out, plan, &rows)?;
    for range in &plan.board.memory {
        let (start, end) = (range.start, range.end());
        writeln!(
            out,
            "  {start:#014x} to {end:#014x}  {:>9}  RAM of the board",
            size_text(range.size)
        )?;
    }
    Ok(())
}

/// Which memory lies where firmware may move the end of RAM.
fn near_ends(
    out: &mut String,
    plan: &Plan,
    rows: &[(bulkhead_table::Range, &str)],
) -> std::fmt::Result {
    for (range, owner) in rows {
        if let Some(end) = near_end(&plan.board.memory, range) {
            writeln!(
                out,
                "  {} of {owner} from {:#x} lie in the last {} of RAM, which ends at {end:#x}: UEFI firmware moves that end; a board with more RAM has room",
                size_text(range.size),
                range.start,
                size_text(EDGE)
            )?;
        }
    }
    Ok(())
}

fn module_images(out: &mut String, plan: &Plan, images: &[Module]) -> std::fmt::Result {
    writeln!(out, "\nPartitions")?;
    for (index, partition) in plan.partitions.iter().enumerate() {
        writeln!(
            out,
            "  {:<32} {} {}, {}, declared at {}",
            partition.name,
            if partition.cpus.len() == 1 { "core" } else { "cores" },
            numbers(&partition.cpus),
            size_text(partition.size()),
            partition.place
        )?;
        if partition.may_switch_plan {
            writeln!(out, "      may        switch plans")?;
        }
        if let Some(receiver) = partition.donates_to {
            writeln!(out, "      donates    to {}", plan.name_of(receiver))?;
        }
        if let Some(wanted) = cleaned(partition.hygiene) {
            let cost = duration_text(plan.hygiene_costs().of(partition.hygiene), plan.tsc_hz());
            writeln!(out, "      hygiene    {wanted}, {cost} at a switch")?;
        }
        if partition.platform == Platform::Pc {
            writeln!(out, "      platform   pc")?;
        }
        if !partition.arguments.is_empty() {
            writeln!(out, "      arguments  {}", partition.arguments)?;
        }
        if let Some(module) = images.get(index) {
            let digest: String = module.digest.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(out, "      image      {} bytes, sha256 {digest}", module.bytes.len())?;
        }
    }
    Ok(())
}

/// What is cleaned, in the words of the file; `None` when nothing is.
fn cleaned(hygiene: Hygiene) -> Option<String> {
    let Hygiene { l1d_flush, branch_barrier, buffer_clear } = hygiene;
    let wanted = [l1d_flush, branch_barrier, buffer_clear].into_iter().zip(HYGIENE_WORDS);
    let words: Vec<_> = wanted.filter(|(wanted, _)| *wanted).map(|(_, word)| *word).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn numbers(cpus: &[u16]) -> String {
    cpus.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}
