//! A disk image in code: ISO 9660 with Rock Ridge names, `/boot` with files and `/boot/grub/grub.cfg`.

const SECTOR: usize = 2048;
const DIRECTORY: u8 = 2;

/// Sectors of the three directories, behind the descriptors.
const ROOT: usize = 18;
const BOOT: usize = 19;
const GRUB: usize = 20;
const FIRST_FILE: usize = 21;

/// A disk image to be.
pub struct Disk {
    files: Vec<(String, Vec<u8>)>,
}

impl Disk {
    /// Without files.
    pub fn new() -> Self {
        Self { files: Vec::new() }
    }

    /// Puts a file into `/boot`.
    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        self.files.push((name.to_owned(), bytes.to_vec()));
    }

    /// The bytes of the image, with this menu.
    pub fn build(&self, menu: &[u8]) -> Vec<u8> {
        let mut next = FIRST_FILE;
        let mut boot = record("", BOOT, SECTOR, DIRECTORY);
        boot.extend(record("grub", GRUB, SECTOR, DIRECTORY));
        let mut content = Vec::new();
        for (name, bytes) in &self.files {
            boot.extend(record(name, next, bytes.len(), 0));
            next += bytes.len().div_ceil(SECTOR);
            content.push(bytes.as_slice());
        }
        let grub = record("grub.cfg", next, menu.len(), 0);
        content.push(menu);
        let mut descriptor = vec![1];
        descriptor.extend(b"CD001\x01");
        descriptor.resize(156, 0);
        descriptor.extend(&record("", ROOT, SECTOR, DIRECTORY)[..34]);
        let root = record("boot", BOOT, SECTOR, DIRECTORY);
        let mut image = vec![0; 16 * SECTOR];
        for sector in [descriptor, b"\xFFCD001\x01".to_vec(), root, boot, grub] {
            push(&mut image, &sector);
        }
        content.iter().for_each(|bytes| push(&mut image, bytes));
        image
    }
}

fn push(image: &mut Vec<u8>, bytes: &[u8]) {
    image.extend(bytes);
    image.resize(image.len().next_multiple_of(SECTOR), 0);
}

/// A directory record with a name of one byte for ISO 9660 and the real one in an NM entry.
fn record(name: &str, sector: usize, length: usize, flags: u8) -> Vec<u8> {
    let mut record = vec![0; 34];
    record[2..6].copy_from_slice(&(sector as u32).to_le_bytes());
    record[10..14].copy_from_slice(&(length as u32).to_le_bytes());
    record[25] = flags;
    record[32] = 1;
    if !name.is_empty() {
        // Another entry comes first, as the permissions do in a real image.
        record.extend([b'P', b'X', 5, 1, 0]);
        record.extend([b'N', b'M', name.len() as u8 + 5, 1, 0]);
        record.extend(name.as_bytes());
        record.resize(record.len().next_multiple_of(2), 0);
    }
    record[0] = record.len() as u8;
    record
}
