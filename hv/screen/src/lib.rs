//! The screen: text on VGA text memory, or drawn on a linear framebuffer as UEFI hands it over.
//!
//! A crate of its own because two programs write to a screen before there is an operating system: the hypervisor and
//! the probe.
#![no_std]
#![deny(missing_docs)]
#![expect(unsafe_code, reason = "writes to video memory")]

mod boot;

use font8x8::legacy::BASIC_LEGACY;
use spin::Mutex;

pub use boot::Unusable;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Most columns and rows that are kept; a larger framebuffer shows margins.
const COLUMNS: usize = 160;
const ROWS: usize = 64;

/// VGA text memory: 80 by 25 cells of two bytes.
const VGA_TEXT: u64 = 0xB_8000;
const VGA_COLUMNS: usize = 80;
const VGA_ROWS: usize = 25;
/// White on black.
const VGA_ATTRIBUTE: u16 = 0x0F00;

/// A cell without text: character 0 shows nothing, in the font as on VGA.
const BLANK: u8 = 0;

/// Pixels of a glyph's edge before scaling.
const GLYPH: usize = 8;

/// A linear framebuffer with direct colours.
#[derive(Clone, Copy, Debug)]
pub struct Framebuffer {
    /// Physical address of the first pixel.
    pub address: u64,
    /// Bytes from one row of pixels to the next.
    pub pitch: u32,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes of one pixel: 2, 3 or 4.
    pub pixel_bytes: u8,
}

/// Where text can be shown.
#[derive(Clone, Copy, Debug)]
pub enum Display {
    /// VGA text mode.
    VgaText,
    /// A framebuffer.
    Framebuffer(Framebuffer),
}

impl Display {
    /// Start and size of the video memory, page-aligned.
    #[must_use]
    pub fn memory(&self) -> (u64, u64) {
        match self {
            Self::VgaText => (VGA_TEXT, PAGE),
            Self::Framebuffer(frame) => {
                let start = frame.address & !(PAGE - 1);
                let end = frame.address + u64::from(frame.pitch) * u64::from(frame.height);
                (start, end.next_multiple_of(PAGE) - start)
            }
        }
    }

    /// Magnification of a glyph.
    fn scale(&self) -> usize {
        match self {
            Self::Framebuffer(frame) if frame.width >= 1600 => 2,
            _ => 1,
        }
    }

    /// Size of a cell in pixels: glyphs are drawn twice as high as wide, with which small text reads well.
    fn cell(&self) -> (usize, usize) {
        (GLYPH * self.scale(), 2 * GLYPH * self.scale())
    }

    fn columns(&self) -> usize {
        match self {
            Self::VgaText => VGA_COLUMNS,
            Self::Framebuffer(frame) => (frame.width as usize / self.cell().0).min(COLUMNS),
        }
    }

    fn rows(&self) -> usize {
        match self {
            Self::VgaText => VGA_ROWS,
            Self::Framebuffer(frame) => (frame.height as usize / self.cell().1).min(ROWS),
        }
    }
}

/// What stands on the screen; kept in memory because reading video memory back is slow.
struct Screen {
    display: Option<Display>,
    /// The text. The line at the top is number `first`; the others follow in a circle, so that scrolling moves nothing.
    text: [[u8; COLUMNS]; ROWS],
    first: usize,
    /// What the display shows.
    shown: [[u8; COLUMNS]; ROWS],
    column: usize,
    row: usize,
    /// Where [`refresh`] looks next, and how many cells it still has to look at.
    position: usize,
    left: usize,
}

static SCREEN: Mutex<Screen> = Mutex::new(Screen {
    display: None,
    text: [[BLANK; COLUMNS]; ROWS],
    first: 0,
    shown: [[BLANK; COLUMNS]; ROWS],
    column: 0,
    row: 0,
    position: 0,
    left: 0,
});

/// Clears the display and writes to it from now on.
pub fn init(display: Display) {
    if let Some(mut screen) = SCREEN.try_lock() {
        screen.display = Some(display);
        for row in 0..display.rows() {
            for column in 0..display.columns() {
                draw(&display, column, row, BLANK);
            }
        }
    }
}

/// Stops writing to the display: its memory is not mapped.
pub fn switch_off() {
    if let Some(mut screen) = SCREEN.try_lock() {
        screen.display = None;
    }
}

/// Writes text and draws it; `\r` is ignored, `\n` starts a line, long lines are broken, the oldest line scrolls away.
pub fn write_text(text: &str) {
    if let Some(mut screen) = SCREEN.try_lock()
        && let Some(display) = screen.display
    {
        text.bytes().for_each(|byte| screen.put(&display, byte, true));
    }
}

/// Writes text as [`write_text`], and leaves the drawing to [`refresh`]: for whoever has little time.
pub fn note_text(text: &str) {
    if let Some(mut screen) = SCREEN.try_lock()
        && let Some(display) = screen.display
    {
        text.bytes().for_each(|byte| screen.put(&display, byte, false));
        screen.left = display.rows() * display.columns();
    }
}

