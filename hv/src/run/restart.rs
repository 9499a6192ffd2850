//! A partition with the platform of a PC starts again: it wrote its reset register, or its processor shut down.
//!
//! First all its vCPUs stop, each on its own core. Then that of vCPU 0 clears the partition's memory and copies image and boot
//! information there, as at boot; on a dedicated core at once, on a time-shared one piece by piece within the partition's own windows. Then
//! vCPU 0 starts and the others wait for it to start them. Nobody but the partition's own cores and windows does any of it.
//!
//! A restart has a number. One is asked for while it is not done; so a vCPU that was slow to see one end cannot miss the next.
#![expect(unsafe_code, reason = "copies guest images to guest memory")]

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use bulkhead_table::{Partition, PartitionId, Range};
use hv_core::ipi::BOOTSTRAP;
use hv_core::load::{Load, Piece, Source};
use hv_core::wire::Fate;

use super::cell::CoreCell;
use super::{incidents, interrupts, module, pc};
use crate::backend::Backend;
use crate::cpu::apic;
use crate::cpu::instructions as machine;
use crate::memory::{self, Mapped, Side};
use crate::table::TABLE;
use crate::vcpu::{Life, Vcpu};

/// The restarts of one partition.
struct Restart {
    /// Number of the restart that was asked for last.
    asked: AtomicU32,
    /// Number of the one that was done last.
    done: AtomicU32,
    /// vCPUs that stopped for it, vCPU 0 not counted.
    stopped: AtomicUsize,
    /// How far the memory is. The core of vCPU 0 only.
    load: CoreCell<Load>,
}

static RESTARTS: [Restart; pc::COUNT] = [const {
    Restart {
        asked: AtomicU32::new(0),
        done: AtomicU32::new(0),
        stopped: AtomicUsize::new(0),
        load: CoreCell::new(Load::begin()),
    }
}; pc::COUNT];

fn of(id: PartitionId) -> Option<&'static Restart> {
    RESTARTS.get(pc::place(id)?)
}

impl Restart {
    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst) != self.done.load(Ordering::SeqCst)
    }
}

/// Whether partition `id` is to start again.
#[inline]
pub fn is_asked(id: PartitionId) -> bool {
    pc::ANY && of(id).is_some_and(Restart::is_asked)
}

/// The same, and nothing ended the partition meanwhile.
pub fn is_under_way(id: PartitionId) -> bool {
    is_asked(id) && module::fate(usize::from(id)) == Fate::Running
}

/// How often partition `id` started again.
pub fn count(id: PartitionId) -> u32 {
    of(id).map_or(0, |restart| restart.done.load(Ordering::Relaxed))
}

