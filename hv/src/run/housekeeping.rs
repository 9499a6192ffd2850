//! Housekeeping: drains the rings to the serial port, and ends the run when the table says so.
//!
//! Runs on a housekeeping core or in a housekeeping window, never inside a partition's time.
#![expect(unsafe_code, reason = "reads the figures of vCPUs whose cores are parked")]

mod live;
mod told;

use bulkhead_table::abi::CONSOLE_BYTES;
use bulkhead_table::{Partition, PartitionId, Role};
use hv_core::exit::Counters;
use hv_core::health::{Incident, Party, What};
use hv_core::pace;
use hv_core::pc::output::PIECE;
use hv_core::pc::typed::{self, Receiver, Reply};
use hv_core::trace::RECORD_BYTES;
use hv_core::wire::{self, Kind, Packet, Stat, StatKey, channel};

use super::cell::CoreCell;
use super::partition::VcpuIndex;
use super::{defect, incidents, module, partition, pc, percpu, restart, shared};
use crate::cpu::guarded;
use crate::cpu::instructions as machine;
use crate::log::RINGS;
use crate::table::{CORES, PARTITIONS, TABLE};
use crate::text::say;
use crate::vcpu::Vcpu;

/// One packet may take this long to encode, in ticks (160 us); none is begun with less time left in a window.
const ENCODING: u64 = TABLE.board.tsc_hz / 1_000_000 * 160;

/// Filling the serial port's FIFO may take this long, in ticks (25 us: a port access is about one on a board).
const SENDING: u64 = TABLE.board.tsc_hz / 1_000_000 * 25;

/// Emptying that FIFO, and checking and delivering the frame in it, may take this long, in ticks (60 us).
const LISTENING: u64 = TABLE.board.tsc_hz / 1_000_000 * 60;

/// How long the end of the run waits for the other cores, in ticks, before it says that one is missing: a time-shared core
/// may look up only at the end of a window.
const PARKING: u64 = 2 * TABLE.frame + TABLE.board.tsc_hz;

/// How long the last drain may take, in ticks (10 s): only a core that did not park could fill the rings for longer.
const LAST_DRAIN: u64 = 10 * TABLE.board.tsc_hz;

/// Ticks between two records of how a partition stands (50 ms). Twenty records in a second are a tenth of a line of 115,200 baud,
/// however many partitions there are.
const LIVE_INTERVAL: u64 = TABLE.board.tsc_hz / 20;

/// The same of a record of exits by reason (200 ms): each is as long as two or three of the others.
const EXITS_INTERVAL: u64 = TABLE.board.tsc_hz / 5;

/// Bytes of the serial port's FIFO.
const FIFO: usize = 16;

/// A line that a partition's serial port did not end is told after this long, in ticks (20 ms): a prompt.
const PATIENCE: u64 = TABLE.board.tsc_hz / 50;

const _: () = assert!(
    CONSOLE_BYTES < wire::MAX_PAYLOAD && PIECE < wire::MAX_PAYLOAD,
    "a piece of a console and its channel fit into one packet"
);

/// How the run goes on behind a housekeeping window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// The next window comes.
    On,
    /// The module is over: [`end_module`] comes, once the caller holds no state of its core any more.
    Over,
}

/// See [`pace::kick_interval`].
const KICK_INTERVAL: u64 = pace::kick_interval(TABLE.board.tsc_hz);

/// A packet on its way out, and whose turn is next.
struct Drain {
    packet: [u8; wire::MAX_ENCODED],
    length: usize,
    sent: usize,
    next: usize,
    /// By partition: whose turn among its consoles it is.
    consoles: [usize; PARTITIONS],
    greeted: bool,
    /// Reads what is typed.
    typed: Receiver<PARTITIONS>,
    /// What is to be said about a frame of it. Only the latest: a sender has one frame on the line at a time.
    reply: Option<Reply>,
    /// TSC from which on the next record of how a partition stands is due, and the partition whose turn it is.
    live_due: u64,
    live_next: usize,
    /// The same for the records of exits by reason.
    exits_due: u64,
    exits_next: usize,
    /// System-management interrupts that this core had taken when it greeted; `None` where it does not count them.
    smis_before: Option<u32>,
    /// Diagnostics that were dropped, by index of the core in the table.
    lost: [u64; CORES],
}

static DRAIN: CoreCell<Drain> = CoreCell::new(Drain {
    packet: [0; wire::MAX_ENCODED],
    length: 0,
    sent: 0,
    next: 0,
    consoles: [0; PARTITIONS],
    greeted: false,
    typed: Receiver::new(),
    reply: None,
    live_due: 0,
    live_next: 0,
    exits_due: 0,
    exits_next: 0,
    smis_before: None,
    lost: [0; CORES],
});

