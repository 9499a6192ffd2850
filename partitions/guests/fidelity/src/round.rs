//! One round: everything is filled, a loop runs, everything is read again.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::extended_state::{self, Area};
use guest_rt::hostile::Fault;
use guest_rt::registers::{self as raw, Body, General};
use guest_rt::{disable_interrupts, enable_interrupts, on_interrupt, send_self_ipi, tsc};

use crate::random::Random;
use crate::registers::{CR0, REGISTERS, Register};
use crate::vectors;

/// Most rounds of the loop. It takes about as long as the rest of a round, so that preemptions fall on both.
const LONGEST: u64 = 8_000;
/// Of a loop that exits: shorter, for each exit takes a hundred ticks.
const LONGEST_WITH_EXITS: u64 = 100;
/// The interrupt that waits behind an interrupt shadow.
const SHADOW_VECTOR: u8 = 0x50;
/// How often it came.
static SHADOW_CAME: AtomicU64 = AtomicU64::new(0);

/// What the registers held at the guest's start, which each round puts back.
pub struct Start {
    values: [u64; REGISTERS.len()],
    offered: [bool; REGISTERS.len()],
    cr0: u64,
    components: u64,
}

impl Start {
    /// Switches the vectors on and reads everything.
    ///
    /// # Errors
    /// The name of a register that CPUID offers and the machine refuses, with the fault.
    pub fn find() -> Result<Self, (&'static str, Fault)> {
        on_interrupt(SHADOW_VECTOR, |_| {
            SHADOW_CAME.fetch_add(1, Ordering::Relaxed);
        });
        let components = extended_state::enable().map_err(|fault| ("xcr0", fault))?;
        let mut start = Self {
            values: [0; REGISTERS.len()],
            offered: [true; REGISTERS.len()],
            cr0: CR0.read().map_err(|fault| (CR0.name, fault))?,
            components,
        };
        for ((register, value), offered) in
            REGISTERS.iter().zip(&mut start.values).zip(&mut start.offered)
        {
            *offered = register.is_offered();
            if *offered {
                *value = register.read().map_err(|fault| (register.name, fault))?;
            }
        }
        Ok(start)
    }

    /// Puts everything back; calls `differs` with what cannot be.
    fn restore(&self, mut differs: impl FnMut(&'static str)) {
        if CR0.write(self.cr0).is_err() {
            differs(CR0.name);
        }
        for (place, register) in self.offered().rev() {
            if register.write(self.values[place]).is_err() {
                differs(register.name);
            }
        }
    }

    /// What this machine has, by its place in [`REGISTERS`].
    fn offered(&self) -> impl DoubleEndedIterator<Item = (usize, &'static Register)> {
        REGISTERS.iter().enumerate().filter(|(place, _)| self.offered[*place])
    }
}

/// When the loop of a round ran. TSC ticks.
pub struct Round {
    /// Just before.
    pub began: u64,
    /// Just behind.
    pub ended: u64,
}

impl Round {
    /// Runs a round and calls `differs` with the name of everything that is not what it should be.
    pub fn run(start: &Start, random: &mut Random, mut differs: impl FnMut(&'static str)) -> Self {
        let body = [Body::Plain, Body::Pause, Body::Port, Body::Shadow][random.below(4) as usize];
        let came = SHADOW_CAME.load(Ordering::Relaxed);
        if body == Body::Shadow {
            send_self_ipi(SHADOW_VECTOR);
        }
        let vectors = Vectors::load(start, random);
        let patterns = Patterns::load(start, random, &mut differs);
        let general = general(random, body);
        let began = tsc();
        let found = raw::spin(body, &general);
        let round = Self { began, ended: tsc() };
        patterns.compare(start, &mut differs);
        start.restore(&mut differs);
        vectors.compare(start, &mut differs);
        compare_general(&general, &found, &mut differs);
        check_shadow(body, came, differs);
        round
    }
}

/// The vectors as they were loaded.
struct Vectors(Area);

impl Vectors {
    fn load(start: &Start, random: &mut Random) -> Self {
        let mut area = Area::initial();
        vectors::fill(&mut area, start.components, random);
        extended_state::restore(&area, start.components);
        Self(area)
    }

