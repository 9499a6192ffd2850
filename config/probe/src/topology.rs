//! Cores: packages, hyper-threads and shared caches out of CPUID. SDM 3A 10.9, SDM 2A CPUID leaves 4, 0xB and 0x1F.

use alloc::vec::Vec;

use crate::facts;

/// A logical processor, by ids that CPUID gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// Local APIC id.
    pub apic_id: u32,
    /// Package.
    pub package: u32,
    /// Core within the package.
    pub core: u32,
    /// Hyper-thread within the core.
    pub thread: u32,
}

/// A cache of data and the cores that share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1, 2, 3.
    pub level: u8,
    /// Bytes.
    pub size: u64,
    /// Numbers of the cores.
    pub cores: Vec<usize>,
}

/// Where thread and core bits of an APIC id end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shifts {
    core: u32,
    package: u32,
}

/// The APIC id of the core that answered.
#[must_use]
pub fn apic_id(core: &facts::Core) -> u32 {
    match topology_leaf(core) {
        Some(leaf) => core.leaf(leaf, 0)[3],
        None => core.leaf(1, 0)[1] >> 24,
    }
}

/// The leaf with the topology: the newer where both are there. `None` on an old processor.
fn topology_leaf(core: &facts::Core) -> Option<u32> {
    [0x1F, 0xB].into_iter().find(|leaf| core.leaf(*leaf, 0)[1] & 0xFFFF != 0)
}

fn shifts(core: &facts::Core) -> Shifts {
    match topology_leaf(core) {
        Some(leaf) => shifts_of_levels(core, leaf),
        None => shifts_of_counts(core),
    }
}

/// Each level says how many bits of the id lie below the next one; the last level's are the package's.
fn shifts_of_levels(core: &facts::Core, leaf: u32) -> Shifts {
    const LEVELS: u32 = 6;
    const THREADS: u32 = 1;
    let mut shifts = Shifts { core: 0, package: 0 };
    for sub in 0..LEVELS {
        let [bits, count, kind, _] = core.leaf(leaf, sub);
        let kind = kind >> 8 & 0xFF;
        if kind == 0 || count & 0xFFFF == 0 {
            break;
        }
        let bits = bits & 0x1F;
        if kind == THREADS {
            shifts.core = bits;
        }
        shifts.package = shifts.package.max(bits);
    }
    shifts
}

/// Before leaf 0xB: logical processors of a package in leaf 1, cores in leaf 4 (Intel) or 0x80000008 (AMD).
fn shifts_of_counts(core: &facts::Core) -> Shifts {
    const HYPER_THREADING: u32 = 1 << 28;
    let [_, features, _, flags] = core.leaf(1, 0);
    if flags & HYPER_THREADING == 0 {
        return Shifts { core: 0, package: 0 };
    }
    let logical = (features >> 16 & 0xFF).max(1);
    let amd = core.leaf(0x8000_0008, 0)[2];
    let intel = core.leaf(4, 0)[0];
    let cores = if intel & 0x1F != 0 {
        (intel >> 26) + 1
    } else if amd & 0xFF != 0 {
        (amd & 0xFF) + 1
    } else {
        logical
    };
    let package = bits_for(logical.max(cores));
    Shifts { core: package - bits_for(cores).min(package), package }
}

/// Bits that hold the numbers below `count`.
fn bits_for(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

fn low(id: u32, bits: u32) -> u32 {
    if bits >= 32 { id } else { id & ((1 << bits) - 1) }
}

fn without(id: u32, bits: u32) -> u32 {
    id.checked_shr(bits).unwrap_or(0)
}

/// The core with this APIC id. `facts` are its own leaves, or the boot core's where it did not answer itself.
#[must_use]
pub fn place(apic_id: u32, facts: &facts::Core) -> Core {
    let shifts = shifts(facts);
    Core {
        apic_id,
        package: without(apic_id, shifts.package),
        core: without(low(apic_id, shifts.package), shifts.core),
        thread: low(apic_id, shifts.core),
    }
}

/// The caches of data of all cores, nearest first. No cache reaches beyond a package, and none divides the threads of a
/// core: emulators claim both, and no processor has either. `cores` are the APIC id of each core and the leaves that hold for it.
#[must_use]
pub fn caches(cores: &[(u32, &facts::Core)]) -> Vec<Cache> {
    let mut found: Vec<(Cache, (u32, u32))> = Vec::new();
    for (number, (apic_id, facts)) in cores.iter().enumerate() {
        for (level, size, shift) in own_caches(facts) {
            let shift = shift.max(shifts(facts).core);
            let group = (place(*apic_id, facts).package, without(*apic_id, shift));
            let same = |(cache, of): &&mut (Cache, (u32, u32))| {
                cache.level == level && cache.size == size && *of == group
            };
            match found.iter_mut().find(same) {
                Some((cache, _)) => cache.cores.push(number),
                None => found.push((Cache { level, size, cores: alloc::vec![number] }, group)),
            }
        }
    }
    found.sort_by_key(|(cache, _)| cache.level);
    found.into_iter().map(|(cache, _)| cache).collect()
}

/// Level, size and shift of the sharers' APIC ids, of each data or unified cache of a core.
fn own_caches(core: &facts::Core) -> impl Iterator<Item = (u8, u64, u32)> {
    const MOST: u32 = 5;
    const INSTRUCTIONS: u32 = 2;
    let leaf = if core.leaf(4, 0)[0] & 0x1F != 0 { 4 } else { 0x8000_001D };
    (0..MOST)
        .map(move |sub| core.leaf(leaf, sub))
        .take_while(|[kind, ..]| kind & 0x1F != 0)
        .filter(|[kind, ..]| kind & 0x1F != INSTRUCTIONS)
        .map(|[kind, shape, sets, _]| {
            let ways = u64::from(shape >> 22) + 1;
            let partitions = u64::from(shape >> 12 & 0x3FF) + 1;
            let line = u64::from(shape & 0xFFF) + 1;
            let size = ways
                .saturating_mul(partitions)
                .saturating_mul(line)
                .saturating_mul(u64::from(sets) + 1);
            ((kind >> 5 & 7) as u8, size, bits_for((kind >> 14 & 0xFFF) + 1))
        })
}
