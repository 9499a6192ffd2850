//! The boot loader's menu: what it starts, and which module it hands over under which name.

use crate::Unreadable;

/// A module that the menu hands over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Name that the hypervisor sees.
    pub name: String,
    /// Its file.
    pub path: String,
}

/// What the menu does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Menu {
    /// Files that it may start: by UEFI, and by BIOS.
    pub uefi: String,
    /// By BIOS.
    pub bios: String,
    /// What it hands over.
    pub modules: Vec<Entry>,
}

/// Lines that prepare the screen, and change nothing of what is started.
const HARMLESS: [&str; 5] = [
    "set timeout=0",
    "insmod all_video",
    "set gfxpayload=1024x768x32,auto",
    "set gfxpayload=text",
    "boot",
];

impl Menu {
    /// Reads the menu of a system. What the audit does not know is refused: it could start anything.
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Unreadable("the menu is not UTF-8".to_owned()))?;
        let mut menu = Self::default();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut started = false;
        let mut branch = Branch::Outside;
        for line in lines.by_ref() {
            let words: Vec<&str> = line.split(' ').collect();
            match (words.as_slice(), branch) {
                _ if HARMLESS.contains(&line) => {}
                (["if", "[", "\"$grub_platform\"", "=", "efi", "];", "then"], Branch::Outside) => {
                    branch = Branch::Uefi;
                }
                (["else"], Branch::Uefi) => branch = Branch::Bios,
                (["fi"], Branch::Bios) => branch = Branch::Outside,
                (["set", setting], Branch::Uefi | Branch::Bios) => {
                    let path = setting.strip_prefix("hypervisor=").ok_or_else(|| unknown(line))?;
                    let own = if branch == Branch::Uefi { &mut menu.uefi } else { &mut menu.bios };
                    path.clone_into(own);
                }
                (["multiboot2", "$hypervisor"], Branch::Outside) if !started => started = true,
                (["module2", path, name], Branch::Outside) if started => {
                    let entry = Entry { name: (*name).to_owned(), path: (*path).to_owned() };
                    menu.modules.push(entry);
                }
                _ => return Err(unknown(line)),
            }
        }
        if started { Ok(menu) } else { Err(Unreadable("the menu starts nothing".to_owned())) }
    }
}

/// Where a line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Branch {
    Outside,
    Uefi,
    Bios,
}

fn unknown(line: &str) -> Unreadable {
    Unreadable(format!("the menu has a line that the audit does not know: {line:?}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    const GOOD: &str = "set timeout=0
if [ \"$grub_platform\" = efi ]; then
    insmod all_video
    set hypervisor=/boot/bulkhead.elf
else
    set hypervisor=/boot/bulkhead-bios.elf
fi
multiboot2 $hypervisor
module2 /boot/plc.bin plc
boot
";

    #[test]
    fn a_menu_says_what_it_starts() {
        let menu = Menu::read(GOOD.as_bytes()).unwrap();
        assert_eq!(
            (menu.uefi.as_str(), menu.bios.as_str()),
            ("/boot/bulkhead.elf", "/boot/bulkhead-bios.elf")
        );
        let entry = Entry { name: "plc".to_owned(), path: "/boot/plc.bin".to_owned() };
        assert_eq!(menu.modules, [entry]);
    }

    #[test]
    fn what_it_does_not_know_is_refused() {
        for (from, to) in [
            ("boot\n", "chainloader +1\nboot\n"),
            ("multiboot2 $hypervisor", "multiboot2 $hypervisor debug"),
            ("multiboot2 $hypervisor\n", "multiboot2 $hypervisor\nmultiboot2 $hypervisor\n"),
            ("multiboot2 $hypervisor\n", ""),
            ("= efi", "= pc"),
            ("fi\n", "fi\nset hypervisor=/boot/other.elf\n"),
        ] {
            assert_ne!(GOOD, GOOD.replace(from, to), "{from}");
            Menu::read(GOOD.replace(from, to).as_bytes()).unwrap_err();
        }
        Menu::read(&[0xFF]).unwrap_err();
        Menu::read(b"").unwrap_err();
    }
}
