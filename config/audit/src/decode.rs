//! Reads the table out of the hypervisor's own memory, as the hypervisor will find it there.
//!
//! The table is a Rust static, and so are the slices and strings that it points to. Every type of it is
//! `repr(C)`, so offsets and sizes are those that this crate's compiler sees too; enums are `repr(C, u8)`: a
//! tag, then the payload on its own alignment; what may be absent is a reference, null when it is. A slice is
//! an address and a count: the note's sample proves that order. Sizes are asserted here, so that a new field of
//! the contract stops the build until the audit reads it.

use std::cell::Cell;
use std::mem::offset_of;

use bulkhead_table::note::{self, Description};
use bulkhead_table::{
    self as table, FORMAT, Hygiene, HygieneCosts, Image, Owner, Platform, Power, Range, Region,
    Rights, Uart, Window,
};

use crate::Unreadable;
use crate::elf::Program;
use crate::model::{Board, Core, Partition, PowerOff, Role, Shutdown, System};

/// Most bytes that a table is read for, repeats counted: real ones have some thousand. Bounds what a hostile
/// image, in which slices lead to each other's bytes, can cost.
const MOST_BYTES: u64 = 16 << 20;

/// Bytes of a word: an address or a count.
const WORD: usize = 8;

const _: () = assert!(size_of::<usize>() == WORD, "the audit reads tables of 64-bit hypervisors");
const _: () = {
    assert!(size_of::<table::PartitionTable>() == 288);
    assert!(size_of::<table::Board>() == 144);
    assert!(size_of::<table::Partition>() == 192);
    assert!(size_of::<table::Core>() == 32 && size_of::<table::Role>() == 24);
    assert!(size_of::<Window>() == 32 && size_of::<Owner>() == 4);
    assert!(size_of::<Image>() == 56 && size_of::<Region>() == 32 && size_of::<Range>() == 16);
    assert!(size_of::<Hygiene>() == 3 && size_of::<Rights>() == 3 && size_of::<Uart>() == 24);
    assert!(size_of::<Platform>() == 1);
    assert!(size_of::<HygieneCosts>() == 24);
    assert!(size_of::<Power>() == 3);
    assert!(size_of::<table::PowerOff>() == 24 && size_of::<table::Shutdown>() == 24);
};

/// The table of a program.
pub(crate) fn table(program: &Program<'_>) -> Result<System, Unreadable> {
    let reader = Reader { program, left: Cell::new(MOST_BYTES) };
    let note = View { reader: &reader, bytes: program.description };
    let size = note.u32(offset_of!(Description, table_size))?;
    let format = note.u32(offset_of!(Description, format))?;
    if format != FORMAT || size as usize != System::SIZE {
        return Err(Unreadable(format!(
            "its table has format {format} and {size} bytes, and this audit reads format {FORMAT} of {} bytes; use the `bulkhead` that built it",
            System::SIZE
        )));
    }
    let sample = note.text(offset_of!(Description, sample))?;
    if sample != note::SAMPLE {
        return Err(Unreadable("its slices are not laid out as an address and a count".to_owned()));
    }
    System::read(&reader.view(note.u64(offset_of!(Description, table))?, System::SIZE)?)
}

/// The memory that is read, and how much more may be.
struct Reader<'p, 'e> {
    program: &'p Program<'e>,
    left: Cell<u64>,
}

impl<'p, 'e> Reader<'p, 'e> {
    fn bytes(&self, start: u64, length: u64) -> Result<&'e [u8], Unreadable> {
        let Some(left) = self.left.get().checked_sub(length) else {
            return Err(Unreadable(format!("its table takes more than {MOST_BYTES} bytes")));
        };
        self.left.set(left);
        self.program.constant(start, length)
    }

    fn view(&self, start: u64, length: usize) -> Result<View<'_, 'p, 'e>, Unreadable> {
        Ok(View { reader: self, bytes: self.bytes(start, length as u64)? })
    }
}

/// The bytes of one value.
struct View<'r, 'p, 'e> {
    reader: &'r Reader<'p, 'e>,
    bytes: &'e [u8],
}

/// A type that can be read out of its bytes.
trait Layout: Sized {
    /// Bytes of a value.
    const SIZE: usize;

    /// The value in these bytes.
    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable>;
}

