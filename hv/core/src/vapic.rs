//! The virtual local APIC of a time-shared core's vCPU, in x2APIC mode (SDM 3A chapter 11).
//!
//! It has the registers and the priority rules of the real one; it can interrupt only vCPUs of its own partition. Its
//! registers lie in a virtual-APIC page of the architectural layout (SDM 3C 30.1), so that a processor with APIC
//! virtualization answers the guest from there and delivers interrupts by itself; where the processor has none, each
//! access exits and comes here. Either way this is the only place that raises, masks, times and sends.
//!
//! The timer's input clock is the TSC: a count lasts `divide` TSC ticks. LINT0, LINT1, thermal and performance
//! entries can be programmed and never fire, because nothing is wired to them.

use hv_defs::apic::{
    CURRENT_COUNT, DIVIDE_CONFIGURATION as DIVIDE, EOI, ESR, ICR, ID, INITIAL_COUNT, IRR, ISR, LDR,
    LVT_ERROR, LVT_TIMER, PPR, SELF_IPI, SVR, TMR, TPR, VERSION,
};

use crate::ipi::{self, BOOTSTRAP, FIRST_LEGAL_VECTOR, Ipi, Kind, Peers, Targets, Verdict};
use crate::msr::{judged_pin_bits, local_vector};

/// IA32_TSC_DEADLINE, which belongs to the timer. SDM 3A 11.5.4.1.
pub const TSC_DEADLINE: u32 = 0x6E0;

/// Why an access is refused; the guest gets #GP(0). SDM 3A 11.12.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No such register, or not in this direction.
    Absent,
    /// A reserved bit is set, or the value is not allowed.
    Value,
    /// An interrupt that would leave the partition, or of a delivery mode that a partition may not send.
    Forbidden,
}

/// Version 0x14, six LVT entries (highest index 5), no suppression of EOI broadcasts. SDM 3A 11.4.8.
const VERSION_VALUE: u32 = 0x0005_0014;

const MASKED: u32 = 1 << 16;
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// SVR after reset or INIT: disabled, spurious vector 0xFF. SDM 3A 11.4.7.1.
const SVR_RESET: u32 = 0xFF;
const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;

/// 32-bit words of a bank of 256 bits.
const BANK: u32 = 8;

/// A virtual-APIC page: each register lies at 16 times the low byte of its MSR's number. SDM 3C 30.1, 30.5.
#[repr(C, align(4096))]
pub struct ApicPage([u32; 1024]);

const _: () = assert!(size_of::<ApicPage>() == 4096);

/// Words of the page in which registers lie: 64 of them, in 16 bytes each. SDM 3C 30.1.1.
const REGISTER_WORDS: usize = 64 * 4;

impl ApicPage {
    /// All zero.
    #[must_use]
    pub const fn new() -> Self {
        Self([0; 1024])
    }

    const fn index(register: u32) -> usize {
        (register as usize & 0xFF) << 2
    }

    fn get(&self, register: u32) -> u32 {
        self.0[Self::index(register)]
    }

    fn set(&mut self, register: u32, value: u32) {
        self.0[Self::index(register)] = value;
    }

    /// The only register of 64 bits. SDM 3A 11.12.9.
    fn set_command(&mut self, value: u64) {
        self.set(ICR, value as u32);
        self.0[Self::index(ICR) + 1] = (value >> 32) as u32;
    }

    fn command(&self) -> u64 {
        u64::from(self.get(ICR)) | u64::from(self.0[Self::index(ICR) + 1]) << 32
    }

    fn set_vector(&mut self, bank: u32, vector: u8) {
        self.0[Self::index(bank + u32::from(vector >> 5))] |= 1 << (vector & 31);
    }

    fn clear_vector(&mut self, bank: u32, vector: u8) {
        self.0[Self::index(bank + u32::from(vector >> 5))] &= !(1 << (vector & 31));
    }

    fn highest(&self, bank: u32) -> Option<u8> {
        let word = (0..BANK).rev().find(|word| self.get(bank + word) != 0)?;
        Some((word * 32 + 31 - self.get(bank + word).leading_zeros()) as u8)
    }
}

impl Default for ApicPage {
    fn default() -> Self {
        Self::new()
    }
}

/// What drives the timer. SDM 3A 11.5.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
}

/// A virtual local APIC.
pub struct VirtualApic {
    page: &'static mut ApicPage,
    peers: Peers,
    esr_pending: u32,
    /// TSC at which the timer fires next.
    due: Option<u64>,
    /// Requests or interrupts in service changed here, which a processor that delivers by itself has to be told.
    changed: bool,
}

