//! What may be asked of a plan, and how it is written.

use bulkhead_board::pci::Address;
use bulkhead_table::{MAX_CORES, PartitionId};

use super::QueryError;
use crate::plan::Plan;
use crate::reader::{closest, list, shorten};
use crate::units::{Dimension, Quantity, Whole};

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Query {
    /// A host-physical address.
    Host(u64),
    /// A guest-physical address of a partition.
    Guest(PartitionId, u64),
    /// An I/O port.
    Port(u64),
    /// An interrupt of the board, by its number.
    Interrupt(u64),
    /// An interrupt vector.
    Vector(u64),
    /// A PCI function.
    Pci(Address),
    /// A core of the board.
    Core(u64),
    /// An instant, in ticks from the start of a frame; on one core or all, in one plan or all.
    At { ticks: u64, core: Option<u64>, plan: Option<usize> },
    /// All that a partition has.
    Partition(PartitionId),
    /// Where housekeeping runs.
    Housekeeping,
    /// What the hypervisor keeps for itself.
    Hypervisor,
}

/// How each kind of question is written.
pub const FORMS: &[(&str, &str)] = &[
    ("0x2100000", "a host-physical address; \"33 MiB\" and plain numbers do too"),
    ("plc:0x1000", "a guest-physical address of the partition `plc`"),
    ("port 0x3f8", "an I/O port"),
    ("irq 4", "an interrupt; also `vector 0x30`"),
    ("pci 00:1f.2", "a PCI device: bus, device, function"),
    ("core 2", "a core of the board"),
    (
        "at 350 us",
        "an instant of the frame; `at 350 us core 0` on one core, `at 350 us plan NAME` in one plan",
    ),
    ("partition plc", "all that a partition has; its bare name does too"),
    ("housekeeping", "where the logs are drained; also `hypervisor`, what that keeps for itself"),
];

/// First words of questions, for did-you-mean.
const WORDS: [&str; 11] = [
    "port",
    "irq",
    "interrupt",
    "vector",
    "pci",
    "core",
    "at",
    "partition",
    "housekeeping",
    "hypervisor",
    "host",
];

impl Query {
    /// Reads a question about this plan.
    pub fn parse(text: &str, plan: &Plan) -> Result<Self, QueryError> {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        match word {
            "port" => Ok(Self::Port(number(rest, "a port", "port 0x3f8")?)),
            "irq" | "interrupt" => number(rest, "an interrupt", "irq 4").map(Self::Interrupt),
            "vector" => number(rest, "a vector", "vector 0x30").map(Self::Vector),
            "pci" => pci(rest).map(Self::Pci).ok_or_else(|| {
                QueryError::new(
                    format!("`{}` is no PCI device", shorten(rest)),
                    "write bus, device and function in hexadecimal: `pci 00:1f.2`",
                )
            }),
            "core" => Ok(Self::Core(number(rest, "a core", "core 2")?)),
            "at" => instant(rest, plan),
            "partition" => partition(rest, plan).map(Self::Partition),
            "host" => host(rest).ok_or_else(|| no_address(rest)).map(Self::Host),
            "housekeeping" if rest.is_empty() => Ok(Self::Housekeeping),
            "hypervisor" if rest.is_empty() => Ok(Self::Hypervisor),
            _ => Self::bare(text, plan),
        }
    }

    /// An address, a guest's address, or the name of a partition.
    fn bare(text: &str, plan: &Plan) -> Result<Self, QueryError> {
        if let Some((name, address)) = text.split_once(':') {
            let id = partition(name.trim(), plan)?;
            let address = address.trim();
            return host(address).ok_or_else(|| no_address(address)).map(|at| Self::Guest(id, at));
        }
        if let Some(address) = host(text) {
            return Ok(Self::Host(address));
        }
        if let Some(id) = id_of(text, plan) {
            return Ok(Self::Partition(id));
        }
        if Quantity::parse(text, Dimension::Duration).is_ok() {
            return instant(text, plan);
        }
        Err(unknown(text, plan))
    }
}

fn unknown(text: &str, plan: &Plan) -> QueryError {
    let word = text.split_whitespace().next().unwrap_or_default();
    let candidates: Vec<&str> =
        WORDS.into_iter().chain(plan.partitions.iter().map(|p| p.name.as_str())).collect();
    let cause = match text {
        "" => "nothing was asked".to_owned(),
        _ => format!("`{}` is no question that a plan can answer", shorten(text)),
    };
    let remedy = match closest(word, &candidates) {
        Some(close) => format!("did you mean `{close}`?"),
        None => "write it as one of these".to_owned(),
    };
    let forms: Vec<String> =
        FORMS.iter().map(|(form, meaning)| format!("\n          {form:14} {meaning}")).collect();
    QueryError::new(cause, remedy + &forms.concat())
}