impl<'r, 'p, 'e> View<'r, 'p, 'e> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Unreadable> {
        let field = at.checked_add(N).and_then(|end| self.bytes.get(at..end)?.try_into().ok());
        field.ok_or_else(|| Unreadable("its table ends in the middle of a field".to_owned()))
    }

    fn u16(&self, at: usize) -> Result<u16, Unreadable> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Result<u32, Unreadable> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, Unreadable> {
        self.array(at).map(u64::from_le_bytes)
    }

    fn tag(&self, at: usize) -> Result<u8, Unreadable> {
        self.array(at).map(|[tag]| tag)
    }

    fn flag(&self, at: usize) -> Result<bool, Unreadable> {
        match self.tag(at)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Unreadable(format!("its table has {other} where yes or no stands"))),
        }
    }

    /// A value that stands in this one.
    fn inner<T: Layout>(&self, at: usize) -> Result<T, Unreadable> {
        let bytes = at.checked_add(T::SIZE).and_then(|end| self.bytes.get(at..end));
        let bytes = bytes
            .ok_or_else(|| Unreadable("its table ends in the middle of a value".to_owned()))?;
        T::read(&View { reader: self.reader, bytes })
    }

    /// The bytes of the slice at `at`, whose elements have `size` bytes.
    fn slice(&self, at: usize, size: usize) -> Result<&'e [u8], Unreadable> {
        let (start, count) = (self.u64(at)?, self.u64(at.saturating_add(WORD))?);
        if count == 0 {
            return Ok(&[]);
        }
        self.reader.bytes(start, count.saturating_mul(size as u64))
    }

    fn list<T: Layout>(&self, at: usize) -> Result<Vec<T>, Unreadable> {
        let bytes = self.slice(at, T::SIZE)?;
        let views = bytes.chunks_exact(T::SIZE).map(|bytes| View { reader: self.reader, bytes });
        views.map(|view| T::read(&view)).collect()
    }

    fn text(&self, at: usize) -> Result<String, Unreadable> {
        let bytes = self.slice(at, 1)?.to_vec();
        String::from_utf8(bytes)
            .map_err(|_| Unreadable("its table has a string that is not UTF-8".to_owned()))
    }

    /// What the reference at `at` leads to; `None` when it is null.
    fn option<T: Layout>(&self, at: usize) -> Result<Option<T>, Unreadable> {
        match self.u64(at)? {
            0 => Ok(None),
            start => T::read(&self.reader.view(start, T::SIZE)?).map(Some),
        }
    }
}

impl Layout for u16 {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        view.u16(0)
    }
}

impl Layout for u32 {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        view.u32(0)
    }
}

/// A `&str`.
impl Layout for String {
    const SIZE: usize = 2 * WORD;

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        view.text(0)
    }
}

/// A `&[Window]`: the windows of one plan.
impl Layout for Vec<Window> {
    const SIZE: usize = 2 * WORD;

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        view.list(0)
    }
}

impl Layout for System {
    const SIZE: usize = size_of::<table::PartitionTable>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        use table::PartitionTable as Of;
        Ok(Self {
            format: view.u32(offset_of!(Of, format))?,
            system: view.text(offset_of!(Of, system))?,
            digest: view.array(offset_of!(Of, digest))?,
            board: view.inner(offset_of!(Of, board))?,
            hypervisor: view.inner(offset_of!(Of, hypervisor))?,
            partitions: view.list(offset_of!(Of, partitions))?,
            cores: view.list(offset_of!(Of, cores))?,
            frame: view.u64(offset_of!(Of, frame))?,
            plans: view.list(offset_of!(Of, plans))?,
            log_windows: view.flag(offset_of!(Of, log_windows))?,
            shutdown: view.option(offset_of!(Of, shutdown))?,
        })
    }
}

impl Layout for Board {
    const SIZE: usize = size_of::<table::Board>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        use table::Board as Of;
        Ok(Self {
            name: view.text(offset_of!(Of, name))?,
            apic_ids: view.list(offset_of!(Of, apic_ids))?,
            memory: view.list(offset_of!(Of, memory))?,
            tsc_hz: view.u64(offset_of!(Of, tsc_hz))?,
            tsc_tolerance_ppm: view.u32(offset_of!(Of, tsc_tolerance_ppm))?,
            tsc_vouched: view.flag(offset_of!(Of, tsc_vouched))?,
            tsc_skew: view.u64(offset_of!(Of, tsc_skew))?,
            switch_budget: view.u64(offset_of!(Of, switch_budget))?,
            hygiene: view.inner(offset_of!(Of, hygiene))?,
            uart: view.option(offset_of!(Of, uart))?,
            log_memory: view.inner(offset_of!(Of, log_memory))?,
            large_code_pages: view.flag(offset_of!(Of, large_code_pages))?,
            power: view.inner(offset_of!(Of, power))?,
            power_off: view.option(offset_of!(Of, power_off))?,
        })
    }
}

impl Layout for Uart {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        Ok(Self {
            base: view.u64(offset_of!(Self, base))?,
            in_memory: view.flag(offset_of!(Self, in_memory))?,
            stride: view.tag(offset_of!(Self, stride))?,
            width: view.tag(offset_of!(Self, width))?,
            clock: view.u32(offset_of!(Self, clock))?,
            baud: view.u32(offset_of!(Self, baud))?,
        })
    }
}

impl Layout for PowerOff {
    const SIZE: usize = size_of::<table::PowerOff>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        use table::PowerOff as Of;
        Ok(Self {
            port: view.u16(offset_of!(Of, port))?,
            bytes: view.slice(offset_of!(Of, bytes), 1)?.to_vec(),
        })
    }
}

impl Layout for Range {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        Ok(Self {
            start: view.u64(offset_of!(Self, start))?,
            size: view.u64(offset_of!(Self, size))?,
        })
    }
}

