//! Boots the real image and asserts. One program, so that tests share images and runs; `README.md` tells the rest.
#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod amd_v;
mod apic;
mod attacks;
mod bad_input;
mod baseline;
mod boot;
mod control;
mod demo;
mod edge;
mod fidelity;
mod firmware;
mod growth;
mod hygiene;
mod jitter;
mod limits;
mod linux;
mod long;
mod mapping;
mod monitor;
mod no_serial;
mod one_shot;
mod page;
mod panics;
mod pc;
mod plans;
mod planted;
mod press_line;
mod probe;
mod racers;
mod refusal;
mod rig;
mod second;
mod shared;
mod tamper;
mod typed;