fn drain() -> &'static mut Drain {
    // SAFETY: the table has one housekeeping core or one core with housekeeping windows, and only that core gets here;
    // the callers below hold the reference only while they run.
    unsafe { DRAIN.get() }
}

/// Drains until `deadline`, or until the module is over.
pub fn run_until(deadline: u64) -> Course {
    loop {
        let now = machine::tsc();
        if now >= deadline {
            return Course::On;
        }
        if module::is_over(now) {
            return Course::Over;
        }
        let drain = drain();
        let left = deadline - now;
        if pc::ANY && left >= LISTENING + SENDING {
            drain.listen();
        }
        let left = deadline.saturating_sub(machine::tsc());
        if left < SENDING || (!drain.is_sending() && left < ENCODING) {
            machine::wait_until(deadline);
        } else if drain.is_sending() {
            drain.transmit();
        } else if !drain.encode_next() && !told::step() {
            core::hint::spin_loop();
        }
    }
}

/// A housekeeping core: drains until the module is over.
pub fn run() -> ! {
    run_until(u64::MAX);
    end_module()
}

impl Drain {
    const fn is_sending(&self) -> bool {
        self.sent < self.length
    }

    /// Hands what was typed to whom it is for; as many bytes as the port's FIFO holds at most, which are one frame.
    fn listen(&mut self) {
        let mut bytes = [0_u8; FIFO];
        let arrived = crate::serial::try_read(&mut bytes);
        if arrived.is_damaged {
            self.typed.spoil();
        }
        for byte in bytes.iter().take(arrived.count) {
            let deliver = |id, bytes: &[u8]| pc::type_to(PartitionId::from(id), bytes);
            self.reply = self.typed.take(*byte, deliver).or(self.reply);
        }
    }

    /// Gives the serial port what its FIFO takes now.
    fn transmit(&mut self) {
        if let Some(rest) = self.packet.get(self.sent..self.length) {
            self.sent += crate::serial::try_write(rest);
        }
    }

    fn encode(&mut self, kind: Kind, source: u8, tsc: u64, payload: &[u8]) {
        let build = crate::boot::build_id();
        let build = [build[0], build[1], build[2], build[3]];
        let packet = Packet { kind, source, build, tsc, payload };
        self.length = wire::encode(&packet, &mut self.packet).map_or(0, <[u8]>::len);
        self.sent = 0;
    }

    /// Encodes the next record of any source, in turn; false when none has one.
    fn encode_next(&mut self) -> bool {
        if !self.greeted {
            self.greeted = true;
            self.smis_before = guarded::smi_count();
            self.encode_hello();
            return true;
        }
        record_machine_nmis();
        if self.encode_defect() {
            return true;
        }
        if let Some(reply) = self.reply.take() {
            self.encode(Kind::Typed, 0, machine::tsc(), &reply.to_bytes());
            return true;
        }
        let sources = CORES + TABLE.partitions.len() + 1;
        for _ in 0..sources {
            let source = self.next;
            self.next = (source + 1) % sources;
            if self.encode_from(source) {
                return true;
            }
        }
        false
    }

    fn encode_hello(&mut self) {
        let mut payload = [0_u8; 61];
        payload[..20].copy_from_slice(&crate::boot::build_id());
        payload[20..52].copy_from_slice(&TABLE.digest);
        payload[52..60].copy_from_slice(&TABLE.board.tsc_hz.to_le_bytes());
        payload[60] = if pc::ANY { typed::PROTOCOL } else { 0 };
        self.encode(Kind::Hello, 0, machine::tsc(), &payload);
    }

    /// The last words of a core that was lost.
    fn encode_defect(&mut self) -> bool {
        let Some((core, words)) = defect::take_words() else {
            return false;
        };
        let cpu = TABLE.cores.get(core).map_or(0, |core| core.cpu as u8);
        self.encode(Kind::Defect, cpu, words.tsc, words.bytes());
        true
    }

    /// Sources are the cores' incidents and logs, then the partitions' consoles, then how the partitions stand.
    fn encode_from(&mut self, source: usize) -> bool {
        if let Some(core) = TABLE.cores.get(source) {
            return self.encode_log(source, core.cpu as u8);
        }
        let id = source - CORES;
        match TABLE.partitions.get(id) {
            Some(partition) => self.encode_any_console(id as PartitionId, partition),
            None => self.encode_live(),
        }
    }

