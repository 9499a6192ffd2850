//! Fuzz target: no bytes make the audit panic.
#![no_main]

#[path = "../bodies/audit.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
