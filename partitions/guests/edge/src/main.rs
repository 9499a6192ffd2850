//! Performs each operation that exits just before the end of its window, at instants swept over the window's last ticks.
//!
//! One operation at one instant in each of its windows. The neighbour whose window comes next must not notice any of it.
//!
//! Arguments: `acts=all|alone|interrupts|NAME`, which operations; `span=1000`, `step=7`: the instants, in ticks before the end;
//! `others=0`, how many CPUs with the next APIC ids are started first; `at=N`: NAME once, N ticks before the end; `life=0`: each life of
//! the guest chooses its own instant within `span` when 1, for operations that start it anew.
#![no_std]
#![no_main]

mod acts;
mod ends;
mod interrupts;

use guest_rt::{
    Guest, Page, SchedulePage, Verdict, enable_interrupts, println, report_value, start_cpu, tsc,
};

guest_rt::entry!(main);

/// Where an operation finds itself.
pub struct World {
    /// TSC at which the running window ends.
    end: u64,
    /// Number of the running frame.
    frame: u64,
    /// The first address behind the guest's memory.
    behind: u64,
}

/// An operation's name and what it does.
type Act = (&'static str, fn(&World));

fn main(guest: &Guest) -> Verdict {
    guest.allow_arguments(&["acts", "span", "step", "others", "at", "life"]);
    let Some(page) = Page::find() else {
        println!("edge: no windows here; give the partition a [[partition.NAME.window]]");
        return Verdict::fail("not on a time-shared core");
    };
    let wanted = guest.argument("acts").unwrap_or("all");
    let chosen = || acts::all().filter(|(group, (name, _))| is_chosen(wanted, group, name));
    if chosen().next().is_none() {
        println!("edge: acts={wanted}: write all, alone, interrupts or a name:");
        acts::all().for_each(|(_, (name, _))| println!("edge:   {name}"));
        return Verdict::fail("no such operation");
    }
    acts::set_up();
    if !start_others(guest) {
        return Verdict::fail("a CPU did not start");
    }
    enable_interrupts();
    let sweep = Sweep::of(guest, &page);
    let mut done = 0_u64;
    for (number, (_, (_, act))) in (0..).zip(chosen()) {
        done += sweep.through(act, number, guest, &page);
    }
    report_value!("acts-done", done, "acts");
    Verdict::pass("every operation was done at every instant")
}

/// Whether `acts=wanted` means this operation. Those that end the guest are meant by name only.
fn is_chosen(wanted: &str, group: &str, name: &str) -> bool {
    wanted == name || wanted == group || (wanted == "all" && group != acts::ENDS)
}

/// Starts the CPUs whose APIC ids follow the own one; each takes interrupts for ever.
fn start_others(guest: &Guest) -> bool {
    let own = guest_rt::apic_id();
    let others = guest.number("others", 0) as u32;
    (1..=others).all(|next| start_cpu(own + next, guest.tsc_khz(), interrupts::spin))
}

/// The instants, in ticks before the end of a window.
struct Sweep {
    first: u64,
    span: u64,
    step: u64,
}

impl Sweep {
    fn of(guest: &Guest, page: &Page) -> Self {
        let span = guest.number("span", 1000).max(1);
        if guest.argument("at").is_some() {
            return Self { first: guest.number("at", 0), span: 1, step: 1 };
        }
        if guest.number("life", 0) == 1 {
            // A life remembers nothing of the one before: the frame in which it begins is its dice.
            let first = page.read().frame.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
            return Self { first: first % span, span: 1, step: 1 };
        }
        Self { first: 0, span, step: guest.number("step", 7).max(1) }
    }

    /// Does operation `number` at each instant, one in each window; returns how often. The first instant differs from operation to operation, so
    /// that together they meet every one.
    fn through(&self, act: fn(&World), number: u64, guest: &Guest, page: &Page) -> u64 {
        /// Prime to any step that is no multiple of it.
        const DICE: u64 = 7;
        let (start, size) = guest.spare_memory();
        let mut done = 0;
        let mut window = page.read();
        for offset in (number * DICE % self.step..self.span).step_by(self.step as usize) {
            window = window_behind(window.window_start, page);
            let world = World { end: window.window_end, frame: window.frame, behind: start + size };
            let instant = world.end.saturating_sub(self.first + offset);
            while tsc() < instant {}
            act(&world);
            done += 1;
        }
        acts::calm();
        done
    }
}

/// Waits for another window than the one that started at `before`, and returns what the page says of it.
fn window_behind(before: u64, page: &Page) -> SchedulePage {
    loop {
        let now = page.read();
        if now.window_start != before && now.donated == 0 {
            return now;
        }
        core::hint::spin_loop();
    }
}
