//! Fuzz target: no bytes make the front of the compiler panic.
#![no_main]

#[path = "../bodies/toml.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| body::run(bytes));
