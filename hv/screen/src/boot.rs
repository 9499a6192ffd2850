//! Where text can be shown, out of what the boot loader says (Multiboot2). It is not trusted: a framebuffer that does not fit is none.

use hv_core::multiboot::{self, Information, Pixels};

use crate::{Display, Framebuffer};

/// A framebuffer in which nothing can be shown: it lies too high, or its pixels are no direct colours of 16 to 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Where it lies.
    pub address: u64,
}

impl Display {
    /// The display of the boot information; `None` where there is none. A framebuffer has to end at `reachable`, an address.
    ///
    /// # Errors
    /// There is one, and it cannot be used.
    pub fn of(information: &Information<'_>, reachable: u64) -> Result<Option<Self>, Unusable> {
        let Some(found) = information.framebuffer() else {
            // A BIOS machine is in text mode unless somebody says otherwise.
            return Ok((!information.is_from_uefi()).then_some(Self::VgaText));
        };
        let display = match found.pixels {
            Pixels::Text => Some(Self::VgaText),
            Pixels::Direct => usable(&found, reachable).map(Self::Framebuffer),
            Pixels::Other => None,
        };
        display.map(Some).ok_or(Unusable { address: found.address })
    }
}

/// The framebuffer, if its pixels can be reached and written bytewise.
fn usable(found: &multiboot::Framebuffer, reachable: u64) -> Option<Framebuffer> {
    let pixel_bytes = found.bits.div_ceil(8);
    let size = u64::from(found.pitch) * u64::from(found.height);
    let row = u64::from(found.width) * u64::from(pixel_bytes);
    let end = found.address.checked_add(size)?;
    let fits = end <= reachable && row <= u64::from(found.pitch);
    (fits && (2..=4).contains(&pixel_bytes)).then_some(Framebuffer {
        address: found.address,
        pitch: found.pitch,
        width: found.width,
        height: found.height,
        pixel_bytes,
    })
}