impl Layout for Partition {
    const SIZE: usize = size_of::<table::Partition>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        use table::Partition as Of;
        Ok(Self {
            name: view.text(offset_of!(Of, name))?,
            place: view.text(offset_of!(Of, place))?,
            cpus: view.list(offset_of!(Of, cpus))?,
            first_vcpu: view.u16(offset_of!(Of, first_vcpu))?,
            platform: view.inner(offset_of!(Of, platform))?,
            image: view.inner(offset_of!(Of, image))?,
            memory: view.list(offset_of!(Of, memory))?,
            ept_pages: view.u64(offset_of!(Of, ept_pages))?,
            boot_info: view.slice(offset_of!(Of, boot_info), 1)?.to_vec(),
            boot_info_at: view.u64(offset_of!(Of, boot_info_at))?,
            schedule_at: view.u64(offset_of!(Of, schedule_at))?,
            may_switch_plan: view.flag(offset_of!(Of, may_switch_plan))?,
            donates_to: view.option(offset_of!(Of, donates_to))?,
            hygiene: view.inner(offset_of!(Of, hygiene))?,
        })
    }
}

impl Layout for Platform {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        match view.tag(0)? {
            0 => Ok(Self::Bare),
            1 => Ok(Self::Pc),
            other => Err(Unreadable(format!(
                "its table gives a partition the platform {other}, which is none"
            ))),
        }
    }
}

impl Layout for Image {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        Ok(Self {
            size: view.u64(offset_of!(Self, size))?,
            digest: view.array(offset_of!(Self, digest))?,
            load_at: view.u64(offset_of!(Self, load_at))?,
            entry: view.u64(offset_of!(Self, entry))?,
        })
    }
}

impl Layout for Region {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        Ok(Self {
            guest: view.u64(offset_of!(Self, guest))?,
            host: view.u64(offset_of!(Self, host))?,
            size: view.u64(offset_of!(Self, size))?,
            rights: view.inner(offset_of!(Self, rights))?,
        })
    }
}

impl Layout for Rights {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        Ok(Self {
            read: view.flag(offset_of!(Self, read))?,
            write: view.flag(offset_of!(Self, write))?,
            execute: view.flag(offset_of!(Self, execute))?,
        })
    }
}

impl Layout for Hygiene {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        Ok(Self {
            l1d_flush: view.flag(offset_of!(Self, l1d_flush))?,
            branch_barrier: view.flag(offset_of!(Self, branch_barrier))?,
            buffer_clear: view.flag(offset_of!(Self, buffer_clear))?,
        })
    }
}

impl Layout for HygieneCosts {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        Ok(Self {
            l1d_flush: view.u64(offset_of!(Self, l1d_flush))?,
            branch_barrier: view.u64(offset_of!(Self, branch_barrier))?,
            buffer_clear: view.u64(offset_of!(Self, buffer_clear))?,
        })
    }
}

impl Layout for Power {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        Ok(Self {
            turbo_off: view.flag(offset_of!(Self, turbo_off))?,
            base_frequency: view.flag(offset_of!(Self, base_frequency))?,
            c1_only: view.flag(offset_of!(Self, c1_only))?,
        })
    }
}

impl Layout for Shutdown {
    const SIZE: usize = size_of::<table::Shutdown>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        use table::Shutdown as Of;
        Ok(Self {
            when_finished: view.list(offset_of!(Of, when_finished))?,
            at_latest: view.u64(offset_of!(Of, at_latest))?,
        })
    }
}

impl Layout for Core {
    const SIZE: usize = size_of::<table::Core>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        Ok(Self {
            cpu: view.u16(offset_of!(table::Core, cpu))?,
            role: view.inner(offset_of!(table::Core, role))?,
        })
    }
}

impl Layout for Role {
    const SIZE: usize = size_of::<table::Role>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        let payload = align_of::<table::Role>();
        match view.tag(0)? {
            0 => Ok(Self::Dedicated(view.u16(payload)?)),
            1 => Ok(Self::Shared(view.list(payload)?)),
            2 => Ok(Self::Housekeeping),
            other => {
                Err(Unreadable(format!("its table gives a core the role {other}, which is none")))
            }
        }
    }
}

impl Layout for Window {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        Ok(Self {
            start: view.u64(offset_of!(Self, start))?,
            length: view.u64(offset_of!(Self, length))?,
            budget: view.u64(offset_of!(Self, budget))?,
            owner: view.inner(offset_of!(Self, owner))?,
        })
    }
}

impl Layout for Owner {
    const SIZE: usize = size_of::<Self>();

    fn read(view: &View<'_, '_, '_>) -> Result<Self, Unreadable> {
        match view.tag(0)? {
            0 => Ok(Self::Partition(view.u16(align_of::<Self>())?)),
            1 => Ok(Self::Housekeeping),
            other => Err(Unreadable(format!(
                "its table gives a window the owner {other}, which is none"
            ))),
        }
    }
}
