//! Who calls whom in a linked program, read out of its code.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

use crate::bench::sure;

/// The functions of a program, by address.
pub struct Calls {
    names: BTreeMap<u64, String>,
    /// By address of a function: those that it calls, jumps to or takes the address of.
    reached: BTreeMap<u64, BTreeSet<u64>>,
}

impl Calls {
    /// Reads an ELF file of x86-64 with its symbols.
    ///
    /// # Panics
    /// The bytes are no such file.
    #[must_use]
    pub fn of(elf: &[u8]) -> Self {
        let file = sure("read the ELF file", object::File::parse(elf));
        let code: Vec<_> = file.sections().filter(|it| it.kind() == SectionKind::Text).collect();
        let in_code = |address| {
            code.iter().any(|it| (it.address()..it.address() + it.size()).contains(&address))
        };
        // Assembly code has symbols without a kind.
        let names: BTreeMap<u64, String> = file
            .symbols()
            .filter(|it| {
                matches!(it.kind(), SymbolKind::Text | SymbolKind::Unknown | SymbolKind::Label)
            })
            .filter(|it| in_code(it.address()))
            .filter_map(|it| Some((it.address(), it.name().ok()?.to_string())))
            .collect();
        let sizeless: BTreeSet<u64> =
            file.symbols().filter(|it| it.size() == 0).map(|it| it.address()).collect();
        let mut reached: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for section in &code {
            let bytes = sure("read a section", section.data());
            let decoder = Decoder::with_ip(64, bytes, section.address(), DecoderOptions::NONE);
            for instruction in decoder {
                let Some(from) = holder(&names, instruction.ip()) else { continue };
                let targets = targets(&instruction).filter(|it| in_code(*it));
                let functions = targets.filter_map(|it| holder(&names, it));
                reached.entry(from).or_default().extend(functions.filter(|to| *to != from));
                // Labels of assembly code have no size, and fall into the next one.
                let next = holder(&names, instruction.next_ip()).filter(|next| *next != from);
                if sizeless.contains(&from) && !ends_here(&instruction) {
                    reached.entry(from).or_default().extend(next);
                }
            }
        }
        Self { names, reached }
    }

    /// Functions whose name contains one of `parts`.
    fn named<'a>(&'a self, parts: &'a [&str]) -> impl Iterator<Item = u64> + 'a {
        self.names
            .iter()
            .filter(|(_, name)| parts.iter().any(|part| name.contains(part)))
            .map(|(address, _)| *address)
    }

    /// For each function whose name contains one of `targets` and that is reached from one with a name in `roots`: the names on the way,
    /// the target first. Ways through a function whose name contains one of `around` are left out.
    #[must_use]
    pub fn ways(&self, roots: &[&str], targets: &[&str], around: &[&str]) -> Vec<Vec<&str>> {
        let around: BTreeSet<u64> = self.named(around).collect();
        let targets: BTreeSet<u64> = self.named(targets).collect();
        let mut from: BTreeMap<u64, Option<u64>> = BTreeMap::new();
        let mut next: Vec<(u64, Option<u64>)> = self.named(roots).map(|it| (it, None)).collect();
        let mut ways = Vec::new();
        while let Some((function, caller)) = next.pop() {
            if targets.contains(&function) {
                ways.push(self.way(function, caller, &from));
            } else if !around.contains(&function) && !from.contains_key(&function) {
                from.insert(function, caller);
                let reached = self.reached.get(&function).into_iter().flatten();
                next.extend(reached.map(|to| (*to, Some(function))));
            }
        }
        ways
    }

    fn way(
        &self,
        target: u64,
        caller: Option<u64>,
        from: &BTreeMap<u64, Option<u64>>,
    ) -> Vec<&str> {
        let callers =
            std::iter::successors(caller, |function| from.get(function).copied().flatten());
        std::iter::once(target).chain(callers).map(|it| self.name(it)).collect()
    }

    fn name(&self, function: u64) -> &str {
        self.names.get(&function).map_or("?", String::as_str)
    }

    /// How many functions have a name that contains `part`.
    #[must_use]
    pub fn count(&self, part: &str) -> usize {
        self.named(&[part]).count()
    }
}

/// The function that the instruction at `address` belongs to.
fn holder(names: &BTreeMap<u64, String>, address: u64) -> Option<u64> {
    names.range(..=address).next_back().map(|(start, _)| *start)
}

/// Where an instruction may lead, in code that is linked at its place: by a branch, or by an address that it computes or holds.
fn targets(instruction: &Instruction) -> impl Iterator<Item = u64> {
    let computed =
        instruction.is_ip_rel_memory_operand().then(|| instruction.ip_rel_memory_address());
    let named =
        (0..instruction.op_count()).filter_map(|operand| match instruction.op_kind(operand) {
            OpKind::NearBranch64 => Some(instruction.near_branch_target()),
            OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64 => {
                Some(instruction.immediate(operand))
            }
            _ => None,
        });
    computed.into_iter().chain(named)
}

/// Whether execution does not go on behind the instruction, as the last one of a piece of code: behind a call that is last comes nothing.
fn ends_here(instruction: &Instruction) -> bool {
    use Mnemonic::{Call, INVALID, Int3, Iretq, Jmp, Ret, Retf, Ud2};
    matches!(instruction.mnemonic(), Call | INVALID | Int3 | Iretq | Jmp | Ret | Retf | Ud2)
}