impl VirtualApic {
    /// The APIC of vCPU `peers.own()` with its registers in `page`. The bootstrap vCPU finds it as firmware leaves a real one:
    /// x2APIC mode, enabled, every LVT entry masked, nothing pending. The others find it as after INIT.
    #[must_use]
    pub fn new(page: &'static mut ApicPage, peers: Peers) -> Self {
        let mut apic = Self { page, peers, esr_pending: 0, due: None, changed: false };
        apic.reset();
        if peers.own() == BOOTSTRAP {
            apic.reset_to_enabled();
        }
        apic
    }

    /// As firmware leaves the APIC of the bootstrap vCPU.
    pub fn reset_to_enabled(&mut self) {
        self.reset();
        self.page.set(SVR, SVR_RESET | SOFTWARE_ENABLE);
    }

    /// What INIT does: all as after power-up, but x2APIC mode and the id stay. SDM 3A 11.4.7.3, 11.12.5.1.
    pub fn reset(&mut self) {
        let id = self.peers.own_id();
        // Nothing is ever written behind the registers: clearing the whole page would take longer than the rest of a switch.
        self.page.0.iter_mut().take(REGISTER_WORDS).for_each(|word| *word = 0);
        self.page.set(ID, id);
        self.page.set(VERSION, VERSION_VALUE);
        self.page.set(LDR, ipi::logical_id(id));
        self.page.set(SVR, SVR_RESET);
        (LVT_TIMER..=LVT_ERROR).for_each(|entry| self.page.set(entry, MASKED));
        self.esr_pending = 0;
        self.due = None;
        self.changed = true;
    }

    /// Where the page lies, for the processor. It writes there while the guest runs and at no other time.
    #[must_use]
    pub fn page_address(&self) -> u64 {
        core::ptr::from_ref::<ApicPage>(self.page).addr() as u64
    }

    /// RDMSR of an x2APIC register or of IA32_TSC_DEADLINE. `now` is the TSC.
    ///
    /// # Errors
    /// [`Fault::Absent`] where the register does not exist or cannot be read.
    pub fn read(&mut self, msr: u32, now: u64) -> Result<u64, Fault> {
        Ok(match msr {
            PPR => u64::from(self.processor_priority()),
            ICR => self.page.command(),
            CURRENT_COUNT => {
                self.expire(now);
                u64::from(self.current_count(now))
            }
            TSC_DEADLINE => {
                self.expire(now);
                match self.mode() {
                    TimerMode::TscDeadline => self.due.unwrap_or(0),
                    _ => 0,
                }
            }
            ID
            | VERSION
            | TPR
            | LDR
            | SVR
            | ISR..=ESR
            | LVT_TIMER..=LVT_ERROR
            | INITIAL_COUNT
            | DIVIDE => u64::from(self.page.get(msr)),
            _ => return Err(Fault::Absent),
        })
    }

    /// WRMSR of an x2APIC register or of IA32_TSC_DEADLINE. `now` is the TSC. Returns the interrupt that has to be
    /// sent to other vCPUs (or, an NMI or INIT, to this one), if the write was such a command.
    ///
    /// # Errors
    /// A [`Fault`] where the manual or the partition's borders refuse the write.
    pub fn write(&mut self, msr: u32, value: u64, now: u64) -> Result<Option<Ipi>, Fault> {
        if msr == TSC_DEADLINE {
            self.set_deadline(value);
            return Ok(None);
        }
        if msr == ICR {
            return self.write_command(value);
        }
        let value = u32::try_from(value).map_err(|_| Fault::Value)?;
        if matches!(msr, SVR | LVT_TIMER) {
            // A timer that ran out before the write did so by the rules before it: masked, it is over without an interrupt.
            self.expire(now);
        }
        match msr {
            TPR => self.set_tpr(u8::try_from(value).map_err(|_| Fault::Value)?),
            EOI if value == 0 => self.end_of_interrupt(),
            SVR => self.write_svr(value)?,
            ESR if value == 0 => {
                let errors = core::mem::take(&mut self.esr_pending);
                self.page.set(ESR, errors);
            }
            EOI | ESR => return Err(Fault::Value),
            LVT_TIMER..=LVT_ERROR => self.write_lvt(msr, value)?,
            INITIAL_COUNT => self.write_initial_count(value, now),
            DIVIDE if value & !0b1011 == 0 => self.page.set(DIVIDE, value),
            DIVIDE => return Err(Fault::Value),
            SELF_IPI => self.send_to_self(u8::try_from(value).map_err(|_| Fault::Value)?),
            _ => return Err(Fault::Absent),
        }
        Ok(None)
    }

