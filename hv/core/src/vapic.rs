//! The virtual local APIC of a time-shared core, in x2APIC mode (SDM 3A chapter 11).
//!
//! It has the registers and the priority rules of the real one; it can interrupt only its own vCPU. The timer's input
//! clock is the TSC: a count lasts `divide` TSC ticks. LINT0, LINT1, thermal and performance entries can be
//! programmed and never fire, because nothing is wired to them.

use crate::msr::local_vector;

/// IA32_TSC_DEADLINE, which belongs to the timer. SDM 3A 11.5.4.1.
pub const TSC_DEADLINE: u32 = 0x6E0;

/// Why an access is refused; the guest gets #GP(0). SDM 3A 11.12.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No such register, or not in this direction.
    Absent,
    /// A reserved bit is set, or the value is not allowed.
    Value,
    /// An interrupt that would leave the vCPU, or of a delivery mode that a partition may not send.
    Forbidden,
}

const ID: u32 = 0x802;
const VERSION: u32 = 0x803;
const TPR: u32 = 0x808;
const PPR: u32 = 0x80A;
const EOI: u32 = 0x80B;
const LDR: u32 = 0x80D;
const SVR: u32 = 0x80F;
const ISR: u32 = 0x810;
const TMR: u32 = 0x818;
const IRR: u32 = 0x820;
const ESR: u32 = 0x828;
const ICR: u32 = 0x830;
const LVT_TIMER: u32 = 0x832;
const LVT_ERROR: u32 = 0x837;
const INITIAL_COUNT: u32 = 0x838;
const CURRENT_COUNT: u32 = 0x839;
const DIVIDE: u32 = 0x83E;
const SELF_IPI: u32 = 0x83F;

/// Version 0x14, six LVT entries (highest index 5), no suppression of EOI broadcasts. SDM 3A 11.4.8.
const VERSION_VALUE: u64 = 0x0005_0014;

const LVT_ENTRIES: usize = (LVT_ERROR - LVT_TIMER + 1) as usize;
const TIMER: usize = 0;
const ERROR: usize = LVT_ENTRIES - 1;
const MASKED: u32 = 1 << 16;
const SOFTWARE_ENABLE: u32 = 1 << 8;
const SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
const RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
/// Vectors below this are reserved for exceptions. SDM 3A 11.5.2.
const FIRST_LEGAL_VECTOR: u8 = 16;

/// What drives the timer. SDM 3A 11.5.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
}

/// 256 bits, one for each vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Vectors([u32; 8]);

impl Vectors {
    const EMPTY: Self = Self([0; 8]);

    const fn set(&mut self, vector: u8) {
        self.0[(vector >> 5) as usize] |= 1 << (vector & 31);
    }

    const fn clear(&mut self, vector: u8) {
        self.0[(vector >> 5) as usize] &= !(1 << (vector & 31));
    }

    fn highest(&self) -> Option<u8> {
        let word = (0..8_u8).rev().find(|word| self.0[usize::from(*word)] != 0)?;
        Some(word * 32 + (31 - self.0[usize::from(word)].leading_zeros() as u8))
    }

    fn word(&self, index: u32) -> u64 {
        u64::from(self.0[(index & 7) as usize])
    }
}

/// A virtual local APIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualApic {
    id: u32,
    tpr: u8,
    svr: u32,
    esr: u32,
    esr_pending: u32,
    icr: u64,
    isr: Vectors,
    tmr: Vectors,
    irr: Vectors,
    lvt: [u32; LVT_ENTRIES],
    initial_count: u32,
    divide: u32,
    /// TSC at which the timer fires next.
    due: Option<u64>,
}

impl VirtualApic {
    /// As a partition finds it at its start: x2APIC mode, enabled, every LVT entry masked, nothing pending.
    #[must_use]
    pub const fn new(id: u32) -> Self {
        Self {
            id,
            tpr: 0,
            svr: SOFTWARE_ENABLE | 0xFF,
            esr: 0,
            esr_pending: 0,
            icr: 0,
            isr: Vectors::EMPTY,
            tmr: Vectors::EMPTY,
            irr: Vectors::EMPTY,
            lvt: [MASKED; LVT_ENTRIES],
            initial_count: 0,
            divide: 0,
            due: None,
        }
    }

