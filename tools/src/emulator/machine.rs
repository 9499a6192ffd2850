//! An emulated machine by name: emulator, firmware, processor. Every command, test and report names it in this one way.

use std::fmt;

use clap::ValueEnum;

use super::{bochs, qemu};
use crate::error::{Error, Result};
use crate::provision::Need;
use crate::provision::bochs::{Edition, THREE, TWO};

/// Which emulator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// Bochs 2.7, an industrial PC with VT-x, by BIOS: the machine of the committed figures
    #[default]
    Bochs,
    /// Bochs 3.0, the same PC by BIOS or UEFI; it counts ticks as exactly. With `--cpu-model ryzen,+x2apic` it has AMD-V
    #[value(name = "bochs-3")]
    Bochs3,
    /// Bochs 3.0 at twice the speed: what it says of time is not right
    #[value(name = "bochs-3-fast")]
    Bochs3Fast,
    /// QEMU, a PC with AMD-V and no VT-x, by BIOS or UEFI; one instruction is one tick. By UEFI it takes minutes
    Qemu,
    /// QEMU by the clock of the host: what it says of time is not right
    QemuFast,
}

impl Target {
    /// As the command line takes it.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
    }

    /// Whether it is one of Bochs.
    #[must_use]
    pub const fn is_bochs(self) -> bool {
        self.edition().is_some()
    }

    /// Which Bochs it is.
    #[must_use]
    pub const fn edition(self) -> Option<Edition> {
        match self {
            Self::Bochs => Some(TWO),
            Self::Bochs3 | Self::Bochs3Fast => Some(THREE),
            Self::Qemu | Self::QemuFast => None,
        }
    }

    /// Whether its ticks are instructions and repeat.
    #[must_use]
    pub const fn is_exact(self) -> bool {
        !matches!(self, Self::Bochs3Fast | Self::QemuFast)
    }

    /// What this machine has to bring for it.
    #[must_use]
    pub const fn need(self) -> Need {
        match self {
            Self::Bochs => Need::Bochs,
            Self::Bochs3 | Self::Bochs3Fast => Need::Bochs3,
            Self::Qemu | Self::QemuFast => Need::Qemu,
        }
    }
}

/// Which firmware boots the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Firmware {
    /// The BIOS of old
    #[default]
    Bios,
    /// UEFI (OVMF); every emulator but Bochs 2.7 has it
    Uefi,
}

impl Firmware {
    /// As reports name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

/// An emulated machine. By default the one of the committed figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its emulator.
    pub target: Target,
    /// Its firmware.
    pub firmware: Firmware,
    /// Model of its processor, as the emulator names it; `None` for the emulator's own.
    pub model: Option<String>,
}

impl Machine {
    /// The machine that a person asks for. Without a target the firmware decides: Bochs 2.7 has a BIOS only.
    #[must_use]
    pub fn chosen(target: Option<Target>, firmware: Firmware, model: Option<String>) -> Self {
        let by_firmware = match firmware {
            Firmware::Bios => Target::default(),
            Firmware::Uefi => Target::Bochs3,
        };
        Self { target: target.unwrap_or(by_firmware), firmware, model }
    }

    /// Model of its processor.
    #[must_use]
    pub fn processor(&self) -> &str {
        let own = if self.target.is_bochs() { bochs::MODEL } else { qemu::MODEL };
        self.model.as_deref().unwrap_or(own)
    }

    /// Whether there is such a machine.
    ///
    /// # Errors
    /// There is none; the words say which ones there are.
    pub fn check(&self) -> Result<()> {
        if self.target == Target::Bochs && self.firmware == Firmware::Uefi {
            return Err(Error::refused(
                "cannot boot by UEFI in Bochs 2.7",
                "that Bochs has a BIOS only",
                "use --target bochs-3, or leave --target or --firmware out",
            ));
        }
        if self.target == Target::Bochs && self.processor().contains(',') {
            return Err(Error::refused(
                format!("cannot be {} in Bochs 2.7", self.processor()),
                "that Bochs takes no features beside a model",
                "use --target bochs-3, or name the model alone",
            ));
        }
        Ok(())
    }

    /// Refuses a machine whose ticks say nothing, for what measures.
    ///
    /// # Errors
    /// It is such a one.
    pub fn check_exact(&self) -> Result<()> {
        if self.target.is_exact() {
            return Ok(());
        }
        Err(Error::refused(
            format!("cannot measure on {}", self.target.name()),
            "its ticks are no instructions there, and do not repeat",
            "use --target bochs or bochs-3; `bulkhead run` runs on any",
        ))
    }
}

/// A processor's model as an emulator names it, with what is added and taken away. Whether it has such a one, the emulator itself says.
///
/// # Errors
/// What is given cannot be a name.
pub fn model(name: &str) -> std::result::Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+,.=".contains(&byte);
    if !name.is_empty() && name.bytes().all(plain) {
        return Ok(name.to_string());
    }
    Err("a model is a name such as `tigerlake` (Bochs) or `EPYC,+x2apic` (both take features so)"
        .to_string())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.target.name(), self.processor(), self.firmware.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_chooses_where_nobody_else_does() {
        let target = |target, firmware| Machine::chosen(target, firmware, None).target;
        assert_eq!(target(None, Firmware::Bios), Target::Bochs);
        assert_eq!(target(None, Firmware::Uefi), Target::Bochs3);
        assert_eq!(target(Some(Target::Qemu), Firmware::Uefi), Target::Qemu);
    }

    #[test]
    fn uefi_in_the_old_bochs_is_refused_with_the_way_out() {
        let machine = Machine::chosen(Some(Target::Bochs), Firmware::Uefi, None);
        assert!(machine.check().unwrap_err().to_string().contains("--target bochs-3"));
        for target in Target::value_variants().iter().filter(|it| **it != Target::Bochs) {
            Machine::chosen(Some(*target), Firmware::Uefi, None).check().unwrap();
        }
    }

    #[test]
    fn features_want_the_newer_bochs() {
        let check = |target| {
            let model = Some("ryzen,+x2apic".to_string());
            Machine::chosen(Some(target), Firmware::Bios, model).check()
        };
        assert!(check(Target::Bochs).unwrap_err().to_string().contains("--target bochs-3"));
        check(Target::Bochs3).unwrap();
        check(Target::Qemu).unwrap();
    }

    #[test]
    fn a_machine_has_one_name() {
        assert_eq!(Machine::default().to_string(), "bochs, corei7_skylake_x, bios");
        let machine = Machine::chosen(None, Firmware::Uefi, Some("tigerlake".into()));
        assert_eq!(machine.to_string(), "bochs-3, tigerlake, uefi");
        let machine = Machine::chosen(Some(Target::QemuFast), Firmware::Bios, None);
        assert_eq!(machine.to_string(), "qemu-fast, EPYC,+x2apic, bios");
    }

    #[test]
    fn a_model_is_a_name() {
        for good in ["tigerlake", "corei7_skylake_x", "EPYC,+x2apic", "Skylake-Client-v1"] {
            assert_eq!(model(good).as_deref(), Ok(good));
        }
        for bad in ["", "a b", "a\nb", "a\"b", "a:b"] {
            assert!(model(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn nothing_is_measured_in_a_fast_mode() {
        for target in Target::value_variants() {
            let machine = Machine::chosen(Some(*target), Firmware::Bios, None);
            assert_eq!(machine.check_exact().is_ok(), !target.name().ends_with("-fast"));
        }
    }
}
