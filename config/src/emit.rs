//! Writes the proven system as Rust source: the static table and the sizes of the hypervisor's pools.

use bulkhead_table::{
    FORMAT, Hygiene, HygieneCosts, Owner, Platform, Power, Range, Region, Uart, Window,
};
use proc_macro2::{Literal, TokenStream};
use quote::quote;

use crate::plan::{Plan, PlannedBoard, PlannedCore, PlannedPartition, PlannedRole};
use crate::{Compiled, Module};

/// The source of the table.
pub(crate) fn emit(compiled: &Compiled) -> String {
    let plan = compiled.plan();
    let table = table(compiled);
    let partitions = plan.partitions.len();
    let cores = plan.cores.len();
    let vcpus: usize = plan.partitions.iter().map(|partition| partition.cpus.len()).sum();
    let ept_pages: usize = plan.partitions.iter().map(|partition| partition.ept_pages).sum();
    let tokens = quote! {
        /// How many partitions the table has.
        pub const PARTITIONS: usize = #partitions;
        /// How many vCPUs all partitions have together.
        pub const VCPUS: usize = #vcpus;
        /// How many cores the system uses.
        pub const CORES: usize = #cores;
        /// Pages that the nested page tables of all partitions take together.
        pub const EPT_PAGES: usize = #ept_pages;
        /// The system, as proven at build time.
        pub static TABLE: ::bulkhead_table::PartitionTable = #table;
    };
    let header = format!(
        "// The static table of the system `{}`, written by bulkhead-config from {}. Edit that file, not this one.\n\n",
        plan.system, plan.system_file
    );
    // The tokens are ours, from checked values; should they ever not parse, the compiler that reads them says so.
    let body = match syn::parse2::<syn::File>(tokens.clone()) {
        Ok(file) => prettyplease::unparse(&file),
        Err(_) => tokens.to_string(),
    };
    header + &body
}