    /// RDMSR of an x2APIC register or of IA32_TSC_DEADLINE. `now` is the TSC.
    ///
    /// # Errors
    /// [`Fault::Absent`] where the register does not exist or cannot be read.
    pub fn read(&self, msr: u32, now: u64) -> Result<u64, Fault> {
        Ok(match msr {
            ID => u64::from(self.id),
            VERSION => VERSION_VALUE,
            TPR => u64::from(self.tpr),
            PPR => u64::from(self.processor_priority()),
            // SDM 3A 11.12.10.2: derived from the id.
            LDR => u64::from((self.id >> 4) << 16 | 1 << (self.id & 15)),
            SVR => u64::from(self.svr),
            ISR..TMR => self.isr.word(msr),
            TMR..IRR => self.tmr.word(msr),
            IRR..ESR => self.irr.word(msr),
            ESR => u64::from(self.esr),
            ICR => self.icr,
            LVT_TIMER..=LVT_ERROR => u64::from(self.lvt[(msr - LVT_TIMER) as usize]),
            INITIAL_COUNT => u64::from(self.initial_count),
            CURRENT_COUNT => u64::from(self.current_count(now)),
            DIVIDE => u64::from(self.divide),
            TSC_DEADLINE => match self.mode() {
                TimerMode::TscDeadline => self.due.unwrap_or(0),
                _ => 0,
            },
            _ => return Err(Fault::Absent),
        })
    }

    /// WRMSR of an x2APIC register or of IA32_TSC_DEADLINE. `now` is the TSC.
    ///
    /// # Errors
    /// A [`Fault`] where the manual or the partition's borders refuse the write.
    pub fn write(&mut self, msr: u32, value: u64, now: u64) -> Result<(), Fault> {
        if msr == TSC_DEADLINE {
            self.set_deadline(value);
            return Ok(());
        }
        if msr == ICR {
            return self.write_icr(value);
        }
        let value = u32::try_from(value).map_err(|_| Fault::Value)?;
        match msr {
            TPR => self.tpr = u8::try_from(value).map_err(|_| Fault::Value)?,
            EOI if value == 0 => self.end_of_interrupt(),
            SVR => self.write_svr(value)?,
            ESR if value == 0 => self.esr = core::mem::take(&mut self.esr_pending),
            EOI | ESR => return Err(Fault::Value),
            LVT_TIMER..=LVT_ERROR => self.write_lvt((msr - LVT_TIMER) as usize, value)?,
            INITIAL_COUNT => self.write_initial_count(value, now),
            DIVIDE if value & !0b1011 == 0 => self.divide = value,
            DIVIDE => return Err(Fault::Value),
            SELF_IPI => self.send(u8::try_from(value).map_err(|_| Fault::Value)?),
            _ => return Err(Fault::Absent),
        }
        Ok(())
    }

    /// Task priority, as CR8 bits 3-0 show its upper half.
    #[must_use]
    pub const fn tpr(&self) -> u8 {
        self.tpr
    }

    /// Sets the task priority.
    pub const fn set_tpr(&mut self, tpr: u8) {
        self.tpr = tpr;
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
        self.fire(TIMER);
    }