    /// What a core says: how much it dropped, its oldest incident, its oldest message. `cpu` is its number on the board.
    fn encode_log(&mut self, core: usize, cpu: u8) -> bool {
        let Some(ring) = RINGS.get(core) else {
            return false;
        };
        let lost = ring.take_lost().saturating_add(incidents::take_lost(core));
        if lost > 0 {
            if let Some(sum) = self.lost.get_mut(core) {
                *sum += u64::from(lost);
            }
            self.encode(Kind::Lost, cpu, machine::tsc(), &lost.to_le_bytes());
            return true;
        }
        if let Some((tsc, incident)) = incidents::take(core) {
            told::take_incident(&incident);
            self.encode(Kind::Incident, cpu, tsc, &incident);
            return true;
        }
        let mut payload = [0_u8; wire::MAX_PAYLOAD];
        let Some(record) = ring.pop(&mut payload) else {
            return false;
        };
        let Some(kind) = Kind::of_core(record.tag) else {
            ring.count_lost();
            return false;
        };
        let bytes = payload.get(..record.length).unwrap_or_default();
        self.encode(kind, cpu, record.tsc, bytes);
        true
    }

    /// What a partition says: its vCPUs by hypercall, its serial port and its console page, in turn.
    fn encode_any_console(&mut self, id: PartitionId, partition: &'static Partition) -> bool {
        let count = partition.cpus.len() + 2;
        let next = self.consoles.get(usize::from(id)).copied().unwrap_or(0);
        let turns = (0..count).map(|turn| (next + turn) % count);
        for number in turns {
            if self.encode_one_console(id, partition, number) {
                if let Some(next) = self.consoles.get_mut(usize::from(id)) {
                    *next = (number + 1) % count;
                }
                return true;
            }
        }
        false
    }

    fn encode_one_console(
        &mut self,
        id: PartitionId,
        partition: &Partition,
        number: usize,
    ) -> bool {
        match number.checked_sub(partition.cpus.len()) {
            None => self.encode_vcpu(id, partition, number),
            Some(0) => self.encode_sent(id),
            Some(_) => self.encode_said(id),
        }
    }

    fn encode_vcpu(&mut self, id: PartitionId, partition: &Partition, vcpu: usize) -> bool {
        let mut payload = [0_u8; wire::MAX_PAYLOAD];
        let ring = VcpuIndex::nth(partition, vcpu).and_then(VcpuIndex::console);
        let Some(record) = ring.and_then(|ring| ring.pop(&mut payload)) else {
            return false;
        };
        let bytes = payload.get(..record.length).unwrap_or_default();
        self.encode_console(id, vcpu as u8, record.tsc, bytes);
        true
    }

    /// What the guest left in its console page.
    fn encode_said(&mut self, id: PartitionId) -> bool {
        let mut bytes = [0; PIECE];
        let taken = pc::with_console_page(id, |page| page.take(&mut bytes).len());
        let bytes = taken.and_then(|length| bytes.get(..length)).unwrap_or_default();
        if !bytes.is_empty() {
            self.encode_console(id, channel::PAGE, machine::tsc(), bytes);
        }
        !bytes.is_empty()
    }

    /// What the serial port of a partition sent.
    fn encode_sent(&mut self, id: PartitionId) -> bool {
        let mut bytes = [0; PIECE];
        let taken = pc::devices(id)
            .and_then(|devices| devices.uart.output.take(machine::tsc(), PATIENCE, &mut bytes));
        if let Some((bytes, tsc)) = taken {
            self.encode_console(id, channel::SERIAL, tsc, bytes);
        }
        taken.is_some()
    }

    /// Bytes of a console: at most [`CONSOLE_BYTES`] or [`PIECE`].
    fn encode_console(&mut self, id: PartitionId, channel: u8, tsc: u64, bytes: &[u8]) {
        let mut payload = heapless::Vec::<u8, { wire::MAX_PAYLOAD }>::new();
        // Fits: see the assertion at `CONSOLE_BYTES`.
        let _fits = payload.push(channel).is_ok() && payload.extend_from_slice(bytes).is_ok();
        self.encode(Kind::Console, id as u8, tsc, &payload);
    }

    /// How the partition whose turn it is stands, when that is due.
    fn encode_live(&mut self) -> bool {
        // Memory would fill with figures that nobody reads while they are fresh.
        if told::NEEDED {
            return false;
        }
        let now = machine::tsc();
        if now < self.live_due {
            return self.encode_exits(now);
        }
        self.live_due = now + LIVE_INTERVAL;
        let id = self.live_next;
        self.live_next = (id + 1) % TABLE.partitions.len().max(1);
        let Some(live) = live::of(id as PartitionId) else {
            return false;
        };
        self.encode(Kind::Live, id as u8, now, &live.to_bytes());
        true
    }