    fn compare(&self, start: &Start, differs: impl FnMut(&'static str)) {
        let mut found = Area::initial();
        extended_state::save(&mut found, start.components);
        vectors::compare(&self.0, &found, start.components, differs);
    }
}

/// The patterns that were written.
struct Patterns {
    values: [u64; REGISTERS.len()],
    cr0: u64,
}

impl Patterns {
    fn load(start: &Start, random: &mut Random, mut differs: impl FnMut(&'static str)) -> Self {
        let mut patterns = Self { values: start.values, cr0: CR0.pattern(random, start.cr0) };
        for (place, register) in start.offered() {
            let value = register.pattern(random, start.values[place]);
            patterns.values[place] = value;
            if register.write(value).is_err() {
                differs(register.name);
            }
        }
        if CR0.write(patterns.cr0).is_err() {
            differs(CR0.name);
        }
        patterns
    }

    fn compare(&self, start: &Start, mut differs: impl FnMut(&'static str)) {
        let others = start.offered().map(|(place, register)| (register, self.values[place]));
        for (register, value) in [(&CR0, self.cr0)].into_iter().chain(others) {
            if register.read() != Ok(value) {
                differs(register.name);
            }
        }
    }
}

/// General registers and flags at random.
fn general(random: &mut Random, body: Body) -> General {
    /// Arithmetic flags, DF, IOPL, NT, AC, ID.
    const FLAGS: u64 = 0x0024_7CD5;
    const ALWAYS_ONE: u64 = 2;
    const INTERRUPTS: u64 = 1 << 9;
    let longest = if body == Body::Port { LONGEST_WITH_EXITS } else { LONGEST };
    let enabled = body != Body::Shadow && random.below(2) == 1;
    let flags = random.next() & FLAGS | ALWAYS_ONE | if enabled { INTERRUPTS } else { 0 };
    let own_stack = enabled || body == Body::Shadow;
    General {
        rax: random.next(),
        rbx: random.next(),
        rcx: 1 + random.below(longest),
        rdx: random.next(),
        rsi: random.next(),
        rdi: random.next(),
        rbp: random.next(),
        rsp: if own_stack { raw::stack(random.next()) } else { random.next() },
        extended: core::array::from_fn(|_| random.next()),
        rflags: flags,
    }
}

fn compare_general(loaded: &General, found: &General, mut differs: impl FnMut(&'static str)) {
    let pairs = [
        ("rax", loaded.rax, found.rax),
        ("rbx", loaded.rbx, found.rbx),
        ("rcx", 0, found.rcx),
        ("rdx", loaded.rdx, found.rdx),
        ("rsi", loaded.rsi, found.rsi),
        ("rdi", loaded.rdi, found.rdi),
        ("rbp", loaded.rbp, found.rbp),
        ("rsp", loaded.rsp, found.rsp),
        ("rflags", loaded.rflags, found.rflags),
    ];
    for (name, _, _) in pairs.into_iter().filter(|(_, loaded, found)| loaded != found) {
        differs(name);
    }
    const NAMES: [&str; 8] = ["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    let extended = NAMES.into_iter().zip(loaded.extended.into_iter().zip(found.extended));
    for (name, _) in extended.filter(|(_, (loaded, found))| loaded != found) {
        differs(name);
    }
}

/// The interrupt that waited behind the shadow must not have come within it, and must come now.
fn check_shadow(body: Body, came_before: u64, mut differs: impl FnMut(&'static str)) {
    if SHADOW_CAME.load(Ordering::Relaxed) != came_before {
        differs("interrupt-shadow");
    }
    enable_interrupts();
    // Without an instruction between the two, none would be let in.
    core::hint::spin_loop();
    disable_interrupts();
    let expected = came_before + u64::from(body == Body::Shadow);
    if SHADOW_CAME.load(Ordering::Relaxed) != expected {
        differs("pending-interrupt");
    }
}
