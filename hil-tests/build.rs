//! Marks the test of Debian's kernels as ignored where `cargo verify` could not fetch the kernels.

fn main() {
    // The variable's name stands in `bulkhead::verify`, too.
    println!("cargo::rustc-check-cfg=cfg(no_kernels)");
    println!("cargo::rerun-if-env-changed=BULKHEAD_NO_KERNELS");
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("BULKHEAD_NO_KERNELS").is_some() {
        println!("cargo::rustc-cfg=no_kernels");
    }
}
