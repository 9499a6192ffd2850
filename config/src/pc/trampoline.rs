//! The code that a guest's first vCPU runs before its own: from the hypervisor's one way to start a guest over to what the
//! guest's boot protocol wants.

use bulkhead_table::{PAGE_SIZE, pc};
use iced_x86::code_asm::{
    CodeAssembler, cr0, cr3, cr4, ds, dword_ptr, eax, ebx, ecx, edi, es, fs, gs, rax, rsi, ss,
};
use iced_x86::{Code, IcedError, Instruction};

/// Descriptors of flat segments: SDM 3A 3.4.5. Linux wants its code at 0x10 and its data at 0x18
/// (Documentation/arch/x86/boot.rst, "64-bit boot protocol").
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u32 = 0x18;

/// Where in the page the parts lie.
const LONG_MODE: u64 = 0x100;
const TABLE: u64 = 0x200;
const POINTER: u64 = TABLE + 8 * DESCRIPTORS.len() as u64;
const END: u64 = POINTER + 6;

/// Bits of an entry of page tables: present, writable; and a page of 2 MiB. SDM 3A 4.5.
const PRESENT: i32 = 0b11;
const LARGE: i32 = 0x80;
/// Bytes that an entry of the second level maps.
const LARGE_SIZE: i32 = 2 << 20;
/// Entries of the second level in all: 4 GiB.
const LARGE_PAGES: u32 = 2048;
/// Tables of the second level.
const DIRECTORIES: u32 = LARGE_PAGES / 512;

/// CR4.PAE, CR0.PG, IA32_EFER and its bit LME: SDM 3A 9.8.5.
const PAE: i32 = 1 << 5;
const PAGING: u32 = 1 << 31;
const EFER: u32 = 0xC000_0080;
const LONG_MODE_ENABLE: i32 = 1 << 8;

/// Goes to `entry` in 64-bit mode, 4 GiB mapped as they are, RSI = `parameters`, as Linux's 64-bit boot protocol has it.
///
/// # Errors
/// An instruction cannot be encoded: a mistake here, never a guest's.
pub(crate) fn long_mode(entry: u64, parameters: u64) -> Result<Vec<u8>, IcedError> {
    let mut page = vec![0; END as usize];
    place(&mut page, 0, &protected_part()?);
    place(&mut page, LONG_MODE, &long_part(entry, parameters)?);
    let table: Vec<u8> = DESCRIPTORS.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    place(&mut page, TABLE, &table);
    // The limit of the table, then its address: SDM 3A 3.5.1.
    place(&mut page, POINTER, &(table.len() as u16 - 1).to_le_bytes());
    place(&mut page, POINTER + 2, &((pc::TRAMPOLINE + TABLE) as u32).to_le_bytes());
    Ok(page)
}

/// Goes to `entry` in 32-bit mode as it is, with these values in EAX and EBX: Multiboot, PVH.
///
/// # Errors
/// As [`long_mode`].
pub(crate) fn protected_mode(
    entry: u32,
    eax_value: u32,
    ebx_value: u32,
) -> Result<Vec<u8>, IcedError> {
    let mut code = CodeAssembler::new(32)?;
    code.cli()?;
    code.cld()?;
    code.mov(eax, eax_value)?;
    code.mov(ebx, ebx_value)?;
    code.mov(ecx, entry)?;
    code.jmp(ecx)?;
    code.assemble(pc::TRAMPOLINE)
}

fn place(page: &mut [u8], at: u64, bytes: &[u8]) {
    let start = at as usize;
    page[start..start + bytes.len()].copy_from_slice(bytes);
}

