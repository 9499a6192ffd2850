//! What the judge is made of: it builds and boots systems, checks their reports, and plants faults.
//!
//! `tests/emulator` holds the tests themselves; `README.md` says how to run one and how to add one.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test stops where it cannot go on"))]

pub mod attack;
pub mod bench;
pub mod boards;
pub mod browser;
pub mod calls;
pub mod checks;
pub mod edge;
pub mod growth;
pub mod linux;
pub mod picture;
pub mod plant;
pub mod protocols;
pub mod systems;
pub mod terminal;
pub mod time;
pub mod trace;
