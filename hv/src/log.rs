//! The hypervisor's own log: one defmt encoder in front of one ring per core.
//!
//! A message is dropped and counted when its core's ring is full: diagnostics never wait.
#![expect(unsafe_code, reason = "defmt's logger trait is unsafe to implement")]

use hv_core::ring::Ring;
use hv_core::wire::Kind;

use crate::cpu::instructions as machine;
use crate::run::percpu;
use crate::table::CORES;

/// Bytes of one core's ring.
pub const RING: usize = 8192;

/// The rings, by index into the table's cores.
pub static RINGS: [Ring<RING>; CORES] = [const { Ring::new() }; CORES];

#[defmt::global_logger]
struct Logger;

defmt::timestamp!("{=u64}", machine::tsc());

fn ring() -> Option<&'static Ring<RING>> {
    RINGS.get(percpu::core_index()?)
}

// SAFETY: each core writes only its own ring, with interrupts off and from no NMI handler, so acquire and release
// of one message cannot interleave with another's. defmt's frames are raw: nothing is buffered between messages.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        if let Some(index) = percpu::core_index()
            && let Some(ring) = RINGS.get(index)
        {
            ring.begin(Kind::Log.code(), machine::tsc());
        }
    }

    unsafe fn flush() {}

    unsafe fn release() {
        if let Some(ring) = ring() {
            ring.commit();
        }
    }

    unsafe fn write(bytes: &[u8]) {
        if let Some(ring) = ring() {
            ring.push(bytes);
        }
    }
}
