//! How a guest was started: by Multiboot2, as every guest of this project is, or by Multiboot 1 or PVH, as a loader of those starts it.
#![expect(unsafe_code, reason = "reads what the loader left in memory")]

use multiboot2::{BootInformation, BootInformationHeader, MemoryAreaType};

/// A boot protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Multiboot2 specification 2.0.
    Multiboot2,
    /// Multiboot specification 0.6.96.
    Multiboot1,
    /// Xen's PVH.
    Pvh,
}

/// What the loader handed over: by which protocol, and where its information lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The protocol.
    pub protocol: Protocol,
    /// Address of its information.
    pub address: u64,
}

/// EAX of a guest that Multiboot 1 starts: Multiboot 3.2. The first word of what PVH hands over, which says nothing of EAX.
const MULTIBOOT1_LOADER: u32 = 0x2BAD_B002;
const PVH_MAGIC: u32 = 0x336E_C578;
const RAM: u32 = 1;

impl Handover {
    /// What these registers mean; `None`: nothing that is known.
    pub(crate) fn of(eax: u32, ebx: u32) -> Option<Self> {
        let address = u64::from(ebx);
        let protocol = match eax {
            multiboot2::MAGIC => Protocol::Multiboot2,
            MULTIBOOT1_LOADER => Protocol::Multiboot1,
            _ if address != 0 && long(address) == PVH_MAGIC => Protocol::Pvh,
            _ => return None,
        };
        Some(Self { protocol, address })
    }

    /// Copies the command line, as much of it as there is room for, and says how long it is. `None` where the information is malformed.
    pub(crate) fn command_line(self, room: &mut [u8]) -> Option<usize> {
        let text = match self.protocol {
            Protocol::Multiboot2 => {
                let information = self.multiboot2()?;
                let line = information.command_line_tag().and_then(|tag| tag.cmdline().ok());
                let line = line.unwrap_or("").as_bytes();
                room.iter_mut().zip(line).for_each(|(place, byte)| *place = *byte);
                return Some(line.len());
            }
            Protocol::Multiboot1 => u64::from(long(self.address + 16)),
            Protocol::Pvh => word(self.address + 24),
        };
        let mut length = 0;
        // A line that is longer than the room is told by a length that is.
        while length <= room.len() {
            match byte(text + length as u64) {
                0 => break,
                byte => room.iter_mut().skip(length).take(1).for_each(|place| *place = byte),
            }
            length += 1;
        }
        Some(length)
    }

    /// The end of the RAM that `address` lies in.
    pub(crate) fn ram_end(self, address: u64) -> Option<u64> {
        let holds = |start: u64, end: u64| (start..end).contains(&address).then_some(end);
        let (map, bytes, step, first) = match self.protocol {
            Protocol::Multiboot2 => {
                let information = self.multiboot2()?;
                let areas = information.memory_map_tag()?.memory_areas();
                let mut ram = areas.iter().filter(|area| area.typ() == MemoryAreaType::Available);
                return ram.find_map(|area| holds(area.start_address(), area.end_address()));
            }
            Protocol::Multiboot1 => {
                (long(self.address + 48).into(), long(self.address + 44).into(), 24, 4)
            }
            Protocol::Pvh => {
                (word(self.address + 40), 24 * u64::from(long(self.address + 48)), 24, 0)
            }
        };
        let mut entries = (map..map + bytes).step_by(step).map(|at| at + first);
        entries.find_map(|at| {
            let (start, size) = (word(at), word(at + 8));
            (long(at + 16) == RAM).then(|| holds(start, start + size)).flatten()
        })
    }

    fn multiboot2(&self) -> Option<BootInformation<'_>> {
        let address = self.address as usize as *const BootInformationHeader;
        // SAFETY: the magic says that the loader put the information there; it is mapped one to one.
        unsafe { BootInformation::load(address) }.ok()
    }
}

fn byte(address: u64) -> u8 {
    // SAFETY: the loader's information names this address; the first 4 GiB are mapped one to one, and nobody writes there meanwhile.
    unsafe { (address as *const u8).read_volatile() }
}

fn long(address: u64) -> u32 {
    // SAFETY: as in `byte`.
    unsafe { (address as *const u32).read_unaligned() }
}

fn word(address: u64) -> u64 {
    // SAFETY: as in `byte`.
    unsafe { (address as *const u64).read_unaligned() }
}
