//! Reads the emitted table out of its Rust source, so that the very text that the hypervisor is compiled from is audited.

use bulkhead_audit::model::{Board, Core, Partition, PowerOff, Role, Shutdown, System};
use bulkhead_table::{
    Hygiene, HygieneCosts, Image, Owner, Platform, Power, Range, Region, Rights, Uart, Window,
};
use quote::ToTokens;
use syn::{Expr, ExprLit, Item, Lit};

/// The table in an emitted source.
pub fn table(source: &str) -> System {
    let file = syn::parse_file(source).unwrap();
    let table = file.items.into_iter().find_map(|item| match item {
        Item::Static(item) if item.ident == "TABLE" => Some(*item.expr),
        _ => None,
    });
    system(&Value(table.unwrap()))
}

fn shown(tokens: &impl ToTokens) -> String {
    tokens.to_token_stream().to_string()
}

/// A constant expression.
struct Value(Expr);

impl Value {
    fn field(&self, name: &str) -> Self {
        let Expr::Struct(structure) = &self.0 else { panic!("no structure: {}", shown(&self.0)) };
        let named = |field: &&syn::FieldValue| matches!(&field.member, syn::Member::Named(member) if member == name);
        Self(
            structure.fields.iter().find(named).unwrap_or_else(|| panic!("no {name}")).expr.clone(),
        )
    }

    fn literal(&self) -> &Lit {
        match &self.0 {
            Expr::Lit(ExprLit { lit, .. }) => lit,
            other => panic!("no literal: {}", shown(&other)),
        }
    }

    fn number(&self) -> u64 {
        match self.literal() {
            Lit::Int(number) => number.base10_parse().unwrap(),
            other => panic!("no number: {}", shown(&other)),
        }
    }

    fn half(&self) -> u16 {
        self.number().try_into().unwrap()
    }

    fn long(&self) -> u32 {
        self.number().try_into().unwrap()
    }

    fn flag(&self) -> bool {
        matches!(self.literal(), Lit::Bool(flag) if flag.value)
    }

