//! Goes through the memory in equal steps: each page holds what was written there after all of them were written, so no two of them are one.

use guest_rt::hostile::{read_memory, write_memory};
use guest_rt::{Verdict, report_value, tsc};

use crate::MIB;
use crate::told::{Range, Told};

const PAGE: u64 = 4096;
/// Where no memory of a PC is: the end of its RAM below 4 GiB.
const HOLE: u64 = 3 << 30;

/// RAM behind the guest's own image: ranges of whole pages.
fn ranges(told: &Told, behind_image: u64) -> impl Iterator<Item = Range> {
    told.ram().filter(|range| range.start >= MIB).map(move |range| {
        let start = range.start.max(behind_image).next_multiple_of(PAGE);
        Range { start, size: range.end() - start }
    })
}

/// Writes to a page every `step` bytes, reads all of them again, and reads where there is none, which ends the guest.
pub fn all(told: &Told, behind_image: u64, step: u64) -> Verdict {
    let step = step.max(PAGE) as usize;
    let pages =
        || ranges(told, behind_image).flat_map(|range| (range.start..range.end()).step_by(step));
    let zero = pages().filter(|at| read_memory(*at) == Ok(0)).count();
    let began = tsc();
    let written = pages().filter(|at| write_memory(*at, *at).is_ok()).count();
    let kept = pages().filter(|at| read_memory(*at) == Ok(*at)).count();
    report_value!("pages", written, "pages");
    report_value!("pages-not-zero-at-start", written - zero, "pages");
    report_value!("pages-lost", written - kept, "pages");
    report_value!("walk", tsc() - began, "ticks");
    report_value!("hole", u64::from(read_memory(HOLE).is_ok()), "reads");
    Verdict::fail("there is memory where none is")
}
