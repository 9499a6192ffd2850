//! What the fuzz target `audit` does with its bytes. The normal tests compile and run the same lines.

use bulkhead_audit::{Report, audit_image, audit_table, read_table};

/// Audits the bytes as a disk image, and as the ELF file of a hypervisor; any outcome will do, told in every form.
pub fn run(bytes: &[u8]) {
    told(&audit_image(bytes, None));
    if let Ok(system) = read_table(bytes) {
        told(&audit_table(&system));
    }
}

fn told(report: &Report) {
    let _forms = (report.to_json(), report.summary());
    let faults = report.faults.iter().map(ToString::to_string);
    assert!(faults.into_iter().all(|fault| fault.contains("fault[AU")));
}
