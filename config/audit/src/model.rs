//! The table as the audit holds it: what `bulkhead_table` defines, owned, so that it can come out of an image.

use bulkhead_table::{
    Hygiene, HygieneCosts, Image, Owner, PartitionId, Platform, Power, Range, Region, Uart, Window,
};

use crate::proof::Party;

/// A whole system. Fields as in [`bulkhead_table::PartitionTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table's own fields, documented there")]
pub struct System {
    pub format: u32,
    pub system: String,
    pub digest: [u8; 32],
    pub board: Board,
    pub hypervisor: Range,
    pub partitions: Vec<Partition>,
    pub cores: Vec<Core>,
    pub frame: u64,
    pub plans: Vec<String>,
    pub log_windows: bool,
    pub shutdown: Option<Shutdown>,
}

/// The board. Fields as in [`bulkhead_table::Board`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table's own fields, documented there")]
pub struct Board {
    pub name: String,
    pub apic_ids: Vec<u32>,
    pub memory: Vec<Range>,
    pub tsc_hz: u64,
    pub tsc_tolerance_ppm: u32,
    pub tsc_vouched: bool,
    pub tsc_skew: u64,
    pub switch_budget: u64,
    pub hygiene: HygieneCosts,
    pub uart: Option<Uart>,
    pub log_memory: Range,
    pub large_code_pages: bool,
    pub power: Power,
    pub power_off: Option<PowerOff>,
}

/// How the machine is switched off. Fields as in [`bulkhead_table::PowerOff`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table's own fields, documented there")]
pub struct PowerOff {
    pub port: u16,
    pub bytes: Vec<u8>,
}

/// A partition. Fields as in [`bulkhead_table::Partition`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table's own fields, documented there")]
pub struct Partition {
    pub name: String,
    pub place: String,
    pub cpus: Vec<u16>,
    pub first_vcpu: u16,
    pub platform: Platform,
    pub image: Image,
    pub memory: Vec<Region>,
    pub ept_pages: u64,
    pub boot_info: Vec<u8>,
    pub boot_info_at: u64,
    pub schedule_at: u64,
    pub may_switch_plan: bool,
    pub donates_to: Option<PartitionId>,
    pub hygiene: Hygiene,
}

/// A core. Fields as in [`bulkhead_table::Core`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table's own fields, documented there")]
pub struct Core {
    pub cpu: u16,
    pub role: Role,
}

/// What a core does. Variants as in [`bulkhead_table::Role`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table's own variants, documented there")]
pub enum Role {
    Dedicated(PartitionId),
    Shared(Vec<Vec<Window>>),
    Housekeeping,
}

/// When the system ends. Fields as in [`bulkhead_table::Shutdown`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table's own fields, documented there")]
pub struct Shutdown {
    pub when_finished: Vec<PartitionId>,
    pub at_latest: u64,
}

impl System {
    /// The partition with this id, as a fault names it; a number that is none is named as such.
    pub(crate) fn party(&self, id: PartitionId) -> Party {
        self.partitions.get(usize::from(id)).map_or_else(
            || Party::thing(format!("partition number {id}, which there is not")),
            Partition::party,
        )
    }

    /// The owner of a window.
    pub(crate) fn owner(&self, owner: Owner) -> Party {
        match owner {
            Owner::Partition(id) => self.party(id),
            Owner::Housekeeping => Party::thing("housekeeping"),
        }
    }

    /// The core with this number of the board.
    pub(crate) fn core(&self, cpu: u16) -> Option<&Core> {
        self.cores.iter().find(|core| core.cpu == cpu)
    }

    /// Windows of all cores in all plans.
    pub(crate) fn windows(&self) -> usize {
        self.cores.iter().flat_map(Core::plans).map(Vec::len).sum()
    }
}

impl Partition {
    /// This partition, as a fault names it.
    pub(crate) fn party(&self) -> Party {
        let name = format!("partition {}", self.name);
        Party { name, place: Some(self.place.clone()) }
    }
}

impl Core {
    /// Lists of windows by plan; none on a core that is not time-shared.
    pub(crate) fn plans(&self) -> &[Vec<Window>] {
        match &self.role {
            Role::Shared(plans) => plans,
            Role::Dedicated(_) | Role::Housekeeping => &[],
        }
    }

    /// Whether `partition` may run here in some plan.
    pub(crate) fn runs(&self, partition: PartitionId) -> bool {
        match &self.role {
            Role::Dedicated(id) => *id == partition,
            Role::Housekeeping => false,
            Role::Shared(plans) => {
                plans.iter().flatten().any(|window| window.owner == Owner::Partition(partition))
            }
        }
    }
}
