//! The audit: proves a built image again, from its own bytes, without the planner.
//!
//! The compiler (`config`) proves a system file and plans it; this crate takes neither its word nor its code.
//! It reads the image as the boot loader does (`iso`, `menu`), the hypervisor as the processor does (`elf`), the
//! table where the hypervisor will find it (`decode`), and proves each fact anew (`machine`, `memory`, `time`,
//! `guests`, `image`). It shares with the planner the types of the table and nothing else.
//!
//! Every fault is told at once, each under the code of its [`Rule`], with both owners where two own one thing.
#![forbid(unsafe_code)]

mod claims;
mod decode;
mod elf;
mod guests;
mod image;
mod iso;
mod machine;
mod memory;
mod menu;
pub mod model;
mod pc;
mod proof;
mod rules;
mod time;

use std::fmt;

pub use proof::{Fault, Party, Report};
pub use rules::Rule;

use model::System;
use proof::Proof;

/// Why something cannot be read, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub(crate) String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// Proves an image, given its bytes. `promised` is the digest of the table that its manifest promises, as
/// hexadecimal digits; `None` when there is no manifest. No bytes make this panic.
#[must_use]
pub fn audit_image(image: &[u8], promised: Option<&str>) -> Report {
    let mut proof = Proof::default();
    match image::Evidence::read(image) {
        Ok(evidence) => {
            proof.fact(Rule::Readable, true, Default::default);
            evidence.prove(promised, &mut proof);
            close(proof, &evidence.system)
        }
        Err(Unreadable(cause)) => {
            proof.fact(Rule::Readable, false, || (cause, Vec::new()));
            proof.close()
        }
    }
}

/// Proves a table alone, without an image around it.
#[must_use]
pub fn audit_table(system: &System) -> Report {
    close(Proof::default(), system)
}

/// The table of a hypervisor, given the bytes of its ELF file.
///
/// # Errors
/// It is no hypervisor with a table of this format.
pub fn read_table(elf: &[u8]) -> Result<System, Unreadable> {
    decode::table(&elf::Program::read(elf)?)
}

fn close(mut proof: Proof, system: &System) -> Report {
    machine::prove(system, &mut proof);
    memory::prove(system, &mut proof);
    time::prove(system, &mut proof);
    guests::prove(system, &mut proof);
    Report {
        partitions: system.partitions.len(),
        cores: system.cores.len(),
        windows: system.windows(),
        ..proof.close()
    }
}