/// The guest of `vcpu` asks for a restart; `fault` says that it did so by shutting its processor down.
pub fn ask(vcpu: &Vcpu, fault: bool) {
    let id = vcpu.state.partition;
    let Some(restart) = of(id) else {
        return;
    };
    let done = restart.done.load(Ordering::SeqCst);
    let next = done.wrapping_add(1);
    // It fails where another vCPU asked already.
    let first =
        restart.asked.compare_exchange(done, next, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    // Of a partition that ended meanwhile, by another of its vCPUs, no restart is carried out, and none is told.
    if first && !interrupts::is_over(vcpu) {
        incidents::restart(id, next, fault);
    }
    interrupts::tell_the_others(vcpu);
}

/// On a dedicated core: does this vCPU's part of a restart that was asked for, and returns when it is time to enter the guest; for
/// any vCPU but vCPU 0 the caller waits for its start.
pub fn carry_out<B: Backend>(vcpu: &mut Vcpu) {
    let (Some(restart), Some(partition)) =
        (of(vcpu.state.partition), TABLE.partitions.get(usize::from(vcpu.state.partition)))
    else {
        return;
    };
    if vcpu.state.msr.peers.own() != BOOTSTRAP {
        let number = restart.asked.load(Ordering::SeqCst);
        restart.stopped.fetch_add(1, Ordering::SeqCst);
        // vCPU 0 may have asked for the next one before this core looks.
        let behind = |done: u32| number.wrapping_sub(done).cast_signed() <= 0;
        wait(vcpu, || behind(restart.done.load(Ordering::SeqCst)));
        B::refresh(vcpu);
        vcpu.life = Life::AwaitsStart;
        apic::reset();
        return;
    }
    wait(vcpu, || restart.stopped.load(Ordering::SeqCst) == partition.cpus.len() - 1);
    // SAFETY: this is the core of vCPU 0.
    let load = unsafe { restart.load.get() };
    while step(partition, vcpu.state.partition, load) {
        if module::is_stopping() {
            module::park();
        }
    }
    B::refresh(vcpu);
    apic::reset_to_enabled();
    finish(restart, partition, vcpu.state.partition);
}

/// Waits until `done`; the core is the partition's alone.
fn wait(vcpu: &Vcpu, done: impl Fn() -> bool) {
    while !done() {
        if module::is_stopping() || interrupts::is_over(vcpu) {
            module::park();
        }
        core::hint::spin_loop();
    }
}

/// On a time-shared core, in a window of the partition: another of its vCPUs than vCPU 0 stops. The VMCS of `vcpu` is current.
pub fn stop<B: Backend>(vcpu: &mut Vcpu) {
    if let Some(restart) = of(vcpu.state.partition) {
        B::refresh(vcpu);
        vcpu.life = Life::AwaitsStart;
        vcpu.state.apic.reset();
        vcpu.stopped_for = restart.asked.load(Ordering::SeqCst);
        restart.stopped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Whether [`stop`] was called for the restart that is asked for.
pub fn has_stopped(vcpu: &Vcpu) -> bool {
    of(vcpu.state.partition)
        .is_some_and(|restart| restart.asked.load(Ordering::SeqCst) == vcpu.stopped_for)
}

/// On a time-shared core, in a window of the partition: gets on with the memory until TSC `instant`. Returns whether it is loaded.
pub fn load_until(vcpu: &Vcpu, instant: u64) -> bool {
    let id = vcpu.state.partition;
    let (Some(restart), Some(partition)) = (of(id), TABLE.partitions.get(usize::from(id))) else {
        return false;
    };
    if restart.stopped.load(Ordering::SeqCst) != partition.cpus.len() - 1 {
        return false;
    }
    // SAFETY: this is the core of vCPU 0.
    let load = unsafe { restart.load.get() };
    while machine::tsc() < instant {
        if !step(partition, id, load) {
            return true;
        }
    }
    false
}

/// On a time-shared core: vCPU 0, whose VMCS is current, is as at its first start, and the restart is done.
pub fn start<B: Backend>(vcpu: &mut Vcpu) {
    let id = vcpu.state.partition;
    if let (Some(restart), Some(partition)) = (of(id), TABLE.partitions.get(usize::from(id))) {
        B::refresh(vcpu);
        vcpu.state.apic.reset_to_enabled();
        finish(restart, partition, id);
    }
}

/// Puts the next piece of a partition's memory in place; false when there is none.
fn step(partition: &Partition, id: PartitionId, load: &mut Load) -> bool {
    let piece = load.next(partition);
    if let (Some(piece), Some(image)) = (&piece, crate::boot::machine().image(id)) {
        put(piece, partition, &image);
    }
    piece.is_some()
}

/// Puts a piece in place. The memory of the partition, and the image that waits in the hypervisor's range, are mapped for that moment.
pub fn put(piece: &Piece, partition: &Partition, image: &Range) {
    match piece.source {
        Source::Zero => {
            let target = mapped(Side::Target, piece.target, piece.length);
            // SAFETY: the range is the partition's alone (the compiler's proof, by which `Load` went), usable RAM (the board check's), and
            // mapped here; no guest of the partition runs.
            unsafe { core::ptr::write_bytes(target.address(), 0, piece.length as usize) };
        }
        Source::Image(from) => {
            let source = Range { start: image.start.saturating_add(from), size: piece.length };
            if image.contains(&source) {
                let source = mapped(Side::Source, source.start, source.size);
                copy(source.address(), piece);
            }
        }
        Source::BootInfo(from) => {
            let end = from.saturating_add(piece.length);
            if let Some(bytes) = partition.boot_info.get(from as usize..end as usize) {
                copy(bytes.as_ptr(), piece);
            }
        }
    }
}

/// Copies a piece from `source`, which has as many bytes, is mapped, and lies in the hypervisor's own range.
fn copy(source: *const u8, piece: &Piece) {
    let target = mapped(Side::Target, piece.target, piece.length);
    // SAFETY: as in `put`; the two cannot overlap, because the hypervisor's own range is no partition's.
    unsafe { core::ptr::copy_nonoverlapping(source, target.address(), piece.length as usize) };
}

/// Opens one side of this core's window.
fn mapped(side: Side, start: u64, length: u64) -> Mapped {
    match memory::map(side, start, length) {
        Some(mapped) => mapped,
        None => window_refused(),
    }
}

#[cold]
#[inline(never)]
fn window_refused() -> ! {
    panic!("a piece of memory does not fit this core's window, or it is in use")
}

/// What the former life left behind is gone: interrupts between vCPUs and the devices' state. The others go on from here.
fn finish(restart: &Restart, partition: &Partition, id: PartitionId) {
    interrupts::forget(partition);
    if let Some(devices) = pc::devices(id) {
        devices.reset();
    }
    // SAFETY: this is the core of vCPU 0.
    unsafe { *restart.load.get() = Load::begin() };
    restart.stopped.store(0, Ordering::SeqCst);
    restart.done.store(restart.asked.load(Ordering::SeqCst), Ordering::SeqCst);
}
