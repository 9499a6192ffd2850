//! The report for a person: what runs where, when, and from which bytes.

use std::fmt::Write;

use bulkhead_table::{Owner, Window};

use crate::Module;
use crate::plan::{Plan, PlannedPartition, PlannedRole};
use crate::units::{duration_text, size_text};

/// The report; `images` is empty when none were looked at.
pub(crate) fn report(plan: &Plan, images: &[Module]) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = head(&mut out, plan)
        .and_then(|()| cores(&mut out, plan))
        .and_then(|()| memory(&mut out, plan))
        .and_then(|()| module_images(&mut out, plan, images));
    out
}

fn head(out: &mut String, plan: &Plan) -> std::fmt::Result {
    let hz = plan.tsc_hz();
    writeln!(out, "System {} on board {}", plan.system, plan.board.name)?;
    writeln!(out, "  clock       {} MHz, one tick is {}", hz as f64 / 1e6, duration_text(1, hz))?;
    match &plan.shutdown {
        None => writeln!(out, "  ends        never by itself"),
        Some(shutdown) => {
            let names: Vec<_> =
                shutdown.when_finished.iter().map(|id| partition_name(plan, *id)).collect();
            write!(out, "  ends        when {} finished", names.join(" and "))?;
            match plan.at_latest() {
                Some(ticks) => writeln!(out, ", at the latest after {}", duration_text(ticks, hz)),
                None => writeln!(out),
            }
        }
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
                writeln!(out, "dedicated to {}", partition_name(plan, *id))?;
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
    writeln!(
        out,
        "time-shared, plan {name}, frame {} ({} ticks), {:.1} % in windows, {} before each for the switch",
        duration_text(plan.frame, hz),
        plan.frame,
        100.0 * used as f64 / plan.frame.max(1) as f64,
        duration_text(plan.switch_budget(), hz)
    )?;
    for window in windows {
        let name = match window.owner {
            Owner::Housekeeping => "housekeeping",
            Owner::Partition(id) => partition_name(plan, id),
        };
        writeln!(
            out,
            "       {:<32} {:>10} to {:>10}   ticks {:>9} to {:>9}",
            name,
            duration_text(window.start, hz),
            duration_text(window.start + window.length, hz),
            window.start,
            window.start + window.length
        )?;
    }
    Ok(())
}

fn memory(out: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(out, "\nMemory of the machine")?;
    let mut rows = vec![(plan.board.hypervisor, "hypervisor")];
    for partition in &plan.partitions {
        let region = partition.region;
        let range = bulkhead_table::Range { start: region.host, size: region.size };
        rows.push((range, partition.name.as_str()));
    }
    rows.sort_by_key(|(range, _)| range.start);
    for (range, owner) in rows {
        let (start, end) = (range.start, range.end());
        writeln!(out, "  {start:#014x} to {end:#014x}  {:>9}  {owner}", size_text(range.size))?;
    }
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

fn module_images(out: &mut String, plan: &Plan, images: &[Module]) -> std::fmt::Result {
    writeln!(out, "\nPartitions")?;
    for (index, partition) in plan.partitions.iter().enumerate() {
        writeln!(
            out,
            "  {:<32} core {}, {}, declared at {}",
            partition.name,
            cpus(partition),
            size_text(partition.region.size),
            partition.place
        )?;
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

fn cpus(partition: &PlannedPartition) -> String {
    let numbers: Vec<_> = partition.cpus.iter().map(u16::to_string).collect();
    numbers.join(", ")
}

fn partition_name(plan: &Plan, id: u16) -> &str {
    plan.partitions.get(usize::from(id)).map_or("?", |partition| partition.name.as_str())
}