/// 32 bits, paging off: builds the page tables and switches over.
fn protected_part() -> Result<Vec<u8>, IcedError> {
    let (fourth, third) = (pc::PAGE_TABLES as i32, (pc::PAGE_TABLES + PAGE_SIZE) as i32);
    let second = third + PAGE_SIZE as i32;
    let mut code = CodeAssembler::new(32)?;
    code.cli()?;
    code.cld()?;
    code.mov(dword_ptr(fourth), third | PRESENT)?;
    code.mov(eax, second | PRESENT)?;
    code.mov(edi, third)?;
    code.mov(ecx, DIRECTORIES)?;
    let mut directories = code.create_label();
    code.set_label(&mut directories)?;
    code.mov(dword_ptr(edi), eax)?;
    code.add(eax, PAGE_SIZE as i32)?;
    code.add(edi, 8)?;
    code.dec(ecx)?;
    code.jnz(directories)?;
    code.mov(eax, PRESENT | LARGE)?;
    code.mov(edi, second)?;
    code.mov(ecx, LARGE_PAGES)?;
    let mut pages = code.create_label();
    code.set_label(&mut pages)?;
    code.mov(dword_ptr(edi), eax)?;
    code.add(eax, LARGE_SIZE)?;
    code.add(edi, 8)?;
    code.dec(ecx)?;
    code.jnz(pages)?;
    code.mov(eax, fourth)?;
    code.mov(cr3, eax)?;
    code.mov(eax, cr4)?;
    code.or(eax, PAE)?;
    code.mov(cr4, eax)?;
    code.mov(ecx, EFER)?;
    code.rdmsr()?;
    code.or(eax, LONG_MODE_ENABLE)?;
    code.wrmsr()?;
    code.mov(eax, cr0)?;
    code.or(eax, PAGING)?;
    code.mov(cr0, eax)?;
    code.lgdt(dword_ptr((pc::TRAMPOLINE + POINTER) as i32))?;
    let target = (pc::TRAMPOLINE + LONG_MODE) as u32;
    code.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, CODE_SELECTOR, target)?)?;
    code.assemble(pc::TRAMPOLINE)
}