    /// Fast path of [`write`](Self::write) for entries of the local vector table (not the timer's) that cannot change pending interrupts.
    /// Returns false, with nothing done, for everything else.
    #[inline(always)]
    pub fn write_plain(&mut self, msr: u32, value: u64) -> bool {
        let is_plain = judged_pin_bits(msr).is_some_and(|judged| value & judged == 0);
        if is_plain {
            self.set_entry(msr, value as u32);
        }
        is_plain
    }

    /// The processor left a write of SELF_IPI to us, because its vector is illegal: the value is in the page. SDM 3C 30.4.3.2.
    pub fn self_ipi_written(&mut self) {
        let vector = self.page.get(SELF_IPI) as u8;
        self.send_to_self(vector);
    }

    /// Whether software has it enabled. A processor that takes SELF_IPI by itself does not look (SDM 3C 30.5), so that write has to exit
    /// while it is not.
    #[must_use]
    #[inline(always)]
    pub fn is_enabled(&self) -> bool {
        self.page.get(SVR) & SOFTWARE_ENABLE != 0
    }

    /// Task priority, as CR8 bits 3-0 show its upper half.
    #[must_use]
    pub fn tpr(&self) -> u8 {
        self.page.get(TPR) as u8
    }

    /// Sets the task priority.
    pub fn set_tpr(&mut self, tpr: u8) {
        self.page.set(TPR, u32::from(tpr));
    }

    /// Makes the timer's interrupt pending when it is due at `now`; a periodic timer's next instant stays
    /// on its grid however late this is called.
    pub fn expire(&mut self, now: u64) {
        let Some(due) = self.due else {
            return;
        };
        if now < due {
            return;
        }
        let period = self.period();
        self.due = match self.mode() {
            TimerMode::Periodic if period > 0 => {
                Some(due.saturating_add(((now - due) / period + 1).saturating_mul(period)))
            }
            _ => None,
        };
        let entry = self.page.get(LVT_TIMER);
        if entry & MASKED == 0 {
            self.accept(entry as u8);
        }
    }

