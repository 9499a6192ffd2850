//! Tells the guests' build script (`guest-build.rs`) where the linker script lies.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rerun-if-changed=guest.ld");
    println!("cargo::metadata=script={folder}/guest.ld");
}
