//! The face of Bulkhead as a library: builds images, runs them, decodes what they say, reports what they measured.
//!
//! The `bulkhead` command is a thin layer over this; the judge (`hil-tests`) calls it directly:
//! [`image::build_image`], then [`run::run_image`], then assertions on [`run::Run`].
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test stops where it cannot go on"))]

pub mod audit;
pub mod bare;
pub mod bench;
pub mod code_size;
pub mod collect;
pub mod compile;
pub mod console;
pub mod decode;
pub mod diagnose;
pub mod difference;
pub mod elf;
pub mod emulator;
pub mod error;
pub mod explain;
pub mod flash;
pub mod fmt;
pub mod gantt;
pub mod grub;
pub mod guests;
pub mod image;
pub mod incident;
pub mod interrupt;
pub mod lines;
pub mod linux;
pub mod listen;
pub mod log;
pub mod manifest;
pub mod measure;
pub mod memory_log;
pub mod monitor;
pub mod new;
pub mod paths;
pub mod plot;
pub mod probe;
pub mod process;
pub mod progress;
pub mod provision;
pub mod report;
pub mod report_page;
pub mod rig;
pub mod run;
pub mod schema;
pub mod screen;
pub mod source;
pub mod table;
pub mod talk;
pub mod typed;
pub mod verify;
pub mod who;

pub use emulator::{Firmware, Machine, Target};
pub use error::{Error, Result};
pub use image::{BuildOptions, BuiltImage, build_image, build_native};
pub use report::Report;
pub use run::{Exit, Run, RunOptions, run_image};