    /// TSC at which the timer's interrupt is due; `None` while it is masked, when nobody need wake up for it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.page.get(LVT_TIMER) & MASKED == 0 { self.due } else { None }
    }

    /// The vector that the processor would take now, if interrupts are enabled in it. SDM 3A 11.8.3.
    #[must_use]
    pub fn deliverable(&self) -> Option<u8> {
        let vector = self.page.highest(IRR)?;
        (vector >> 4 > self.processor_priority() >> 4).then_some(vector)
    }

    /// The processor took `vector`: from requested to in service.
    pub fn acknowledge(&mut self, vector: u8) {
        self.page.clear_vector(IRR, vector);
        self.page.set_vector(ISR, vector);
    }

    /// Takes back an [`acknowledge`](Self::acknowledge), ours or the processor's: the delivery of `vector` was interrupted, and it
    /// is requested again.
    pub fn withdraw(&mut self, vector: u8) {
        self.page.clear_vector(ISR, vector);
        self.page.set_vector(IRR, vector);
        self.changed = true;
    }

    /// The guest interrupt status (requested vector low, vector in service high; SDM 3C 25.4.2) where it changed here since the last
    /// call, for a processor that delivers by itself.
    pub fn take_changed_status(&mut self) -> Option<u16> {
        if !core::mem::take(&mut self.changed) {
            return None;
        }
        let highest = |bank| u16::from(self.page.highest(bank).unwrap_or(0));
        Some(highest(ISR) << 8 | highest(IRR))
    }

    /// Requests an edge-triggered interrupt, as a message from outside would. An APIC that is disabled takes none (SDM 3A 11.4.7.2).
    pub fn accept(&mut self, vector: u8) {
        if !self.is_enabled() {
            return;
        }
        if vector < FIRST_LEGAL_VECTOR {
            self.raise_error(RECEIVE_ILLEGAL_VECTOR);
            return;
        }
        self.page.set_vector(IRR, vector);
        self.page.clear_vector(TMR, vector);
        self.changed = true;
    }

    /// Requests all interrupts that the partition's other vCPUs sent meanwhile: bit v of word v / 64. A sender refuses
    /// illegal vectors itself.
    pub fn accept_all(&mut self, requests: [u64; 4]) {
        if !self.is_enabled() {
            return;
        }
        for (word, requested) in (0..BANK).step_by(2).zip(requests) {
            if requested != 0 {
                for (bank_word, bits) in
                    [(word, requested as u32), (word + 1, (requested >> 32) as u32)]
                {
                    let pending = self.page.get(IRR + bank_word);
                    self.page.set(IRR + bank_word, pending | bits);
                }
                self.changed = true;
            }
        }
    }

    /// SDM 3A 11.8.3.1.
    fn processor_priority(&self) -> u8 {
        let in_service = self.page.highest(ISR).unwrap_or(0);
        let tpr = self.tpr();
        if tpr >> 4 >= in_service >> 4 { tpr } else { in_service & 0xF0 }
    }

    fn end_of_interrupt(&mut self) {
        if let Some(vector) = self.page.highest(ISR) {
            self.page.clear_vector(ISR, vector);
        }
    }

    /// Without the software enable all LVT entries are masked and stay so. SDM 3A 11.4.7.2.
    fn write_svr(&mut self, value: u32) -> Result<(), Fault> {
        const WRITABLE: u32 = 0x3FF;
        if value & !WRITABLE != 0 {
            return Err(Fault::Value);
        }
        self.page.set(SVR, value);
        if value & SOFTWARE_ENABLE == 0 {
            for entry in LVT_TIMER..=LVT_ERROR {
                let masked = self.page.get(entry) | MASKED;
                self.page.set(entry, masked);
            }
        }
        Ok(())
    }

    /// The rules are those of a dedicated core's real APIC, although nothing is wired here to deliver an SMI.
    fn write_lvt(&mut self, register: u32, value: u32) -> Result<(), Fault> {
        let value = local_vector(register, u64::from(value)).ok_or(Fault::Value)? as u32;
        let was = self.page.get(register);
        self.set_entry(register, value);
        // SDM 3A 11.5.4.1: a change to or from TSC-deadline mode disarms the timer.
        if register == LVT_TIMER && (was ^ value) >> 18 & 1 == 1 {
            self.due = None;
            self.page.set(INITIAL_COUNT, 0);
        }
        Ok(())
    }

    /// While the APIC is disabled every entry stays masked. SDM 3A 11.4.7.2.
    #[inline(always)]
    fn set_entry(&mut self, register: u32, value: u32) {
        let forced = if self.is_enabled() { 0 } else { MASKED };
        self.page.set(register, value | forced);
    }

    fn mode(&self) -> TimerMode {
        match self.page.get(LVT_TIMER) >> 17 & 3 {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            _ => TimerMode::TscDeadline,
        }
    }

    /// SDM 3A 11.5.4, figure 11-10: bits 3, 1, 0 encode 2, 4, .. 128, and 7 means 1.
    fn divisor_shift(&self) -> u32 {
        let divide = self.page.get(DIVIDE);
        let code = (divide & 3) | (divide >> 1 & 4);
        (code + 1) & 7
    }

    fn period(&self) -> u64 {
        u64::from(self.page.get(INITIAL_COUNT)) << self.divisor_shift()
    }

    /// Ignored in TSC-deadline mode. SDM 3A 11.5.4.
    fn write_initial_count(&mut self, value: u32, now: u64) {
        if self.mode() == TimerMode::TscDeadline {
            return;
        }
        self.page.set(INITIAL_COUNT, value);
        self.due = (value > 0).then(|| now.saturating_add(self.period()));
    }

    fn current_count(&self, now: u64) -> u32 {
        if self.mode() == TimerMode::TscDeadline {
            return 0;
        }
        let left = self.due.map_or(0, |due| due.saturating_sub(now));
        (left >> self.divisor_shift()).min(u64::from(self.page.get(INITIAL_COUNT))) as u32
    }

    /// Ignored outside TSC-deadline mode; 0 disarms. SDM 3A 11.5.4.1.
    fn set_deadline(&mut self, value: u64) {
        if self.mode() == TimerMode::TscDeadline {
            self.due = (value > 0).then_some(value);
        }
    }

    /// SDM 3A 11.12.9. A fixed interrupt to this very vCPU is taken here; the rest of its targets are returned.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_command(&mut self, value: u64) -> Result<Option<Ipi>, Fault> {
        let ipi = match ipi::judge(value, &self.peers) {
            Verdict::Send(ipi) => ipi,
            Verdict::Nothing => {
                self.page.set_command(value);
                return Ok(None);
            }
            Verdict::Deny => return Err(Fault::Forbidden),
        };
        self.page.set_command(value);
        let Kind::Fixed(vector) = ipi.kind else {
            return Ok(Some(ipi));
        };
        if vector < FIRST_LEGAL_VECTOR {
            self.raise_error(SEND_ILLEGAL_VECTOR);
            return Ok(None);
        }
        let own = self.peers.own();
        if ipi.targets.contains(own) {
            self.accept(vector);
        }
        let targets = ipi.targets.without(Targets::one(own));
        Ok((!targets.is_empty()).then_some(Ipi { targets, kind: ipi.kind }))
    }

    fn send_to_self(&mut self, vector: u8) {
        if vector < FIRST_LEGAL_VECTOR {
            self.raise_error(SEND_ILLEGAL_VECTOR);
        } else {
            self.accept(vector);
        }
    }

    fn raise_error(&mut self, bit: u32) {
        let news = self.esr_pending & bit == 0;
        self.esr_pending |= bit;
        // SDM 3A 11.5.3. The error entry's own illegal vector only sets its bit, so this cannot recur.
        let entry = self.page.get(LVT_ERROR);
        let vector = entry as u8;
        if news && entry & MASKED == 0 {
            if vector < FIRST_LEGAL_VECTOR {
                self.esr_pending |= RECEIVE_ILLEGAL_VECTOR;
            } else {
                self.accept(vector);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hv_defs::apic::LVT_LINT1;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::vec;
    use std::vec::Vec;

    const VECTOR_TIMER: u64 = 0x40;
    const DEADLINE_MODE: u64 = 2 << 17;
    const PERIODIC: u64 = 1 << 17;

    fn made(peers: Peers) -> VirtualApic {
        VirtualApic::new(Box::leak(Box::new(ApicPage::new())), peers)
    }

    /// The APIC of a partition's only vCPU.
    fn apic() -> VirtualApic {
        made(Peers::new(&[3], 0))
    }

    /// The APIC of vCPU 0 of three.
    fn first_of_three() -> VirtualApic {
        made(Peers::new(&[3, 4, 0x25], 0))
    }

    #[test]
    fn a_deadline_fires_once_at_its_instant() {
        let mut apic = apic();
        apic.write(LVT_TIMER, VECTOR_TIMER | DEADLINE_MODE, 0).unwrap();
        apic.write(TSC_DEADLINE, 1000, 0).unwrap();
        apic.expire(999);
        assert_eq!(apic.deliverable(), None);
        assert_eq!(apic.read(TSC_DEADLINE, 0), Ok(1000));
        apic.expire(1000);
        assert_eq!(apic.deliverable(), Some(0x40));
        assert_eq!(apic.read(TSC_DEADLINE, 0), Ok(0));
        assert_eq!(apic.next_deadline(), None);
    }

    #[test]
    fn a_periodic_timer_stays_on_its_grid() {
        let mut apic = apic();
        apic.write(LVT_TIMER, VECTOR_TIMER | PERIODIC, 0).unwrap();
        apic.write(DIVIDE, 0b1011, 0).unwrap();
        apic.write(INITIAL_COUNT, 100, 50).unwrap();
        assert_eq!(apic.next_deadline(), Some(150));
        apic.expire(512);
        assert_eq!(apic.next_deadline(), Some(550));
        assert_eq!(apic.read(CURRENT_COUNT, 512), Ok(38));
    }

    #[test]
    fn changing_the_mode_disarms() {
        let mut apic = apic();
        apic.write(LVT_TIMER, VECTOR_TIMER | DEADLINE_MODE, 0).unwrap();
        apic.write(TSC_DEADLINE, 1000, 0).unwrap();
        apic.write(LVT_TIMER, VECTOR_TIMER, 0).unwrap();
        assert_eq!(apic.next_deadline(), None);
    }

    #[test]
    fn a_masked_timer_is_silent() {
        let mut apic = apic();
        apic.write(LVT_TIMER, VECTOR_TIMER | DEADLINE_MODE | u64::from(MASKED), 0).unwrap();
        apic.write(TSC_DEADLINE, 10, 0).unwrap();
        apic.expire(20);
        assert_eq!(apic.deliverable(), None);
    }

    #[test]
    fn a_timer_that_ran_out_reads_so_before_anyone_looked() {
        let mut apic = apic();
        let masked = u64::from(MASKED);
        apic.write(LVT_TIMER, masked | VECTOR_TIMER | DEADLINE_MODE, 0).unwrap();
        apic.write(TSC_DEADLINE, 1000, 0).unwrap();
        assert_eq!(apic.read(TSC_DEADLINE, 1000), Ok(0));
        apic.write(LVT_TIMER, masked | VECTOR_TIMER | PERIODIC, 0).unwrap();
        apic.write(DIVIDE, 0b1011, 0).unwrap();
        apic.write(INITIAL_COUNT, 100, 0).unwrap();
        assert_eq!(apic.read(CURRENT_COUNT, 250), Ok(50), "in its third period");
    }

    #[test]
    fn a_timer_that_ran_out_while_masked_is_quiet_when_unmasked() {
        let mut apic = apic();
        let masked = u64::from(MASKED);
        apic.write(LVT_TIMER, masked | VECTOR_TIMER | DEADLINE_MODE, 0).unwrap();
        apic.write(TSC_DEADLINE, 1000, 0).unwrap();
        apic.write(LVT_TIMER, VECTOR_TIMER | DEADLINE_MODE, 1500).unwrap();
        apic.expire(2000);
        assert_eq!(apic.deliverable(), None);
        apic.write(TSC_DEADLINE, 3000, 2000).unwrap();
        apic.write(LVT_TIMER, masked | VECTOR_TIMER | DEADLINE_MODE, 2500).unwrap();
        apic.write(LVT_TIMER, VECTOR_TIMER | DEADLINE_MODE, 2600).unwrap();
        apic.expire(3000);
        assert_eq!(apic.deliverable(), Some(0x40), "masked and unmasked again in time");
    }

    #[test]
    fn a_one_shot_ends_at_zero_and_keeps_its_initial_count() {
        let mut apic = apic();
        apic.write(LVT_TIMER, VECTOR_TIMER, 0).unwrap();
        apic.write(INITIAL_COUNT, 100, 0).unwrap();
        assert_eq!(apic.next_deadline(), Some(200), "divided by two after reset");
        assert_eq!(apic.read(CURRENT_COUNT, 50), Ok(75));
        apic.expire(200);
        assert_eq!(apic.deliverable(), Some(0x40));
        assert_eq!(apic.read(CURRENT_COUNT, 300), Ok(0));
        assert_eq!(apic.read(INITIAL_COUNT, 300), Ok(100));
    }

    #[test]
    fn nothing_leaves_the_partition() {
        let mut apic = apic();
        let destination = |id: u64| id << 32;
        for (value, name) in [
            (destination(0) | 0x40, "another core"),
            (destination(3) | 0x40 | 2 << 8, "SMI to itself"),
            (destination(3) | 0x40 | 5 << 8, "INIT to itself"),
            (destination(3) | 0x40 | 1 << 11, "strangers of its cluster"),
            (0x40 | 4 << 8 | 2 << 18, "NMI to all including self"),
            (0x40 | 3 << 18, "all but self, where there is nobody"),
        ] {
            assert_eq!(apic.write(ICR, value, 0), Err(Fault::Forbidden), "{name}");
        }
        assert_eq!(apic.deliverable(), None);
        assert_eq!(apic.read(ICR, 0), Ok(0), "a refused command leaves no trace");
        let to_itself = destination(3) | 0x40;
        assert_eq!(apic.write(ICR, to_itself, 0), Ok(None));
        assert_eq!(apic.deliverable(), Some(0x40));
        assert_eq!(apic.read(ICR, 0), Ok(to_itself));
    }

    #[test]
    fn commands_to_others_are_handed_on_without_oneself() {
        let mut apic = first_of_three();
        let sent = |apic: &mut VirtualApic, command| {
            let ipi = apic.write(ICR, command, 0).unwrap();
            ipi.map(|ipi| (ipi.targets.collect::<Vec<_>>(), ipi.kind))
        };
        assert_eq!(sent(&mut apic, 2 << 18 | 0x41), Some((vec![1, 2], Kind::Fixed(0x41))));
        assert_eq!(apic.deliverable(), Some(0x41), "its own share");
        assert_eq!(sent(&mut apic, 4 << 32 | 0x42), Some((vec![1], Kind::Fixed(0x42))));
        assert_eq!(sent(&mut apic, 3 << 32 | 4 << 8), Some((vec![0], Kind::Nmi)), "to itself");
        assert_eq!(sent(&mut apic, 0x25 << 32 | 5 << 8), Some((vec![2], Kind::Init)));
        assert_eq!(sent(&mut apic, 3 << 18 | 6 << 8 | 8), Some((vec![1, 2], Kind::StartUp(8))));
        assert_eq!(apic.deliverable(), Some(0x41), "nothing else came to itself");
    }

    #[test]
    fn an_illegal_vector_is_not_sent() {
        let mut apic = first_of_three();
        assert_eq!(apic.write(ICR, 2 << 18 | 0xF, 0), Ok(None));
        apic.write(ESR, 0, 0).unwrap();
        assert_eq!(apic.read(ESR, 0), Ok(u64::from(SEND_ILLEGAL_VECTOR)));
    }

    #[test]
    fn what_the_inbox_held_is_requested() {
        let mut apic = apic();
        assert_eq!(apic.take_changed_status(), Some(0));
        apic.accept_all([1 << 0x31, 0, 0, 1 << 63]);
        assert_eq!(apic.read(IRR + 1, 0), Ok(1 << 17));
        assert_eq!(apic.read(IRR + 7, 0), Ok(1 << 31));
        assert_eq!(apic.take_changed_status(), Some(0xFF));
        assert_eq!(apic.take_changed_status(), None);
        apic.accept_all([0; 4]);
        assert_eq!(apic.take_changed_status(), None, "no news");
        apic.acknowledge(0xFF);
        assert_eq!(apic.deliverable(), None);
        apic.withdraw(0xFF);
        assert_eq!(apic.take_changed_status(), Some(0xFF));
        apic.acknowledge(0xFF);
        apic.accept(0x32);
        assert_eq!(apic.take_changed_status(), Some(0xFF32));
    }

    #[test]
    fn the_bootstrap_vcpu_starts_enabled_and_the_others_as_after_init() {
        let mut first = first_of_three();
        assert_eq!(first.read(SVR, 0), Ok(0x1FF));
        let mut third = made(Peers::new(&[3, 4, 0x25], 2));
        assert_eq!(third.read(SVR, 0), Ok(0xFF));
        assert_eq!(third.read(ID, 0), Ok(0x25));
        assert_eq!(third.read(LDR, 0), Ok(0x2_0020));
        first.write(TPR, 0x20, 0).unwrap();
        first.write(LVT_TIMER, VECTOR_TIMER | DEADLINE_MODE, 0).unwrap();
        first.write(TSC_DEADLINE, 10, 0).unwrap();
        first.accept(0x50);
        first.reset();
        assert_eq!(first.next_deadline(), None);
        assert_eq!(first.deliverable(), None);
        for (register, value) in [(ID, 3), (SVR, 0xFF), (TPR, 0), (LVT_TIMER, 1 << 16)] {
            assert_eq!(first.read(register, 0), Ok(value));
        }
    }

    /// SDM 3C 30.1: the places at which the processor looks.
    #[test]
    fn registers_lie_where_the_processor_looks() {
        let mut apic = apic();
        apic.write(TPR, 0x20, 0).unwrap();
        apic.write(LVT_LINT1, 0x1_0030, 0).unwrap();
        apic.write(ICR, 3 << 32 | 0x46, 0).unwrap();
        let at = |offset: usize| apic.page.0[offset / 4];
        assert_eq!((at(0x20), at(0x30)), (3, VERSION_VALUE));
        assert_eq!((at(0x80), at(0xF0), at(0x360)), (0x20, 0x1FF, 0x1_0030));
        assert_eq!((at(0x300), at(0x304)), (0x46, 3));
        assert_eq!(at(0x220), 1 << 6, "IRR, vectors 64 to 95");
        assert_eq!(apic.page_address() % 4096, 0);
    }

    #[test]
    fn a_self_ipi_that_the_processor_left_to_us_is_an_error() {
        let mut apic = apic();
        apic.page.set(SELF_IPI, 3);
        apic.self_ipi_written();
        apic.write(ESR, 0, 0).unwrap();
        assert_eq!(apic.read(ESR, 0), Ok(u64::from(SEND_ILLEGAL_VECTOR)));
    }

    #[test]
    fn an_illegal_vector_is_an_error_and_no_interrupt() {
        let mut apic = apic();
        apic.write(LVT_ERROR, 0x50, 0).unwrap();
        apic.write(SELF_IPI, 3, 0).unwrap();
        assert_eq!(apic.deliverable(), Some(0x50));
        apic.write(ESR, 0, 0).unwrap();
        assert_eq!(apic.read(ESR, 0), Ok(u64::from(SEND_ILLEGAL_VECTOR)));
        apic.write(ESR, 0, 0).unwrap();
        assert_eq!(apic.read(ESR, 0), Ok(0));
    }

    #[test]
    fn a_disabled_apic_takes_nothing() {
        let mut apic = apic();
        apic.write(LVT_TIMER, VECTOR_TIMER, 0).unwrap();
        apic.write(SVR, 0xFF, 0).unwrap();
        assert_eq!(apic.read(LVT_TIMER, 0), Ok(VECTOR_TIMER | u64::from(MASKED)));
        apic.write(SELF_IPI, 0x60, 0).unwrap();
        assert_eq!(apic.deliverable(), None);
    }

    #[test]
    fn an_entry_is_written_plainly_unless_the_timer_hangs_on_it() {
        let mut apic = apic();
        assert!(apic.write_plain(LVT_ERROR, 0x1_0050));
        assert_eq!(apic.read(LVT_ERROR, 0), Ok(0x1_0050));
        assert!(!apic.write_plain(LVT_TIMER, 0x50));
        assert!(!apic.write_plain(LVT_ERROR, 1 << 10));
        assert!(!apic.write_plain(SVR, 0x1FF));
        assert_eq!(apic.read(LVT_TIMER, 0), Ok(u64::from(MASKED)));
    }

    #[test]
    fn directions_and_reserved_bits_fault() {
        let mut apic = apic();
        for msr in [EOI, SELF_IPI, 0x804, 0x80E, 0x82F, 0x831, 0x840] {
            assert_eq!(apic.read(msr, 0), Err(Fault::Absent), "{msr:#x}");
        }
        for msr in [ID, VERSION, PPR, LDR, ISR, TMR, IRR, CURRENT_COUNT] {
            assert_eq!(apic.write(msr, 0, 0), Err(Fault::Absent), "{msr:#x}");
        }
        for (msr, value) in [
            (TPR, 0x100),
            (EOI, 1),
            (ESR, 1),
            (SVR, 0x1000),
            (DIVIDE, 4),
            (LVT_TIMER, 3 << 17),
            (LVT_ERROR - 1, 2 << 8),
        ] {
            assert_eq!(apic.write(msr, value, 0), Err(Fault::Value), "{msr:#x}");
        }
    }

    /// The manual's rules, said the slow way.
    #[derive(Default)]
    struct Model {
        requested: std::collections::BTreeSet<u8>,
        in_service: std::collections::BTreeSet<u8>,
        tpr: u8,
    }

    impl Model {
        fn deliverable(&self) -> Option<u8> {
            let floor = self.in_service.last().map_or(0, |v| v >> 4).max(self.tpr >> 4);
            self.requested.last().copied().filter(|vector| vector >> 4 > floor)
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Request(u8),
        Take,
        End,
        Priority(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (16_u8..).prop_map(Step::Request),
            Just(Step::Take),
            Just(Step::End),
            any::<u8>().prop_map(Step::Priority),
        ]
    }

    proptest! {
        #[test]
        fn priorities_follow_the_model(steps in proptest::collection::vec(step(), 0..200)) {
            let (mut apic, mut model) = (apic(), Model::default());
            for step in steps {
                match step {
                    Step::Request(vector) => {
                        apic.write(SELF_IPI, u64::from(vector), 0).unwrap();
                        model.requested.insert(vector);
                    }
                    Step::Take => if let Some(vector) = apic.deliverable() {
                        apic.acknowledge(vector);
                        model.requested.remove(&vector);
                        model.in_service.insert(vector);
                    },
                    Step::End => {
                        apic.write(EOI, 0, 0).unwrap();
                        model.in_service.pop_last();
                    }
                    Step::Priority(tpr) => {
                        apic.write(TPR, u64::from(tpr), 0).unwrap();
                        model.tpr = tpr;
                    }
                }
                prop_assert_eq!(apic.deliverable(), model.deliverable());
            }
        }

        #[test]
        fn what_is_written_plainly_is_written_the_same(
            msr in prop_oneof![LVT_TIMER..=LVT_ERROR, 0x800_u32..0x840, any::<u32>()], value: u64, shift in 0_u32..64,
            before in any::<u32>(), enabled: bool,
        ) {
            for value in [value, value >> shift, value & 0x1_FFFF, value & 0x1_A4FF] {
                let (mut plain, mut whole) = (apic(), apic());
                for apic in [&mut plain, &mut whole] {
                    apic.page.set(LVT_TIMER, before);
                    apic.page.set(SVR, if enabled { SOFTWARE_ENABLE } else { 0 });
                    apic.due = Some(1000);
                    apic.changed = false;
                }
                if plain.write_plain(msr, value) {
                    prop_assert_eq!(whole.write(msr, value, 2000), Ok(None));
                }
                prop_assert!(plain.page.0 == whole.page.0);
                prop_assert_eq!((plain.due, plain.changed), (whole.due, whole.changed));
            }
        }

        #[test]
        fn no_access_panics(accesses in proptest::collection::vec((0x800_u32..0x840, any::<u64>(), any::<u64>()), 0..100)) {
            let mut apic = apic();
            for (msr, value, now) in accesses {
                let _either = apic.write(msr, value, now);
                let _either = apic.write(msr, value & 0xFF, now);
                let _either = apic.read(msr, now);
                apic.expire(now);
            }
        }
    }
}
