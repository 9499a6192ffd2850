//! Which memory a partition sees: one list, by which the compiler sizes the nested page tables and boot builds them.

use bulkhead_table::{PAGE_SIZE, Region};

use crate::paging::{Access, LargePages, Mapping, Memory};

/// The pages in which a partition's vCPUs read their schedule: one for each, behind each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulePages {
    /// Guest-physical address of the page of vCPU 0.
    pub guest: u64,
    /// Host-physical address of it.
    pub host: u64,
    /// How many pages, not 0.
    pub pages: usize,
}

/// The guest-physical memory of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'a> {
    /// Its own memory, as the table grants it.
    pub memory: &'a [Region],
    /// Its schedule; `None` on dedicated cores.
    pub schedule: Option<SchedulePages>,
    /// The table's [`large_code_pages`](bulkhead_table::Board::large_code_pages).
    pub large_code_pages: bool,
}

impl<'a> View<'a> {
    /// Every mapping that the partition gets, and none besides.
    pub fn mappings(&self) -> impl Iterator<Item = Mapping> + Clone + use<'a> {
        let large_code_pages = self.large_code_pages;
        let own = self.memory.iter().map(move |region| own(region, large_code_pages));
        own.chain(self.schedule.map(SchedulePages::mapping))
    }
}

/// Data may take large pages always. Code may only where the processor is free of the iTLB multihit erratum (CVE-2018-12207): elsewhere
/// a guest that changes the page size of the code it runs stops the machine with a machine check. See [`crate::errata`].
fn own(region: &Region, large_code_pages: bool) -> Mapping {
    let rights = region.rights;
    let large = large_code_pages || !rights.execute;
    Mapping {
        virt: region.guest,
        phys: region.host,
        size: region.size,
        access: Access { read: rights.read, write: rights.write, execute: rights.execute },
        memory: Memory::WriteBack,
        largest: if large { LargePages::Up1G } else { LargePages::None },
    }
}

impl SchedulePages {
    /// The guest may read these pages and nothing else.
    const fn mapping(self) -> Mapping {
        Mapping {
            virt: self.guest,
            phys: self.host,
            size: self.pages as u64 * PAGE_SIZE,
            access: Access { read: true, write: false, execute: false },
            memory: Memory::WriteBack,
            largest: LargePages::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paging::{self, Format, PageTable};
    use bulkhead_table::Rights;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const MIB: u64 = 1 << 20;
    const DATA: Rights = Rights { read: true, write: true, execute: false };

    fn region(guest: u64, host: u64, size: u64, rights: Rights) -> Region {
        Region { guest, host, size, rights }
    }

    /// Leaves of more than 4 KiB through which code can be fetched.
    fn large_code_leaves(view: &View<'_>) -> usize {
        const LARGE: u64 = 1 << 7;
        const EXECUTE: u64 = 1 << 2;
        let needed = paging::tables_needed(Format::Ept, LargePages::Up1G, view.mappings()).unwrap();
        let mut pool = vec![PageTable::EMPTY; needed];
        paging::build(Format::Ept, LargePages::Up1G, view.mappings(), &mut pool, 0x1000_0000)
            .unwrap();
        // A last level's entries keep bit 7 clear: there is no write of it there.
        let entries = pool.iter().flat_map(|table| table.0);
        entries.filter(|entry| entry & LARGE != 0 && entry & EXECUTE != 0).count()
    }

    #[test]
    fn code_gets_small_pages_unless_the_processor_is_known_to_be_sound() {
        let memory = [
            region(0, 1 << 30, 4 * MIB, Rights::ALL),
            region(4 * MIB, (1 << 30) + 4 * MIB, 4 * MIB, DATA),
        ];
        let view = |large_code_pages| View { memory: &memory, schedule: None, large_code_pages };
        assert_eq!(large_code_leaves(&view(true)), 2);
        assert_eq!(large_code_leaves(&view(false)), 0);
        let largest = |view: View<'_>| view.mappings().map(|m| m.largest).collect::<Vec<_>>();
        assert_eq!(largest(view(true)), [LargePages::Up1G; 2]);
        assert_eq!(largest(view(false)), [LargePages::None, LargePages::Up1G]);
    }

    #[test]
    fn the_schedule_is_read_only_and_comes_behind_the_memory() {
        let memory = [region(0, 2 * MIB, 2 * MIB, Rights::ALL)];
        let pages = SchedulePages { guest: 0xFEB0_0000, host: 0x5000, pages: 3 };
        let view = View { memory: &memory, schedule: Some(pages), large_code_pages: true };
        let list: Vec<_> = view.mappings().collect();
        assert_eq!(list.len(), 2);
        assert_eq!((list[1].virt, list[1].phys, list[1].size), (0xFEB0_0000, 0x5000, 0x3000));
        assert_eq!(list[1].access, Access { read: true, write: false, execute: false });
    }

    proptest! {
        /// Whatever the memory is: no leaf of code is large without the declaration, and the list is no other with it.
        #[test]
        fn no_large_leaf_of_code(
            pieces in prop::collection::vec((1_u64..40, any::<bool>(), any::<bool>()), 1..6),
        ) {
            let mut memory = Vec::new();
            let (mut guest, mut host) = (0, 64 * MIB);
            for (size, execute, askew) in pieces {
                let size = size * MIB / 2;
                let rights = Rights { execute, ..DATA };
                host += if askew { PAGE_SIZE } else { 2 * MIB };
                memory.push(region(guest, host, size, rights));
                guest += size;
                host += size;
            }
            let view = |large_code_pages| View { memory: &memory, schedule: None, large_code_pages };
            prop_assert_eq!(large_code_leaves(&view(false)), 0);
            let without_size = |view: View<'_>| {
                view.mappings().map(|m| Mapping { largest: LargePages::None, ..m }).collect::<Vec<_>>()
            };
            prop_assert_eq!(without_size(view(true)), without_size(view(false)));
        }
    }
}
