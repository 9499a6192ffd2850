//! Every attack of guests/attack, on both kinds of core, beside victims that must not notice.
//!
//! A run has `motion` on a dedicated core, `plc` in windows of core 0, and a handful of attacks: each on a dedicated core
//! of its own and, where it ends soon enough, in a window of core 0 too.

use hil_tests::attack::{self, End};
use hil_tests::{bench, checks};

#[test]
fn attacks_1() {
    attacks(0);
}

#[test]
fn attacks_2() {
    attacks(1);
}

#[test]
fn attacks_3() {
    attacks(2);
}

#[test]
fn attacks_4() {
    attacks(3);
}

#[test]
fn attacks_5() {
    attacks(4);
}

#[test]
fn attacks_6() {
    attacks(5);
}

#[test]
fn attacks_are_all_tried() {
    let source = bench::root().join("partitions/guests/attack/src/main.rs");
    let source = hil_tests::systems::read(&source);
    for attack in attack::ATTACKS {
        assert!(source.contains(&format!("\"{}\"", attack.mode)), "{}: no such mode", attack.mode);
    }
    let declared = format!("[Attack; {}]", attack::ATTACKS.len());
    assert!(source.contains(&declared), "guests/attack has other than {declared}");
    assert!(attack::ATTACKS.len() <= 6 * attack::A_RUN, "a test is missing above");
}

/// Interrupts that a guest leaves pending, in service or hidden when its CPU or all of it starts again: none comes to the next life, and
/// none stops the core.
#[test]
fn attacks_by_interrupts_that_are_left_behind() {
    let name = "attacks-lives";
    let run = bench::run(&bench::build(&attack::lives(name), name).image);
    checks::print(&run.report);
    checks::want_none(&attack::check_lives(&run));
}

/// Two vCPUs that end their partition in two ways at once: one fate, and the log tells the same.
#[test]
fn attacks_by_two_ends_at_once() {
    let name = "attacks-races";
    let run = bench::run(&bench::build(&attack::races(name), name).image);
    checks::print(&run.report);
    checks::want_none(&attack::check_races(&run));
}

fn attacks(number: usize) {
    let attacks = attack::ATTACKS.chunks(attack::A_RUN).nth(number).unwrap();
    let name = format!("attacks-{}", number + 1);
    let system = attack::system(&name, attacks);
    let run = bench::run(&bench::build(&system, &name).image);
    checks::print(&run.report);
    for line in run.log_lines().chain(run.text()).filter(|line| line.contains("stopped")) {
        println!("  {line}");
    }
    let mut complaints = attack::check_victims(&run.report);
    for attack in attacks {
        complaints.extend(attack.check(&run.report));
        if attack.end == End::Stopped {
            let told = run
                .log_lines()
                .any(|line| line.contains(&attack.on_dedicated()) && line.contains("stopped"));
            if !told {
                complaints.push(format!("nobody says why {} is stopped", attack.on_dedicated()));
            }
        }
    }
    checks::want_none(&complaints);
}