    /// Exits by reason of the partition whose turn it is, when that is due.
    fn encode_exits(&mut self, now: u64) -> bool {
        if now < self.exits_due {
            return false;
        }
        self.exits_due = now + EXITS_INTERVAL;
        let id = self.exits_next;
        self.exits_next = (id + 1) % TABLE.partitions.len().max(1);
        let Some(payload) = live::exits(id as PartitionId) else {
            return false;
        };
        self.encode(Kind::Exits, id as u8, now, &payload);
        true
    }

    /// Sends one packet and waits for the serial port: only once nobody else runs.
    fn send(&mut self, kind: Kind, source: u8, payload: &[u8]) {
        self.encode(kind, source, machine::tsc(), payload);
        self.flush();
    }

    fn flush(&mut self) {
        while self.is_sending() {
            self.transmit();
        }
    }
}

/// NMIs of the machine that came to time-shared cores become incidents of this core, which tells them.
fn record_machine_nmis() {
    for (index, core) in TABLE.cores.iter().enumerate() {
        let count = u64::from(module::take_machine_nmis(index));
        if count > 0 {
            incidents::record(Incident {
                what: What::MachineNmi { count, cpu: u64::from(core.cpu) },
                subject: Party::Hypervisor,
                offender: Party::Hypervisor,
                frame: module::frame_at(machine::tsc()),
            });
        }
    }
}

/// The orderly end: all cores parked, all rings drained, all figures told, then power off.
pub fn end_module() -> ! {
    module::stop();
    let all_parked = park_others();
    if all_parked {
        crate::memory::see_all_cores();
    }
    let drain = drain();
    drain.flush();
    let until = machine::tsc() + LAST_DRAIN;
    while machine::tsc() < until && drain.encode_next() {
        drain.flush();
    }
    if all_parked {
        send_figures(drain);
        send_traces(drain);
    }
    drain.send(Kind::End, 0, &[]);
    told::say_end();
    crate::serial::end_memory();
    power_off(all_parked)
}

/// Kicks dedicated cores until every other core is parked.
fn park_others() -> bool {
    let begun = machine::tsc();
    let mut next_kick = begun;
    while module::parked() < CORES - 1 {
        let now = machine::tsc();
        if now - begun > PARKING {
            return false;
        }
        if now >= next_kick {
            next_kick = now + KICK_INTERVAL;
            kick_dedicated();
        }
        core::hint::spin_loop();
    }
    true
}

fn kick_dedicated() {
    let me = percpu::core_index();
    for (index, core) in TABLE.cores.iter().enumerate() {
        if let (Role::Dedicated(_), Some(apic_id)) =
            (core.role, TABLE.board.apic_ids.get(usize::from(core.cpu)))
            && Some(index) != me
        {
            machine::send_nmi(*apic_id);
        }
    }
}

fn send_figures(drain: &mut Drain) {
    let (lost, smis_before) = (drain.lost, drain.smis_before);
    let mut tell = |key, subject: usize, detail: usize, value| {
        let stat = Stat { key, subject: subject as u16, detail: detail as u32, value };
        drain.send(Kind::Stat, 0, &stat.to_bytes());
    };
    let machine = crate::boot::machine();
    tell(StatKey::HypervisorEntry, 0, 0, machine.entry_tsc);
    tell(StatKey::Epoch, 0, 0, module::epoch());
    tell(StatKey::TscHz, 0, 0, machine.tsc_hz);
    tell(StatKey::TscSkew, 0, 0, machine.tsc_skew);
    tell(StatKey::PerCpuBytes, 0, 0, partition::PER_CPU_BYTES as u64);
    let power = TABLE.board.power;
    for (detail, owned) in [power.turbo_off, power.base_frequency, power.c1_only].iter().enumerate()
    {
        tell(StatKey::Power, 0, detail, u64::from(*owned));
    }
    if let Some((before, now)) = smis_before.zip(guarded::smi_count()) {
        tell(StatKey::Smis, 0, 0, u64::from(now.wrapping_sub(before)));
    }
    for index in 0..TABLE.partitions.len() {
        tell_partition(index, &mut tell);
    }
    for (index, core) in TABLE.cores.iter().enumerate() {
        let dropped = lost.get(index).copied().unwrap_or(0);
        tell(StatKey::LogLost, usize::from(core.cpu), 0, dropped);
        // SAFETY: every other core is parked, and this one's callers hold no reference to its state (`Course::Over`).
        if let Some(state) = unsafe { shared::state(index) }
            && state.switch_min <= state.switch_max
        {
            tell(StatKey::SwitchMax, usize::from(core.cpu), 0, state.switch_max);
            tell(StatKey::SwitchMin, usize::from(core.cpu), 0, state.switch_min);
            for (step, most) in state.steps.iter().enumerate() {
                tell(StatKey::SwitchStep, usize::from(core.cpu), step, *most);
            }
        }
    }
}

