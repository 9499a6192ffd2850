//! How another CPU is started: INIT, a wait, a start-up interrupt, and a second one where the first was lost. SDM 3A 9.4.4.1.

use crate::machine::tsc;

/// Wait between INIT and the first start-up interrupt, in microseconds.
const AFTER_INIT: u64 = 10_000;
/// Wait between the two start-up interrupts, in microseconds.
const AFTER_STARTUP: u64 = 200;
/// How long a CPU may take to arrive behind the second one, in microseconds: windows of others may come first.
const PATIENCE: u64 = 200_000;

/// What is sent to the CPU.
#[derive(Clone, Copy)]
pub(crate) enum Signal {
    Init,
    Startup,
}

/// Starts a CPU: `send` sends it a signal, unless it cannot be named; `arrived` says whether it is there. The waits go by a
/// time-stamp counter of `tsc_khz`. Returns whether the CPU arrived.
pub(crate) fn start(
    tsc_khz: u64,
    send: impl Fn(Signal) -> Option<()>,
    arrived: impl Fn() -> bool,
) -> bool {
    if send(Signal::Init).is_none() {
        return false;
    }
    wait(AFTER_INIT, tsc_khz, || false);
    [AFTER_STARTUP, PATIENCE]
        .into_iter()
        .any(|limit| send(Signal::Startup).is_some() && wait(limit, tsc_khz, &arrived))
}

/// Waits until `done`, at most this many microseconds; returns whether it was.
fn wait(microseconds: u64, tsc_khz: u64, done: impl Fn() -> bool) -> bool {
    let end = tsc().saturating_add(tsc_khz.saturating_mul(microseconds) / 1000);
    while tsc() < end {
        if done() {
            return true;
        }
        core::hint::spin_loop();
    }
    done()
}