/// 64 bits: flat data segments, and off.
fn long_part(entry: u64, parameters: u64) -> Result<Vec<u8>, IcedError> {
    let mut code = CodeAssembler::new(64)?;
    code.mov(eax, DATA_SELECTOR)?;
    for segment in [ds, es, ss, fs, gs] {
        code.mov(segment, eax)?;
    }
    code.mov(rsi, parameters)?;
    code.mov(rax, entry)?;
    code.jmp(rax)?;
    code.assemble(pc::TRAMPOLINE + LONG_MODE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use std::collections::BTreeMap;

    use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};

    use super::*;

    fn decoded(page: &[u8], bits: u32, at: u64) -> Vec<Instruction> {
        let bytes = &page[at as usize..];
        let mut decoder = Decoder::with_ip(bits, bytes, pc::TRAMPOLINE + at, DecoderOptions::NONE);
        let mut found = Vec::new();
        while found.last().is_none_or(|last: &Instruction| last.mnemonic() != Mnemonic::Jmp) {
            let next = decoder.decode();
            assert!(!next.is_invalid());
            found.push(next);
        }
        found
    }

    #[test]
    fn it_ends_in_long_mode_at_the_entry_with_the_parameters() {
        let page = long_mode(0x123_4560_0200, pc::PARAMETERS).unwrap();
        let first = decoded(&page, 32, 0);
        let jump = first.last().unwrap();
        assert_eq!(jump.op0_kind(), OpKind::FarBranch32);
        let target = u64::from(jump.far_branch32());
        assert_eq!(
            (target, jump.far_branch_selector()),
            (pc::TRAMPOLINE + LONG_MODE, CODE_SELECTOR)
        );
        assert!(jump.next_ip() <= target);
        let second = decoded(&page, 64, LONG_MODE);
        assert!(second.last().unwrap().next_ip() <= pc::TRAMPOLINE + TABLE);
        let loads: BTreeMap<_, _> = second
            .iter()
            .filter(|each| {
                each.mnemonic() == Mnemonic::Mov && each.op0_register() != Register::None
            })
            .filter(|each| each.op1_kind() != OpKind::Register)
            .map(|each| (each.op0_register(), each.immediate(1)))
            .collect();
        assert_eq!(loads[&Register::RSI], pc::PARAMETERS);
        assert_eq!(second.last().unwrap().op0_register(), Register::RAX);
        assert_eq!(loads[&Register::RAX], 0x123_4560_0200);
        let segments = second.iter().filter(|each| each.op0_register().is_segment_register());
        assert_eq!(segments.count(), 5);
    }

    /// What the processor would do with the page, as far as it writes memory: an interpreter of the few instructions there are.
    #[test]
    fn the_page_tables_map_four_gibibytes_as_they_are() {
        let page = long_mode(0x100_0200, pc::PARAMETERS).unwrap();
        let memory = written(&decoded(&page, 32, 0));
        let entry = |at: u64| u64::from(memory.get(&at).copied().unwrap_or(0));
        let fourth = entry(pc::PAGE_TABLES);
        assert_eq!(fourth & 0xFFF, 3);
        for gibibyte in 0..4 {
            let third = entry((fourth & !0xFFF) + 8 * gibibyte);
            assert_eq!(third & 0xFFF, 3);
            for piece in 0..512 {
                let mapped = entry((third & !0xFFF) + 8 * piece);
                assert_eq!(mapped, (gibibyte << 30) + (piece << 21) + 0x83);
            }
        }
        let last = memory.keys().max().unwrap();
        assert!(*last < pc::PAGE_TABLES_END && memory.len() == 1 + 4 + 2048);
    }

    fn written(code: &[Instruction]) -> BTreeMap<u64, u32> {
        let (mut registers, mut memory) = (BTreeMap::<Register, u32>::new(), BTreeMap::new());
        let (mut at, mut zero) = (0, false);
        while let Some(each) = code.get(at) {
            at += 1;
            let of = |registers: &BTreeMap<Register, u32>, operand: u32| match each.op_kind(operand)
            {
                OpKind::Register => registers.get(&each.op_register(operand)).copied().unwrap_or(0),
                _ => each.immediate(operand) as u32,
            };
            match (each.mnemonic(), each.op0_kind()) {
                (Mnemonic::Mov, OpKind::Memory) => {
                    let base = registers.get(&each.memory_base()).copied().unwrap_or(0);
                    let value = of(&registers, 1);
                    memory.insert(u64::from(base) + each.memory_displacement64(), value);
                }
                (Mnemonic::Mov, OpKind::Register) => {
                    let value = of(&registers, 1);
                    registers.insert(each.op0_register(), value);
                }
                (Mnemonic::Add, _) => {
                    let sum = of(&registers, 0).wrapping_add(of(&registers, 1));
                    registers.insert(each.op0_register(), sum);
                }
                (Mnemonic::Dec, _) => {
                    let less = of(&registers, 0).wrapping_sub(1);
                    registers.insert(each.op0_register(), less);
                    zero = less == 0;
                }
                (Mnemonic::Jne, _) if !zero => {
                    let target = each.near_branch_target();
                    at = code.iter().position(|other| other.ip() == target).unwrap();
                }
                _ => {}
            }
        }
        memory
    }

    #[test]
    fn a_guest_of_32_bits_gets_its_two_registers() {
        let code = decoded(&protected_mode(0x10_0040, 7, 9).unwrap(), 32, 0);
        let loads: BTreeMap<_, _> = code
            .iter()
            .filter(|each| each.mnemonic() == Mnemonic::Mov)
            .map(|each| (each.op0_register(), each.immediate(1)))
            .collect();
        let of = |register| loads[&register];
        assert_eq!((of(Register::EAX), of(Register::EBX), of(Register::ECX)), (7, 9, 0x10_0040));
        assert_eq!(code.last().unwrap().op0_register(), Register::ECX);
    }

    #[test]
    fn the_descriptors_are_flat_and_of_their_kinds() {
        let page = long_mode(0x100_0200, pc::PARAMETERS).unwrap();
        let pointer = &page[POINTER as usize..];
        let address = u32::from_le_bytes(pointer[2..6].try_into().unwrap());
        assert_eq!((&pointer[..2], u64::from(address)), (&[31, 0][..], pc::TRAMPOLINE + TABLE));
        let descriptor = |selector: usize| {
            let at = TABLE as usize + selector;
            u64::from_le_bytes(page[at..at + 8].try_into().unwrap())
        };
        // Present code of 64 bits; present, writable data.
        assert_eq!(descriptor(CODE_SELECTOR.into()) >> 40 & 0xFF_FF, 0xAF9B);
        assert_eq!(descriptor(DATA_SELECTOR as usize) >> 40 & 0xFF, 0x93);
    }
}
