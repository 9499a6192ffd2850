//! No panic is left in what runs on an exit: read out of the linked hypervisor, not out of its source.

use bulkhead::{BuiltImage, paths};
use hil_tests::bench;
use hil_tests::calls::Calls;

use crate::shared::{DEMO, PC};

/// Where execution enters the hypervisor once the partitions run: exits, entries that failed, NMIs, interrupts that are let in.
const ROOTS: [&str; 3] = ["on_exit", "nmi_stub", "shared_stubs"];

/// Where every panic ends up. Panics are not allowed to hide behind a library's own function.
const PANIC: [&str; 2] = ["rust_begin_unwind", "panic_fmt"];

/// Functions around which the ways are looked for, and why a guest cannot make them panic.
const ARGUED: [(&str, &str); 7] = [
    (
        "window_refused",
        "pieces of memory are cut to fit the core's window, which nobody uses for longer than one piece",
    ),
    ("not_verified", "boot publishes the machine before any core reaches the run loop"),
    (
        "vmptrld_refused",
        "VMPTRLD refuses no region that was filled at boot: only a defect of ours or of the machine gets there",
    ),
    (
        "on_exception",
        "an exception in the hypervisor is a defect itself; is_interrupt tells it from an interrupt of the same vector",
    ),
    ("end_module", "runs once no guest does"),
    (
        "serial",
        "the uart crate checks its own constant port numbers; only the core that keeps house gets there",
    ),
    (
        "wire6encode",
        "slices by lengths that are bounded before; only the core that keeps house gets there",
    ),
];

#[test]
fn panics_that_an_exit_can_reach() {
    for image in [&*DEMO, &*PC] {
        let complaints = reachable(image);
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}

/// The ways from an exit to a panic, in words.
fn reachable(built: &BuiltImage) -> Vec<String> {
    let calls = Calls::of(&bench::sure("read the hypervisor", paths::read(&built.elf)));
    for name in ROOTS.into_iter().take(2).chain(PANIC) {
        assert!(
            calls.count(name) > 0,
            "{name} is not in the program: the check would be of nothing"
        );
    }
    let around = ARGUED.map(|(function, _)| function);
    let ways = calls.ways(&ROOTS, &PANIC, &around);
    ways.iter().map(|way| format!("an exit can panic: {}", way.join("\n    called by "))).collect()
}
