//! The build script of every guest (`build = "../../guest-rt/guest-build.rs"`): links it with guest-rt's
//! linker script.

fn main() {
    // Cargo hands over what guest-rt's own build script published; absent only when the guest
    // does not depend on guest-rt.
    let Ok(script) = std::env::var("DEP_GUEST_RT_SCRIPT") else {
        println!("cargo::error=no linker script: add `guest-rt` to this guest's [dependencies]");
        return;
    };
    println!("cargo::rerun-if-changed={script}");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo::rustc-link-arg-bins=-T{script}");
    }
}