/// The windows that ran last, core by core.
fn send_traces(drain: &mut Drain) {
    const PER_PACKET: usize = wire::MAX_PAYLOAD / RECORD_BYTES;
    for (index, core) in TABLE.cores.iter().enumerate() {
        // SAFETY: every other core is parked, and this one runs no windows any more.
        let Some(trace) = (unsafe { shared::trace(index) }) else {
            continue;
        };
        let mut payload = heapless::Vec::<u8, { wire::MAX_PAYLOAD }>::new();
        for (position, record) in trace.iter().enumerate() {
            if position > 0 && position % PER_PACKET == 0 {
                drain.send(Kind::Windows, core.cpu as u8, &payload);
                payload.clear();
            }
            // Fits: the payload holds PER_PACKET records.
            let _fits = payload.extend_from_slice(&record.to_bytes());
        }
        if !payload.is_empty() {
            drain.send(Kind::Windows, core.cpu as u8, &payload);
        }
    }
}

fn tell_partition(index: usize, tell: &mut impl FnMut(StatKey, usize, usize, u64)) {
    let fate = module::fate(index);
    tell(StatKey::Fate, index, 0, fate.code());
    let Some(partition) = TABLE.partitions.get(index) else {
        return;
    };
    // Of a partition that was refused, vCPUs may not have been made.
    // SAFETY: their cores are parked or this one, which runs no guest any more.
    let made = VcpuIndex::of(partition).map(|vcpu| unsafe { partition::vcpu(vcpu) });
    let mut sum = Counters::new();
    for (number, vcpu) in made.enumerate().filter_map(|(number, vcpu)| Some((number, vcpu?))) {
        sum.add(&vcpu.state.counters);
        tell_vcpu(index, number, vcpu, tell);
    }
    for (kind, count) in sum.exits.iter().enumerate().filter(|(_, count)| **count > 0) {
        tell(StatKey::Exits, index, kind, *count);
    }
    for (kind, count) in sum.denied.iter().enumerate().filter(|(_, count)| **count > 0) {
        tell(StatKey::Denied, index, kind, *count);
    }
    if let Some(devices) = pc::devices(index as PartitionId) {
        tell(StatKey::ConsoleLost, index, 0, u64::from(devices.uart.take_lost()));
        let restarts = restart::count(index as PartitionId);
        tell(StatKey::Restarts, index, 0, u64::from(restarts));
    }
    if let Some(span) = &sum.span {
        tell_span(index, span, tell);
    }
}

fn tell_vcpu(
    index: usize,
    number: usize,
    vcpu: &Vcpu,
    tell: &mut impl FnMut(StatKey, usize, usize, u64),
) {
    tell(StatKey::FirstEntry, index, number, vcpu.first_entry);
    if vcpu.stopped_at > 0 {
        tell(StatKey::StoppedAt, index, number, vcpu.stopped_at);
    }
    if vcpu.windows.run > 0 {
        tell(StatKey::WindowsRun, index, number, vcpu.windows.run);
        tell(StatKey::WindowsLate, index, number, vcpu.windows.late);
        tell(StatKey::WindowLatenessMax, index, number, vcpu.windows.latest);
        tell(StatKey::WindowLatenessMin, index, number, vcpu.windows.earliest);
    }
}

/// Exits of the measured span by kind, or one zero that says that there were none.
fn tell_span(index: usize, span: &[u64], tell: &mut impl FnMut(StatKey, usize, usize, u64)) {
    if span.iter().all(|count| *count == 0) {
        tell(StatKey::SpanExits, index, 0, 0);
    }
    for (kind, count) in span.iter().enumerate().filter(|(_, count)| **count > 0) {
        tell(StatKey::SpanExits, index, kind, *count);
    }
}

fn power_off(all_parked: bool) -> ! {
    if !all_parked {
        say!("Bulkhead: a core did not stop; figures are left out.");
    }
    crate::serial::wait_until_sent();
    if let Some(power_off) = TABLE.board.power_off {
        for byte in power_off.bytes {
            machine::write_port(power_off.port, *byte);
        }
    }
    say!("Bulkhead: the module has ended; switch the machine off.");
    machine::halt_for_ever()
}