    /// TSC at which the timer's interrupt is due; `None` while it is masked, when nobody need wake up for it.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<u64> {
        if self.lvt[TIMER] & MASKED == 0 { self.due } else { None }
    }

    /// The vector that the processor would take now, if interrupts are enabled in it. SDM 3A 11.8.3.
    #[must_use]
    pub fn deliverable(&self) -> Option<u8> {
        let vector = self.irr.highest()?;
        (vector >> 4 > self.processor_priority() >> 4).then_some(vector)
    }

    /// The processor took `vector`: from requested to in service.
    pub const fn acknowledge(&mut self, vector: u8) {
        self.irr.clear(vector);
        self.isr.set(vector);
    }

    /// Takes back an [`acknowledge`](Self::acknowledge): the delivery of `vector` was interrupted, and it is requested again.
    pub const fn withdraw(&mut self, vector: u8) {
        self.isr.clear(vector);
        self.irr.set(vector);
    }

    /// Requests an edge-triggered interrupt, as a message from outside would.
    pub fn accept(&mut self, vector: u8) {
        if self.svr & SOFTWARE_ENABLE == 0 {
            return;
        }
        if vector < FIRST_LEGAL_VECTOR {
            self.raise_error(RECEIVE_ILLEGAL_VECTOR);
            return;
        }
        self.irr.set(vector);
        self.tmr.clear(vector);
    }

    /// SDM 3A 11.8.3.1.
    fn processor_priority(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= in_service >> 4 { self.tpr } else { in_service & 0xF0 }
    }

    fn end_of_interrupt(&mut self) {
        if let Some(vector) = self.isr.highest() {
            self.isr.clear(vector);
        }
    }

    /// Without the software enable all LVT entries are masked and stay so. SDM 3A 11.4.7.2.
    fn write_svr(&mut self, value: u32) -> Result<(), Fault> {
        const WRITABLE: u32 = 0x3FF;
        if value & !WRITABLE != 0 {
            return Err(Fault::Value);
        }
        self.svr = value;
        if value & SOFTWARE_ENABLE == 0 {
            for entry in &mut self.lvt {
                *entry |= MASKED;
            }
        }
        Ok(())
    }

    /// The rules are those of a dedicated core's real APIC, although nothing is wired here to deliver an SMI.
    fn write_lvt(&mut self, index: usize, value: u32) -> Result<(), Fault> {
        let register = LVT_TIMER + index as u32;
        let value = local_vector(register, u64::from(value)).ok_or(Fault::Value)? as u32;
        let Some(entry) = self.lvt.get_mut(index) else {
            return Err(Fault::Absent);
        };
        let forced = if self.svr & SOFTWARE_ENABLE == 0 { MASKED } else { 0 };
        let was = *entry;
        *entry = value | forced;
        // SDM 3A 11.5.4.1: a change to or from TSC-deadline mode disarms the timer.
        if index == TIMER && (was ^ value) >> 18 & 1 == 1 {
            self.due = None;
            self.initial_count = 0;
        }
        Ok(())
    }

    fn mode(&self) -> TimerMode {
        match self.lvt[TIMER] >> 17 & 3 {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            _ => TimerMode::TscDeadline,
        }
    }

    /// SDM 3A 11.5.4, figure 11-10: bits 3, 1, 0 encode 2, 4, .. 128, and 7 means 1.
    const fn divisor_shift(&self) -> u32 {
        let code = (self.divide & 3) | (self.divide >> 1 & 4);
        (code + 1) & 7
    }

    const fn period(&self) -> u64 {
        (self.initial_count as u64) << self.divisor_shift()
    }

    /// Ignored in TSC-deadline mode. SDM 3A 11.5.4.
    fn write_initial_count(&mut self, value: u32, now: u64) {
        if self.mode() == TimerMode::TscDeadline {
            return;
        }
        self.initial_count = value;
        self.due = (value > 0).then(|| now.saturating_add(self.period()));
    }

    fn current_count(&self, now: u64) -> u32 {
        if self.mode() == TimerMode::TscDeadline {
            return 0;
        }
        let left = self.due.map_or(0, |due| due.saturating_sub(now));
        (left >> self.divisor_shift()).min(u64::from(self.initial_count)) as u32
    }

    /// Ignored outside TSC-deadline mode; 0 disarms. SDM 3A 11.5.4.1.
    fn set_deadline(&mut self, value: u64) {
        if self.mode() == TimerMode::TscDeadline {
            self.due = (value > 0).then_some(value);
        }
    }

    /// Fixed interrupts to this very vCPU; whatever would leave it is refused. SDM 3A 11.12.9.
    fn write_icr(&mut self, value: u64) -> Result<(), Fault> {
        // Bits 12 (delivery status), 13, 16, 17, 20-31 are reserved in x2APIC mode; software writes them as 0.
        const RESERVED: u64 = 0xFFF3_3000;
        const SELF: u64 = 1;
        if value & RESERVED != 0 {
            return Err(Fault::Value);
        }
        let shorthand = value >> 18 & 3;
        let delivery = value >> 8 & 7;
        let logical = value >> 11 & 1 == 1;
        let destination = (value >> 32) as u32;
        let to_self = shorthand == SELF || (shorthand == 0 && !logical && destination == self.id);
        if !to_self || delivery != 0 {
            return Err(Fault::Forbidden);
        }
        self.icr = value;
        self.send(value as u8);
        Ok(())
    }

    fn send(&mut self, vector: u8) {
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
        let entry = self.lvt[ERROR];
        let vector = entry as u8;
        if news && entry & MASKED == 0 {
            if vector < FIRST_LEGAL_VECTOR {
                self.esr_pending |= RECEIVE_ILLEGAL_VECTOR;
            } else {
                self.irr.set(vector);
            }
        }
    }

    fn fire(&mut self, index: usize) {
        let entry = self.lvt[index];
        if entry & MASKED == 0 {
            self.accept(entry as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VECTOR_TIMER: u64 = 0x40;
    const DEADLINE_MODE: u64 = 2 << 17;

    fn apic() -> VirtualApic {
        VirtualApic::new(3)
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
        apic.write(LVT_TIMER, VECTOR_TIMER | 1 << 17, 0).unwrap();
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
    fn nothing_leaves_the_vcpu() {
        let mut apic = apic();
        let destination = |id: u64| id << 32;
        for (value, name) in [
            (destination(0) | 0x40, "another core"),
            (destination(3) | 0x40 | 4 << 8, "NMI to itself"),
            (destination(3) | 0x40 | 5 << 8, "INIT to itself"),
            (destination(3) | 0x40 | 2 << 8, "SMI to itself"),
            (destination(3) | 0x40 | 1 << 11, "logical"),
            (0x40 | 2 << 18, "all including self"),
            (0x40 | 3 << 18, "all but self"),
        ] {
            assert_eq!(apic.write(ICR, value, 0), Err(Fault::Forbidden), "{name}");
        }
        assert_eq!(apic.deliverable(), None);
        apic.write(ICR, destination(3) | 0x40, 0).unwrap();
        assert_eq!(apic.deliverable(), Some(0x40));
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
