//! How a partition's memory comes to hold its image and nothing else, piece by piece, so that whoever does it can look up between two.
//!
//! All memory is cleared first, then the image is copied, then the boot information. A partition that restarts is loaded by the
//! same pieces as at boot.

use bulkhead_table::{PAGE_SIZE, Partition};

/// Most bytes of a piece.
pub const PIECE: u64 = PAGE_SIZE;

/// Where the bytes of a piece come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// They are zero.
    Zero,
    /// From this byte of the image on.
    Image(u64),
    /// From this byte of the boot information on.
    BootInfo(u64),
}

/// Bytes to be put into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where they come from.
    pub source: Source,
    /// Host-physical address of the first, inside the partition's memory with all the others.
    pub target: u64,
    /// How many.
    pub length: u64,
}

/// The way through the pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    stage: Stage,
    /// Bytes of the stage that are done.
    done: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Clears the region with this index.
    Clear(usize),
    Image,
    BootInfo,
    #[default]
    Over,
}

impl Load {
    /// At the first piece.
    #[must_use]
    pub const fn begin() -> Self {
        Self { stage: Stage::Clear(0), done: 0 }
    }

    /// The next piece; `None` when all is done. What does not lie wholly inside one region of `partition`, against the compiler's
    /// proof, is left out.
    pub fn next(&mut self, partition: &Partition) -> Option<Piece> {
        loop {
            let piece = match self.stage {
                Stage::Clear(index) => match partition.memory.get(index) {
                    Some(region) => self.cut(region.size, |_| Source::Zero, Some(region.host)),
                    None => None,
                },
                Stage::Image => {
                    let image = &partition.image;
                    let target = host(partition, image.load_at, image.size);
                    self.cut(image.size, Source::Image, target)
                }
                Stage::BootInfo => {
                    let length = partition.boot_info.len() as u64;
                    let target = host(partition, partition.boot_info_at, length);
                    self.cut(length, Source::BootInfo, target)
                }
                Stage::Over => return None,
            };
            if piece.is_some() {
                return piece;
            }
            self.done = 0;
            self.stage = match self.stage {
                Stage::Clear(index) if index + 1 < partition.memory.len() => {
                    Stage::Clear(index + 1)
                }
                Stage::Clear(_) => Stage::Image,
                Stage::Image => Stage::BootInfo,
                Stage::BootInfo | Stage::Over => Stage::Over,
            };
        }
    }

    fn cut(
        &mut self,
        size: u64,
        source: impl Fn(u64) -> Source,
        target: Option<u64>,
    ) -> Option<Piece> {
        let target = target?.checked_add(self.done)?;
        let length = size.checked_sub(self.done)?.min(PIECE);
        let piece = Piece { source: source(self.done), target, length };
        self.done += length;
        (length > 0).then_some(piece)
    }
}

/// Host-physical address of `length` bytes at guest-physical `guest`, where one region holds them all.
fn host(partition: &Partition, guest: u64, length: u64) -> Option<u64> {
    let region = partition.memory.iter().find(|region| {
        guest >= region.guest
            && guest.saturating_add(length) <= region.guest.saturating_add(region.size)
    })?;
    Some(region.host + (guest - region.guest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_table::{Hygiene, Image, Platform, Region, Rights};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const HOST: u64 = 0x100_0000;

    fn partition(
        memory: &'static [Region],
        image: (u64, u64),
        boot_info: &'static [u8],
    ) -> Partition {
        Partition {
            name: "p",
            place: "p.toml:1",
            cpus: &[0],
            first_vcpu: 0,
            platform: Platform::Pc,
            image: Image { size: image.1, digest: [0; 32], load_at: image.0, entry: image.0 },
            memory,
            ept_pages: 0,
            boot_info,
            boot_info_at: 0x1000,
            schedule_at: 0,
            may_switch_plan: false,
            donates_to: None,
            hygiene: Hygiene::default(),
        }
    }

    const fn region(guest: u64, host: u64, size: u64) -> Region {
        Region { guest, host, size, rights: Rights::ALL }
    }

    fn pieces(partition: &Partition) -> Vec<Piece> {
        let mut load = Load::begin();
        core::iter::from_fn(|| load.next(partition)).collect()
    }

    #[test]
    fn memory_is_cleared_then_filled() {
        static MEMORY: [Region; 2] = [region(0, HOST, 0x2000), region(0x10_0000, HOST * 2, 0x1000)];
        let all = pieces(&partition(&MEMORY, (0x10_0010, 0x20), b"boot"));
        let piece = |source, target, length| Piece { source, target, length };
        assert_eq!(
            all,
            vec![
                piece(Source::Zero, HOST, 0x1000),
                piece(Source::Zero, HOST + 0x1000, 0x1000),
                piece(Source::Zero, HOST * 2, 0x1000),
                piece(Source::Image(0), HOST * 2 + 0x10, 0x20),
                piece(Source::BootInfo(0), HOST + 0x1000, 4),
            ]
        );
    }

    #[test]
    fn what_does_not_lie_inside_is_left_out() {
        static MEMORY: [Region; 1] = [region(0, HOST, 0x2000)];
        for load_at in [0x1FF0, 0x2000, u64::MAX - 4] {
            let all = pieces(&partition(&MEMORY, (load_at, 0x20), b""));
            assert!(all.iter().all(|piece| piece.source == Source::Zero), "{load_at:#x}");
        }
        assert_eq!(Load::default().next(&partition(&MEMORY, (0, 1), b"")), None);
    }

    proptest! {
        #[test]
        fn every_byte_is_written_in_order_and_inside(at in 0_u64..0x8000, length in 0_u64..0x8000) {
            static MEMORY: [Region; 1] = [region(0, HOST, 40 * PAGE_SIZE)];
            let partition = partition(&MEMORY, (at, length), b"information");
            let mut memory = vec![1_u8; 40 * PAGE_SIZE as usize];
            let image: Vec<u8> = (0..length).map(|n| n as u8 | 1).collect();
            for piece in pieces(&partition) {
                prop_assert!(piece.length > 0 && piece.length <= PIECE);
                let target = (piece.target - HOST) as usize..(piece.target - HOST + piece.length) as usize;
                match piece.source {
                    Source::Zero => memory[target].fill(0),
                    Source::Image(from) => memory[target].copy_from_slice(&image[from as usize..][..piece.length as usize]),
                    Source::BootInfo(from) => memory[target].copy_from_slice(&partition.boot_info[from as usize..][..piece.length as usize]),
                }
            }
            let mut expected = vec![0_u8; memory.len()];
            expected[at as usize..][..length as usize].copy_from_slice(&image);
            expected[0x1000..][..11].copy_from_slice(b"information");
            prop_assert!(memory == expected);
        }
    }
}