/// Draws at most one cell of what [`note_text`] wrote. False when all of it is drawn.
pub fn refresh() -> bool {
    /// Cells that one call looks at.
    const LOOK: usize = 64;
    let Some(mut screen) = SCREEN.try_lock() else {
        return false;
    };
    let Some(display) = screen.display else {
        return false;
    };
    let columns = display.columns().max(1);
    for _ in 0..LOOK.min(screen.left) {
        let (row, column) = (screen.position / columns, screen.position % columns);
        screen.position = (screen.position + 1) % (columns * display.rows()).max(1);
        screen.left -= 1;
        if screen.show(&display, column, row) {
            break;
        }
    }
    screen.left > 0
}

/// Takes the screen from whoever holds it: for a panic, after which nobody uses it any more.
pub fn seize() {
    if SCREEN.is_locked() {
        // SAFETY: the holder is this core, which does not return to it, or one whose torn line is a lesser evil than a
        // silent panic: cells are bytes and every index is checked when it is used.
        unsafe { SCREEN.force_unlock() };
    }
}

impl Screen {
    fn put(&mut self, display: &Display, byte: u8, now: bool) {
        match byte {
            b'\r' => {}
            b'\n' => self.start_line(display, now),
            _ => {
                if self.column >= display.columns() {
                    self.start_line(display, now);
                }
                let (column, row) = (self.column, self.row);
                if let Some(cell) = self.line(row).and_then(|line| line.get_mut(column)) {
                    *cell = byte;
                }
                if now {
                    self.show(display, column, row);
                }
                self.column += 1;
            }
        }
    }

    fn start_line(&mut self, display: &Display, now: bool) {
        self.column = 0;
        if self.row + 1 < display.rows() {
            self.row += 1;
            return;
        }
        self.first = (self.first + 1) % ROWS;
        if let Some(line) = self.line(self.row) {
            line.fill(BLANK);
        }
        if now {
            for row in 0..display.rows() {
                for column in 0..display.columns() {
                    self.show(display, column, row);
                }
            }
        }
    }

    /// The text of a row of the display.
    fn line(&mut self, row: usize) -> Option<&mut [u8; COLUMNS]> {
        self.text.get_mut((self.first + row) % ROWS)
    }

    /// Draws a cell where the display shows something else; whether it did.
    fn show(&mut self, display: &Display, column: usize, row: usize) -> bool {
        let wanted = self.line(row).and_then(|line| line.get(column)).copied().unwrap_or(BLANK);
        match self.shown.get_mut(row).and_then(|line| line.get_mut(column)) {
            Some(shown) if *shown != wanted => {
                *shown = wanted;
                draw(display, column, row, wanted);
                true
            }
            _ => false,
        }
    }
}

fn draw(display: &Display, column: usize, row: usize, byte: u8) {
    match display {
        Display::VgaText => draw_vga(column, row, byte),
        Display::Framebuffer(frame) => draw_glyph(frame, display.cell(), (column, row), byte),
    }
}

fn draw_glyph(frame: &Framebuffer, cell: (usize, usize), place: (usize, usize), byte: u8) {
    let glyph = BASIC_LEGACY.get(usize::from(byte)).unwrap_or(&BASIC_LEGACY[usize::from(b'?')]);
    let (width, height) = cell;
    for y in 0..height {
        let bits = glyph[y * GLYPH / height];
        for x in 0..width {
            let lit = bits >> (x * GLYPH / width) & 1 != 0;
            set_pixel(frame, place.0 * width + x, place.1 * height + y, lit);
        }
    }
}

fn draw_vga(column: usize, row: usize, byte: u8) {
    if column >= VGA_COLUMNS || row >= VGA_ROWS {
        return;
    }
    let cell = (VGA_TEXT as *mut u16).wrapping_add(row * VGA_COLUMNS + column);
    // SAFETY: the boot information says that the display is in text mode, whose memory this is; it is identity-mapped
    // and the position was checked against its 80 by 25 cells.
    unsafe { cell.write_volatile(VGA_ATTRIBUTE | u16::from(byte)) };
}

/// White or black: both are the same bytes in every direct-colour format.
fn set_pixel(frame: &Framebuffer, x: usize, y: usize, lit: bool) {
    if x >= frame.width as usize || y >= frame.height as usize {
        return;
    }
    let offset = y * frame.pitch as usize + x * usize::from(frame.pixel_bytes);
    let value = if lit { 0xFF } else { 0 };
    let pixel = (frame.address as *mut u8).wrapping_add(offset).cast::<u32>();
    if frame.pixel_bytes == 4 && pixel.is_aligned() {
        // SAFETY: as below; one access of four bytes costs a quarter of four.
        unsafe { pixel.write_volatile(u32::from_ne_bytes([value; 4])) };
        return;
    }
    for byte in 0..usize::from(frame.pixel_bytes) {
        let pixel = (frame.address as *mut u8).wrapping_add(offset + byte);
        // SAFETY: the boot information gives this framebuffer, whose size `boot::info` checked; it is identity-mapped,
        // and the position was checked against it.
        unsafe { pixel.write_volatile(value) };
    }
}
