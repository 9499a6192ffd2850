//! The demo: zero exits and the same latencies with a noisy neighbour, an idle one, and no hypervisor at all; and one build, wherever.

use bulkhead::paths;
use bulkhead::run::Exit;
use hil_tests::plant::{self, Fault};
use hil_tests::{bench, checks, systems};

use crate::shared::{DEMO, DEMO_RUN};

#[test]
fn demo_keeps_its_promises() {
    let run = &*DEMO_RUN;
    checks::print(&run.report);
    assert_eq!(run.exit, Exit::PoweredOff);
    checks::want_none(&checks::check_demo(&run.report));
}

#[test]
fn demo_is_the_same_with_an_idle_neighbour() {
    let idle = "image = \"@/guests/noise\"\narguments = \"mode=idle\"";
    let system = systems::changed("demo", "demo-idle", &[("image = \"@/guests/noise\"", idle)]);
    let run = bench::run(&bench::build(&system, "demo-idle").image);
    checks::print(&run.report);
    checks::want_none(&checks::check_motion(&run.report));
    checks::want_none(&checks::check_same_latency(&DEMO_RUN.report, &run.report));
}

#[test]
fn demo_is_the_same_without_a_hypervisor() {
    let system = bench::root().join("partitions/demo.toml");
    let built = bench::build_alone(&system, "demo-native", "motion");
    let run = bench::run(&built.image);
    checks::print(&run.report);
    checks::want_none(&checks::check_passed(&run.report, "motion"));
    checks::want_none(&checks::check_same_latency(&DEMO_RUN.report, &run.report));
}

/// What a stranger builds of the same commit is what we measured, the build id included.
#[test]
fn demo_is_the_same_hypervisor_from_another_folder() {
    let sound = Fault { name: "fault-none", changes: &[] };
    let elsewhere = plant::build_faulty(&sound, &bench::root().join("partitions/demo.toml"));
    assert_eq!(elsewhere.manifest.build_id, DEMO.manifest.build_id);
    let read = |path| bench::sure("read the hypervisor", paths::read(path));
    assert!(read(&elsewhere.elf) == read(&DEMO.elf), "the debug information differs");
}

#[test]
fn demo_names_the_build_that_ran() {
    let report = &DEMO_RUN.report;
    assert_eq!(report.build_id, DEMO.manifest.build_id);
    assert_eq!(report.digest, DEMO.manifest.digest);
}
