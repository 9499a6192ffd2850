//! Random contents for x87, SSE, AVX and AVX-512, and their comparison, part by part.

use guest_rt::extended_state::{self, Area, HEADER};

use crate::random::Random;

/// A part of an XSAVE area that is one thing to a report. SDM 1 13.4, table 10-2.
struct Part {
    name: &'static str,
    component: u32,
    start: usize,
    size: usize,
    /// Bytes of each sixteen that hold something: 10 of an x87 register, else all.
    used: usize,
}

const fn part(name: &'static str, component: u32, start: usize, size: usize) -> Part {
    Part { name, component, start, size, used: 16 }
}

const X87: u32 = 0;
const SSE: u32 = 1;
const MXCSR: usize = 24;

/// The parts of the legacy area, at fixed places.
const LEGACY_PARTS: [Part; 7] = [
    part("x87-control", X87, 0, 2),
    part("x87-status", X87, 2, 2),
    part("x87-tag", X87, 4, 1),
    part("x87-pointers", X87, 6, 18),
    part("mxcsr", SSE, MXCSR, 4),
    Part { used: 10, ..part("x87-registers", X87, 32, 128) },
    part("xmm", SSE, 160, 256),
];

/// The others, at places that CPUID names.
const EXTENDED_PARTS: [(&str, u32); 4] =
    [("ymm", 2), ("opmask", 5), ("zmm-low-registers", 6), ("zmm-high-registers", 7)];

/// All parts of the components that are on.
fn parts(components: u64) -> impl Iterator<Item = Part> {
    let extended = EXTENDED_PARTS.into_iter().map(|(name, component)| {
        let (start, size) = extended_state::place(component);
        part(name, component, start, size)
    });
    LEGACY_PARTS.into_iter().chain(extended).filter(move |it| components >> it.component & 1 == 1)
}

/// Fills an area at random. One component in eight stays in its initial state.
pub fn fill(area: &mut Area, components: u64, random: &mut Random) {
    for word in area.0.chunks_exact_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
    let in_use = random.next() | random.next() | random.next();
    area.0[HEADER..HEADER + 64].fill(0);
    area.set_in_use(in_use & components);
    fill_x87_control(area, random);
    // Every exception masked, the flags at random; bits above 15 are reserved.
    let mxcsr = 0x1F80 | random.next() as u32 & 0xE07F;
    area.0[MXCSR..MXCSR + 4].copy_from_slice(&mxcsr.to_le_bytes());
}

/// Control: every exception masked, rounding and precision at random (precision 1 is reserved). Status: flags and top of stack
/// at random, and no summary of unmasked exceptions. Pointers: none, because processors that keep them only with exceptions differ.
fn fill_x87_control(area: &mut Area, random: &mut Random) {
    let precision = [0, 2, 3][random.below(3) as usize] << 8;
    let control = 0x7F | precision | random.below(4) << 10;
    let status = random.next() as u16 & 0x7F7F;
    area.0[0..2].copy_from_slice(&(control as u16).to_le_bytes());
    area.0[2..4].copy_from_slice(&status.to_le_bytes());
    area.0[5] = 0;
    area.0[6..24].fill(0);
}

/// Calls `differs` with the name of each part that is not the same in both.
pub fn compare(
    loaded: &Area,
    found: &Area,
    components: u64,
    mut differs: impl FnMut(&'static str),
) {
    let (loaded_in_use, found_in_use) = (in_use(loaded), in_use(found));
    for part in parts(components) {
        // MXCSR is loaded whether its component is in use or not. SDM 1 13.8.
        let always = part.start == MXCSR;
        let used = |mask: u64| always || mask >> part.component & 1 == 1;
        if !same(&part, (loaded, used(loaded_in_use)), (found, used(found_in_use))) {
            differs(part.name);
        }
    }
}

fn in_use(area: &Area) -> u64 {
    let mut mask = [0; 8];
    mask.copy_from_slice(&area.0[HEADER..HEADER + 8]);
    u64::from_le_bytes(mask)
}

/// Whether a part is the same in two areas, of which each may stand for the initial state instead.
fn same(part: &Part, one: (&Area, bool), other: (&Area, bool)) -> bool {
    let (one, other) = (content(part, one), content(part, other));
    if part.used == 16 {
        return one == other;
    }
    one.chunks(16).zip(other.chunks(16)).all(|(a, b)| a[..part.used] == b[..part.used])
}

fn content<'a>(part: &Part, (area, used): (&'a Area, bool)) -> &'a [u8] {
    static INITIAL: Area = Area::initial();
    let area = if used { area } else { &INITIAL };
    area.0.get(part.start..part.start + part.size).unwrap_or_default()
}