fn table(compiled: &Compiled) -> TokenStream {
    let plan = compiled.plan();
    let format = Literal::u32_unsuffixed(FORMAT);
    let system = &plan.system;
    let digest = bytes(&compiled.digest());
    let board = board(&plan.board, plan.log_memory());
    let hypervisor = range(&plan.board.hypervisor);
    let partitions = plan.partitions.iter().zip(&compiled.images).zip(compiled.modules());
    let partitions = partitions
        .zip(first_vcpus(plan))
        .map(|(((planned, image), module), first)| partition(planned, first, image, module));
    let cores = plan.cores.iter().map(core);
    let frame = Literal::u64_unsuffixed(plan.frame);
    let plans = &plan.plans;
    let log_windows = plan.log_windows;
    let shutdown = shutdown(plan);
    quote! {
        ::bulkhead_table::PartitionTable {
            format: #format,
            system: #system,
            digest: #digest,
            board: #board,
            hypervisor: #hypervisor,
            partitions: &[#(#partitions),*],
            cores: &[#(#cores),*],
            frame: #frame,
            plans: &[#(#plans),*],
            log_windows: #log_windows,
            shutdown: #shutdown,
        }
    }
}

/// Index of each partition's vCPU 0 among all.
fn first_vcpus(plan: &Plan) -> impl Iterator<Item = u16> {
    plan.partitions.iter().scan(0_u16, |next, partition| {
        let first = *next;
        // 64 partitions of 256 cores are fewer than a u16 counts.
        *next = next.saturating_add(partition.cpus.len() as u16);
        Some(first)
    })
}

fn board(board: &PlannedBoard, log_memory: Option<Range>) -> TokenStream {
    let name = &board.name;
    let apic_ids = board.apic_ids.iter().map(|id| Literal::u32_unsuffixed(*id));
    let memory = board.memory.iter().map(range);
    let hz = Literal::u64_unsuffixed(board.clock.hz);
    let ppm = Literal::u32_unsuffixed(board.clock.tolerance_ppm);
    let vouched = board.clock.vouched;
    let skew = Literal::u64_unsuffixed(board.clock.skew);
    let budget = Literal::u64_unsuffixed(board.clock.switch_budget);
    let HygieneCosts { l1d_flush, branch_barrier, buffer_clear } = board.hygiene;
    let [l1d_flush, branch_barrier, buffer_clear] =
        [l1d_flush, branch_barrier, buffer_clear].map(Literal::u64_unsuffixed);
    let uart = match &board.uart {
        None => quote!(None),
        Some(uart) => {
            let uart = serial(uart);
            quote!(Some(&#uart))
        }
    };
    let log_memory = range(&log_memory.unwrap_or(Range { start: 0, size: 0 }));
    let power_off = match &board.power_off {
        None => quote!(None),
        Some((port, text)) => {
            let (port, text) = (hex((*port).into()), Literal::byte_string(text));
            quote!(Some(&::bulkhead_table::PowerOff { port: #port, bytes: #text }))
        }
    };
    let large_code_pages = board.large_code_pages;
    let Power { turbo_off, base_frequency, c1_only } = board.power;
    quote! {
        ::bulkhead_table::Board {
            name: #name,
            apic_ids: &[#(#apic_ids),*],
            memory: &[#(#memory),*],
            tsc_hz: #hz,
            tsc_tolerance_ppm: #ppm,
            tsc_vouched: #vouched,
            tsc_skew: #skew,
            switch_budget: #budget,
            hygiene: ::bulkhead_table::HygieneCosts {
                l1d_flush: #l1d_flush,
                branch_barrier: #branch_barrier,
                buffer_clear: #buffer_clear,
            },
            uart: #uart,
            log_memory: #log_memory,
            large_code_pages: #large_code_pages,
            power: ::bulkhead_table::Power {
                turbo_off: #turbo_off,
                base_frequency: #base_frequency,
                c1_only: #c1_only,
            },
            power_off: #power_off,
        }
    }
}

fn serial(uart: &Uart) -> TokenStream {
    let (base, in_memory) = (hex(uart.base), uart.in_memory);
    let stride = Literal::u8_unsuffixed(uart.stride);
    let width = Literal::u8_unsuffixed(uart.width);
    let clock = Literal::u32_unsuffixed(uart.clock);
    let baud = Literal::u32_unsuffixed(uart.baud);
    quote! {
        ::bulkhead_table::Uart {
            base: #base,
            in_memory: #in_memory,
            stride: #stride,
            width: #width,
            clock: #clock,
            baud: #baud,
        }
    }
}

fn partition(
    planned: &PlannedPartition,
    first_vcpu: u16,
    image: &crate::image::FlatImage,
    module: &Module,
) -> TokenStream {
    let (name, place) = (&planned.name, &planned.place);
    let cpus = planned.cpus.iter().map(|cpu| Literal::u16_unsuffixed(*cpu));
    let first_vcpu = Literal::u16_unsuffixed(first_vcpu);
    let platform = match planned.platform {
        Platform::Bare => quote!(::bulkhead_table::Platform::Bare),
        Platform::Pc => quote!(::bulkhead_table::Platform::Pc),
    };
    let size = Literal::u64_unsuffixed(module.bytes.len() as u64);
    let digest = bytes(&module.digest);
    let (load_at, entry) = (hex(image.load_at), hex(image.entry));
    let memory = planned.regions.iter().map(region);
    let ept_pages = Literal::usize_unsuffixed(planned.ept_pages);
    let (boot_info_at, boot_info) = match &image.boot_info {
        Some(info) => (info.at, &info.bytes),
        None => (crate::boot_info::ADDRESS, &planned.boot_info),
    };
    let (boot_info_at, boot_info) = (hex(boot_info_at), Literal::byte_string(boot_info));
    let schedule_at = hex(planned.schedule.map_or(0, |pages| pages.start));
    let may_switch_plan = planned.may_switch_plan;
    let donates_to = match planned.donates_to.map(Literal::u16_unsuffixed) {
        None => quote!(None),
        Some(id) => quote!(Some(&#id)),
    };
    let Hygiene { l1d_flush, branch_barrier, buffer_clear } = planned.hygiene;
    quote! {
        ::bulkhead_table::Partition {
            name: #name,
            place: #place,
            cpus: &[#(#cpus),*],
            first_vcpu: #first_vcpu,
            platform: #platform,
            image: ::bulkhead_table::Image {
                size: #size,
                digest: #digest,
                load_at: #load_at,
                entry: #entry,
            },
            memory: &[#(#memory),*],
            ept_pages: #ept_pages,
            boot_info: #boot_info,
            boot_info_at: #boot_info_at,
            schedule_at: #schedule_at,
            may_switch_plan: #may_switch_plan,
            donates_to: #donates_to,
            hygiene: ::bulkhead_table::Hygiene {
                l1d_flush: #l1d_flush,
                branch_barrier: #branch_barrier,
                buffer_clear: #buffer_clear,
            },
        }
    }
}

fn region(region: &Region) -> TokenStream {
    let (guest, host, size) = (hex(region.guest), hex(region.host), hex(region.size));
    let (read, write, execute) = (region.rights.read, region.rights.write, region.rights.execute);
    quote! {
        ::bulkhead_table::Region {
            guest: #guest,
            host: #host,
            size: #size,
            rights: ::bulkhead_table::Rights { read: #read, write: #write, execute: #execute },
        }
    }
}

fn core(core: &PlannedCore) -> TokenStream {
    let cpu = Literal::u16_unsuffixed(core.cpu);
    let role = match &core.role {
        PlannedRole::Dedicated(id) => {
            let id = Literal::u16_unsuffixed(*id);
            quote!(::bulkhead_table::Role::Dedicated(#id))
        }
        PlannedRole::Housekeeping => quote!(::bulkhead_table::Role::Housekeeping),
        PlannedRole::Shared(plans) => {
            let plans = plans.iter().map(|windows| {
                let windows = windows.iter().map(window);
                quote!(&[#(#windows),*])
            });
            quote!(::bulkhead_table::Role::Shared(&[#(#plans),*]))
        }
    };
    quote!(::bulkhead_table::Core { cpu: #cpu, role: #role })
}

fn window(window: &Window) -> TokenStream {
    let start = Literal::u64_unsuffixed(window.start);
    let length = Literal::u64_unsuffixed(window.length);
    let budget = Literal::u64_unsuffixed(window.budget);
    let owner = match window.owner {
        Owner::Housekeeping => quote!(::bulkhead_table::Owner::Housekeeping),
        Owner::Partition(id) => {
            let id = Literal::u16_unsuffixed(id);
            quote!(::bulkhead_table::Owner::Partition(#id))
        }
    };
    quote! {
        ::bulkhead_table::Window { start: #start, length: #length, budget: #budget, owner: #owner }
    }
}

fn shutdown(plan: &Plan) -> TokenStream {
    let Some(shutdown) = &plan.shutdown else {
        return quote!(None);
    };
    let ids = shutdown.when_finished.iter().map(|id| Literal::u16_unsuffixed(*id));
    let at_latest = Literal::u64_unsuffixed(shutdown.at_latest);
    quote! {
        Some(&::bulkhead_table::Shutdown { when_finished: &[#(#ids),*], at_latest: #at_latest })
    }
}

fn range(range: &Range) -> TokenStream {
    let (start, size) = (hex(range.start), hex(range.size));
    quote!(::bulkhead_table::Range { start: #start, size: #size })
}

fn bytes(bytes: &[u8]) -> TokenStream {
    let bytes = bytes.iter().map(|byte| Literal::u8_unsuffixed(*byte));
    quote!([#(#bytes),*])
}

/// An address or a size in bytes reads best in hexadecimal.
fn hex(value: u64) -> Literal {
    format!("{value:#x}").parse().unwrap_or_else(|_| Literal::u64_unsuffixed(value))
}
