//! Where text can be shown, out of what the boot loader says (Multiboot2). It is not trusted: a framebuffer that does not fit is none.

use multiboot2::{BootInformation, FramebufferTag, FramebufferType};

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
    pub fn of(information: &BootInformation<'_>, reachable: u64) -> Result<Option<Self>, Unusable> {
        let from_uefi =
            information.efi_sdt32_tag().is_some() || information.efi_sdt64_tag().is_some();
        let Some(Ok(tag)) = information.framebuffer_tag() else {
            // A BIOS machine is in text mode unless somebody says otherwise.
            return Ok((!from_uefi).then_some(Self::VgaText));
        };
        let display = match tag.buffer_type() {
            Ok(FramebufferType::Text) => Some(Self::VgaText),
            Ok(FramebufferType::RGB { .. }) => usable(tag, reachable).map(Self::Framebuffer),
            _ => None,
        };
        display.map(Some).ok_or(Unusable { address: tag.address() })
    }
}

/// The framebuffer, if its pixels can be reached and written bytewise.
fn usable(tag: &FramebufferTag, reachable: u64) -> Option<Framebuffer> {
    let pixel_bytes = tag.bpp().div_ceil(8);
    let size = u64::from(tag.pitch()) * u64::from(tag.height());
    let row = u64::from(tag.width()) * u64::from(pixel_bytes);
    let end = tag.address().checked_add(size)?;
    let fits = end <= reachable && row <= u64::from(tag.pitch());
    (fits && (2..=4).contains(&pixel_bytes)).then_some(Framebuffer {
        address: tag.address(),
        pitch: tag.pitch(),
        width: tag.width(),
        height: tag.height(),
        pixel_bytes,
    })
}
