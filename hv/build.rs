//! Compiles the system file into the static table, and tells the linker how the image is laid out.

use std::env;
use std::error::Error;
use std::path::Path;

use bulkhead_config::Input;

/// The system file, as an absolute path.
const SYSTEM: &str = "BULKHEAD_SYSTEM";
/// The board file that is taken instead of the one that the system names, as an absolute path; may be unset.
const BOARD: &str = "BULKHEAD_BOARD";
/// The folder that holds `<partition>.elf` for each partition.
const IMAGES: &str = "BULKHEAD_IMAGES";

fn main() -> Result<(), Box<dyn Error>> {
    link()?;
    for variable in [SYSTEM, BOARD, IMAGES] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let (Some(system), Some(images)) = (env::var_os(SYSTEM), env::var_os(IMAGES)) else {
        println!(
            "cargo::error=the hypervisor is built around one system: run `cargo bulkhead build SYSTEM.toml -o IMAGE`, which sets {SYSTEM} and {IMAGES}"
        );
        return Ok(());
    };
    let board = env::var_os(BOARD);
    let input = Input { system: system.as_ref(), board: board.as_ref().map(Path::new) };
    write_table(input, Path::new(&images))
}

/// Asks for our layout, for defmt's sections, and for the build id that ties a log to its ELF.
fn link() -> Result<(), Box<dyn Error>> {
    let script = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("linker.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
    println!("cargo::rustc-link-arg-bins=--build-id=sha1");
    println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    Ok(())
}

fn write_table(input: Input<'_>, images: &Path) -> Result<(), Box<dyn Error>> {
    let compiled = match bulkhead_config::compile(input, images) {
        Ok(compiled) => compiled,
        Err(diagnostics) => {
            eprintln!("{}", diagnostics.render(false));
            // A file that is corrected must start the build again, and its name is all that is known now.
            let system = input.system.display();
            println!("cargo::rerun-if-changed={system}");
            println!("cargo::error=the system {system} is refused; the reasons stand below");
            return Err("see the messages above".into());
        }
    };
    for source in compiled.sources() {
        println!("cargo::rerun-if-changed={}", source.display());
    }
    let table = Path::new(&env::var("OUT_DIR")?).join("table.rs");
    std::fs::write(&table, compiled.emit())
        .map_err(|cause| format!("cannot write {}: {cause}", table.display()))?;
    Ok(())
}