    fn text(&self) -> String {
        match self.literal() {
            Lit::Str(text) => text.value(),
            other => panic!("no text: {}", shown(&other)),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match &self.0 {
            Expr::Array(_) => self.list(|value| value.number().try_into().unwrap()),
            _ => match self.literal() {
                Lit::ByteStr(bytes) => bytes.value(),
                other => panic!("no bytes: {}", shown(&other)),
            },
        }
    }

    /// What a reference leads to; the value itself when it is none.
    fn target(&self) -> Self {
        match &self.0 {
            Expr::Reference(reference) => Self((*reference.expr).clone()),
            other => Self(other.clone()),
        }
    }

    fn list<T>(&self, each: impl Fn(&Self) -> T) -> Vec<T> {
        match self.target().0 {
            Expr::Array(array) => array.elems.into_iter().map(|value| each(&Self(value))).collect(),
            other => panic!("no list: {}", shown(&other)),
        }
    }

    /// The name of a variant, and what it holds.
    fn variant(&self) -> (String, Option<Self>) {
        let (path, content) = match &self.0 {
            Expr::Path(path) => (path.path.clone(), None),
            Expr::Call(call) => match &*call.func {
                Expr::Path(path) => (path.path.clone(), call.args.first().cloned().map(Self)),
                other => panic!("no variant: {}", shown(&other)),
            },
            other => panic!("no variant: {}", shown(&other)),
        };
        (path.segments.last().unwrap().ident.to_string(), content)
    }

    fn option(&self) -> Option<Self> {
        let (name, content) = self.variant();
        assert!(["None", "Some"].contains(&name.as_str()), "{name}");
        content.map(|value| value.target())
    }
}

fn system(value: &Value) -> System {
    System {
        format: value.field("format").long(),
        system: value.field("system").text(),
        digest: value.field("digest").bytes().try_into().unwrap(),
        board: board(&value.field("board")),
        hypervisor: range(&value.field("hypervisor")),
        partitions: value.field("partitions").list(partition),
        cores: value.field("cores").list(core),
        frame: value.field("frame").number(),
        plans: value.field("plans").list(Value::text),
        log_windows: value.field("log_windows").flag(),
        shutdown: value.field("shutdown").option().map(|value| Shutdown {
            when_finished: value.field("when_finished").list(Value::half),
            at_latest: value.field("at_latest").number(),
        }),
    }
}

fn board(value: &Value) -> Board {
    let power = value.field("power");
    let hygiene = value.field("hygiene");
    Board {
        name: value.field("name").text(),
        apic_ids: value.field("apic_ids").list(Value::long),
        memory: value.field("memory").list(range),
        tsc_hz: value.field("tsc_hz").number(),
        tsc_tolerance_ppm: value.field("tsc_tolerance_ppm").long(),
        tsc_vouched: value.field("tsc_vouched").flag(),
        tsc_skew: value.field("tsc_skew").number(),
        switch_budget: value.field("switch_budget").number(),
        hygiene: HygieneCosts {
            l1d_flush: hygiene.field("l1d_flush").number(),
            branch_barrier: hygiene.field("branch_barrier").number(),
            buffer_clear: hygiene.field("buffer_clear").number(),
        },
        uart: value.field("uart").option().map(|uart| Uart {
            base: uart.field("base").number(),
            in_memory: uart.field("in_memory").flag(),
            stride: uart.field("stride").number().try_into().unwrap(),
            width: uart.field("width").number().try_into().unwrap(),
            clock: uart.field("clock").long(),
            baud: uart.field("baud").long(),
        }),
        log_memory: range(&value.field("log_memory")),
        large_code_pages: value.field("large_code_pages").flag(),
        power: Power {
            turbo_off: power.field("turbo_off").flag(),
            base_frequency: power.field("base_frequency").flag(),
            c1_only: power.field("c1_only").flag(),
        },
        power_off: value.field("power_off").option().map(|value| PowerOff {
            port: value.field("port").half(),
            bytes: value.field("bytes").bytes(),
        }),
    }
}

fn range(value: &Value) -> Range {
    Range { start: value.field("start").number(), size: value.field("size").number() }
}

fn partition(value: &Value) -> Partition {
    let (image, hygiene) = (value.field("image"), value.field("hygiene"));
    Partition {
        name: value.field("name").text(),
        place: value.field("place").text(),
        cpus: value.field("cpus").list(Value::half),
        first_vcpu: value.field("first_vcpu").half(),
        platform: platform(&value.field("platform")),
        image: Image {
            size: image.field("size").number(),
            digest: image.field("digest").bytes().try_into().unwrap(),
            load_at: image.field("load_at").number(),
            entry: image.field("entry").number(),
        },
        memory: value.field("memory").list(region),
        ept_pages: value.field("ept_pages").number(),
        boot_info: value.field("boot_info").bytes(),
        boot_info_at: value.field("boot_info_at").number(),
        schedule_at: value.field("schedule_at").number(),
        may_switch_plan: value.field("may_switch_plan").flag(),
        donates_to: value.field("donates_to").option().map(|id| id.half()),
        hygiene: Hygiene {
            l1d_flush: hygiene.field("l1d_flush").flag(),
            branch_barrier: hygiene.field("branch_barrier").flag(),
            buffer_clear: hygiene.field("buffer_clear").flag(),
        },
    }
}

fn platform(value: &Value) -> Platform {
    match value.variant() {
        (name, None) if name == "Bare" => Platform::Bare,
        (name, None) if name == "Pc" => Platform::Pc,
        (name, _) => panic!("no platform: {name}"),
    }
}

fn region(value: &Value) -> Region {
    let rights = value.field("rights");
    Region {
        guest: value.field("guest").number(),
        host: value.field("host").number(),
        size: value.field("size").number(),
        rights: Rights {
            read: rights.field("read").flag(),
            write: rights.field("write").flag(),
            execute: rights.field("execute").flag(),
        },
    }
}

fn core(value: &Value) -> Core {
    let role = match value.field("role").variant() {
        (name, Some(id)) if name == "Dedicated" => Role::Dedicated(id.half()),
        (name, Some(plans)) if name == "Shared" => {
            Role::Shared(plans.list(|windows| windows.list(window)))
        }
        (name, None) if name == "Housekeeping" => Role::Housekeeping,
        (name, _) => panic!("no role: {name}"),
    };
    Core { cpu: value.field("cpu").half(), role }
}

fn window(value: &Value) -> Window {
    let owner = match value.field("owner").variant() {
        (name, Some(id)) if name == "Partition" => Owner::Partition(id.half()),
        (name, None) if name == "Housekeeping" => Owner::Housekeeping,
        (name, _) => panic!("no owner: {name}"),
    };
    Window {
        start: value.field("start").number(),
        length: value.field("length").number(),
        budget: value.field("budget").number(),
        owner,
    }
}