fn no_address(text: &str) -> QueryError {
    QueryError::new(
        format!("`{}` is no address", shorten(text)),
        "write a number, such as `0x2100000` or `33 MiB`",
    )
}

fn id_of(name: &str, plan: &Plan) -> Option<PartitionId> {
    let mut ids = plan.partitions.iter().zip(0_u16..);
    ids.find(|(partition, _)| partition.name == name).map(|(_, id)| id)
}

fn partition(name: &str, plan: &Plan) -> Result<PartitionId, QueryError> {
    id_of(name, plan).ok_or_else(|| {
        let names: Vec<&str> = plan.partitions.iter().map(|p| p.name.as_str()).collect();
        let remedy = match closest(name, &names) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("the partitions are {}", list(&names)),
        };
        QueryError::new(format!("there is no partition `{}`", shorten(name)), remedy)
    })
}

/// A number, decimal or hexadecimal.
fn plain(text: &str) -> Option<u64> {
    let digits = text.replace('_', "");
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok()
        }
        Some(_) => None,
        None if digits.starts_with(|c: char| c.is_ascii_digit()) => digits.parse().ok(),
        None => None,
    }
}

fn number(text: &str, what: &str, example: &str) -> Result<u64, QueryError> {
    plain(text).ok_or_else(|| {
        QueryError::new(
            format!("`{}` is not the number of {what}", shorten(text)),
            format!("write it as `{example}`"),
        )
    })
}

/// An address: a number, or a size counted from 0.
fn host(text: &str) -> Option<u64> {
    plain(text).or_else(|| match Quantity::parse(text, Dimension::Size).ok()?.whole() {
        Whole::Exact(bytes) | Whole::Above(bytes) => Some(bytes),
        Whole::TooLarge => None,
    })
}

/// `00:1f.2`, with a segment in front or not.
fn pci(text: &str) -> Option<Address> {
    let (rest, function) = text.rsplit_once('.')?;
    let hexadecimal = |part: &str, most: u16| {
        let digits = part.starts_with(|c: char| c.is_ascii_hexdigit()).then_some(part)?;
        u16::from_str_radix(digits, 16).ok().filter(|number| *number <= most)
    };
    let mut parts = rest.rsplit(':');
    let device = hexadecimal(parts.next()?, 0x1f)?;
    let bus = hexadecimal(parts.next()?, 0xff)?;
    let segment = parts.next().map_or(Some(0), |part| hexadecimal(part, 0xffff))?;
    let function = hexadecimal(function, 7).filter(|_| parts.next().is_none())?;
    Some(Address(segment, bus as u8, device as u8, function as u8))
}

/// `350 us`, then `core N` and `plan NAME` in any order.
fn instant(text: &str, plan: &Plan) -> Result<Query, QueryError> {
    let mut words = text.split_whitespace().peekable();
    let mut duration = String::new();
    while let Some(word) = words.next_if(|word| !["core", "plan"].contains(word)) {
        duration.push_str(word);
    }
    let ticks = ticks(&duration, plan)?;
    let (mut core, mut in_plan) = (None, None);
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        match word {
            "core" => core = Some(number(value, "a core", "at 350 us core 0")?),
            "plan" => in_plan = Some(plan_index(value, plan)?),
            _ => {
                return Err(QueryError::new(
                    format!("`{}` is not understood behind an instant", shorten(word)),
                    "write `at 350 us`, `at 350 us core 0` or `at 350 us plan NAME`",
                ));
            }
        }
    }
    if core.is_some_and(|core| core >= MAX_CORES as u64) {
        return Err(QueryError::new(
            format!("no board has so many cores: {}", core.unwrap_or_default()),
            format!("the board of this system has {}", plan.board_cores()),
        ));
    }
    Ok(Query::At { ticks, core, plan: in_plan })
}

fn ticks(text: &str, plan: &Plan) -> Result<u64, QueryError> {
    let quantity = Quantity::parse(text.trim_matches('"'), Dimension::Duration).ok();
    match quantity.map(|quantity| quantity.to_ticks(plan.tsc_hz())) {
        // An instant between two ticks belongs to the one that it follows.
        Some(Whole::Exact(ticks) | Whole::Above(ticks)) => Ok(ticks),
        _ => Err(QueryError::new(
            format!("`{}` is no instant", shorten(text)),
            "write the time since the start of the frame: `at 350 us`, `at 1000 ticks`",
        )),
    }
}

fn plan_index(name: &str, plan: &Plan) -> Result<usize, QueryError> {
    let names: Vec<&str> = plan.plans().iter().map(String::as_str).collect();
    names.iter().position(|known| *known == name).ok_or_else(|| {
        let remedy = match closest(name, &names) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("the plans are {}", list(&names)),
        };
        QueryError::new(format!("there is no plan `{}`", shorten(name)), remedy)
    })
}
