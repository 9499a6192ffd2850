//! Reads the instruction at which a guest exited, from the guest's memory, for processors that do not hand it over.
#![expect(unsafe_code, reason = "reads a guest's memory through the core's window")]

use hv_core::fetch::{self, MOST_BYTES};
use hv_defs::vmcb::{save, segment};

pub use hv_core::fetch::ControlMove as Moved;

use super::block;
use crate::memory::{self, Side};
use crate::table::TABLE;
use crate::vcpu::Vcpu;

/// The move to or from a control register at which the guest stands; `None` where there is no other instruction to be read.
pub fn control_move(vcpu: &Vcpu) -> Option<Moved> {
    let state = block::control_state(vcpu.block);
    let base =
        if state.code_64 { 0 } else { block::read(vcpu, block::part(save::CS, segment::BASE, 8)) };
    let linear = base.wrapping_add(block::read(vcpu, save::RIP));
    let linear = if state.code_64 { linear } else { linear & 0xFFFF_FFFF };
    let mut bytes = [0; MOST_BYTES];
    let mut count = 0;
    for byte in &mut bytes {
        let at = linear.wrapping_add(count as u64);
        let Some(word) = fetch::physical(at, &state, |at| read_word(vcpu, at))
            .and_then(|at| Some((at & 7, read_word(vcpu, at & !7)?)))
            .map(|(within, word)| word >> (8 * within))
        else {
            break;
        };
        *byte = word as u8;
        count += 1;
    }
    fetch::control_move(bytes.get(..count)?, state.code_64)
}

/// An aligned word of guest-physical memory; `None` outside the partition's own.
fn read_word(vcpu: &Vcpu, at: u64) -> Option<u64> {
    let partition = TABLE.partitions.get(usize::from(vcpu.state.partition))?;
    let holds = |start: u64, size: u64| {
        start <= at && at.checked_add(8).is_some_and(|end| end <= start.saturating_add(size))
    };
    let region = partition.memory.iter().find(|region| holds(region.guest, region.size))?;
    let mapped = memory::map(Side::Source, region.host + (at - region.guest), 8)?;
    // SAFETY: the word is the partition's own (the compiler's proof), aligned, and mapped as long as `mapped` lives. Others may write it
    // meanwhile: any value is taken.
    Some(unsafe { mapped.address().cast::<u64>().read_volatile() })
}
