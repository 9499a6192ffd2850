//! GDT and task state of each core.
#![expect(unsafe_code, reason = "loads segment registers and the task register")]

use spin::Once;
use x86_64::VirtAddr;
use x86_64::registers::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

use super::stacks::STACKS;
use crate::table::CORES;

/// Interrupt stack of the double fault.
pub const DOUBLE_FAULT_STACK: u16 = 0;
/// Interrupt stack of the NMI.
pub const NMI_STACK: u16 = 1;
/// Interrupt stack of the machine check.
pub const MACHINE_CHECK_STACK: u16 = 2;

/// A core's GDT and what it names.
struct Segments {
    gdt: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    task: SegmentSelector,
}

static TASKS: [Once<TaskStateSegment>; CORES] = [const { Once::new() }; CORES];
static SEGMENTS: [Once<Segments>; CORES] = [const { Once::new() }; CORES];

/// Loads GDT, segment registers and task register of the core with this index in the table.
pub fn load(core: usize) {
    let (Some(task), Some(segments), Some(stacks)) =
        (TASKS.get(core), SEGMENTS.get(core), STACKS.get(core))
    else {
        panic!("core {core} is not in the table");
    };
    let task = task.call_once(|| {
        let mut task = TaskStateSegment::new();
        for (slot, top) in stacks.interrupt_tops().into_iter().enumerate() {
            task.interrupt_stack_table[slot] = VirtAddr::new(top);
        }
        task
    });
    let segments = segments.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let task = gdt.append(Descriptor::tss_segment(task));
        Segments { gdt, code, data, task }
    });
    segments.gdt.load();
    // SAFETY: the selectors name the descriptors just loaded: flat code and data, and this core's own task state.
    unsafe {
        CS::set_reg(segments.code);
        SS::set_reg(segments.data);
        DS::set_reg(segments.data);
        ES::set_reg(segments.data);
        FS::set_reg(SegmentSelector::NULL);
        GS::set_reg(SegmentSelector::NULL);
        x86_64::instructions::tables::load_tss(segments.task);
    }
}
