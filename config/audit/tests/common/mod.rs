//! What the tests share: a hypervisor's ELF with a real table, linked as the real one is, and disk images in code.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test takes what it needs, and stops where it cannot go on"
)]

pub mod disk;

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use disk::Disk;

/// The program, in the room that may place statics.
const PROGRAM: &str = "../../hv/table-carrier.rs";

const TARGET: [&str; 4] =
    ["--edition=2024", "--target=x86_64-unknown-none", "-Copt-level=1", "-Cpanic=abort"];

fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rustc(folder: &Path, arguments: &[&str]) {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(program)
        .args(TARGET)
        .args(arguments)
        .arg("--out-dir")
        .arg(folder)
        .env("TABLE_SOURCE", crate_folder().join("../tests/emitted/table.rs"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{said}\n(the test needs `rustup target add x86_64-unknown-none`)"
    );
}

/// The ELF file of a program with the table of `config/tests/emitted/table.rs`, made once for each test program.
pub fn hypervisor() -> Vec<u8> {
    static ELF: OnceLock<Vec<u8>> = OnceLock::new();
    ELF.get_or_init(link).clone()
}

fn link() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = |relative: &str| crate_folder().join(relative).display().to_string();
    rustc(
        folder.path(),
        &["--crate-type=rlib", "--crate-name=bulkhead_table", &path("../table/src/lib.rs")],
    );
    rustc(
        folder.path(),
        &[
            "--crate-name=program",
            "--extern=bulkhead_table",
            &format!("-L{}", folder.path().display()),
            "-Crelocation-model=static",
            "-Clinker=rust-lld",
            &format!("-Clink-arg=-T{}", path("../../hv/linker.ld")),
            "-Clink-arg=--build-id=sha1",
            "-Clink-arg=-zmax-page-size=4096",
            &path(PROGRAM),
        ],
    );
    std::fs::read(folder.path().join("program")).unwrap()
}

/// The flattened image of each guest of that table.
pub fn guest() -> Vec<u8> {
    let mut bytes = vec![0xF4; 64];
    bytes.resize(0x1000, 0);
    bytes.extend(b"data");
    bytes
}

/// The table of [`hypervisor`].
pub fn system() -> bulkhead_audit::model::System {
    bulkhead_audit::read_table(&hypervisor()).unwrap()
}

/// What a disk image holds.
#[derive(Clone)]
pub struct Parts {
    pub uefi: Vec<u8>,
    pub bios: Vec<u8>,
    pub menu: String,
    /// Name of the file and its bytes.
    pub modules: Vec<(String, Vec<u8>)>,
    /// The digest that the manifest promises.
    pub promised: String,
}

impl Parts {
    /// A sound image around [`hypervisor`].
    pub fn good() -> Self {
        let names = ["alone", "shared", "neighbour"];
        let modules: String =
            names.iter().map(|name| format!("module2 /boot/{name}.bin {name}\n")).collect();
        Self {
            uefi: hypervisor(),
            bios: hypervisor(),
            menu: format!(
                "set timeout=0\nif [ \"$grub_platform\" = efi ]; then\n    set hypervisor=/boot/bulkhead.elf\nelse\n    set hypervisor=/boot/bulkhead-bios.elf\nfi\nmultiboot2 $hypervisor\n{modules}boot\n"
            ),
            modules: names.iter().map(|name| (format!("{name}.bin"), guest())).collect(),
            promised: system().digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// The disk image.
    pub fn image(&self) -> Vec<u8> {
        let mut disk = Disk::new();
        disk.add("bulkhead.elf", &self.uefi);
        disk.add("bulkhead-bios.elf", &self.bios);
        self.modules.iter().for_each(|(name, bytes)| disk.add(name, bytes));
        disk.build(self.menu.as_bytes())
    }

    /// The codes of the faults of the image.
    pub fn audit(&self) -> bulkhead_audit::Report {
        bulkhead_audit::audit_image(&self.image(), Some(&self.promised))
    }
}
