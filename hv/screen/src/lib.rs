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
    cells: [[u8; COLUMNS]; ROWS],
    column: usize,
    row: usize,
}

static SCREEN: Mutex<Screen> =
    Mutex::new(Screen { display: None, cells: [[BLANK; COLUMNS]; ROWS], column: 0, row: 0 });

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

/// Writes text; `\r` is ignored, `\n` starts a line, long lines are broken, the oldest line scrolls away.
pub fn write_text(text: &str) {
    if let Some(mut screen) = SCREEN.try_lock()
        && let Some(display) = screen.display
    {
        text.bytes().for_each(|byte| screen.put(&display, byte));
    }
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
    fn put(&mut self, display: &Display, byte: u8) {
        match byte {
            b'\r' => {}
            b'\n' => self.start_line(display),
            _ => {
                if self.column >= display.columns() {
                    self.start_line(display);
                }
                self.set(display, self.column, self.row, byte);
                self.column += 1;
            }
        }
    }

    fn start_line(&mut self, display: &Display) {
        self.column = 0;
        if self.row + 1 < display.rows() {
            self.row += 1;
        } else {
            self.scroll(display);
        }
    }

    fn scroll(&mut self, display: &Display) {
        let (columns, rows) = (display.columns(), display.rows());
        for row in 0..rows {
            for column in 0..columns {
                let below = self.cells.get(row + 1).and_then(|line| line.get(column));
                let byte = if row + 1 < rows { below.copied().unwrap_or(BLANK) } else { BLANK };
                self.set(display, column, row, byte);
            }
        }
    }

    /// Draws a cell only when it changes.
    fn set(&mut self, display: &Display, column: usize, row: usize, byte: u8) {
        if let Some(cell) = self.cells.get_mut(row).and_then(|line| line.get_mut(column))
            && *cell != byte
        {
            *cell = byte;
            draw(display, column, row, byte);
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
    for byte in 0..usize::from(frame.pixel_bytes) {
        let pixel = (frame.address as *mut u8).wrapping_add(offset + byte);
        // SAFETY: the boot information gives this framebuffer, whose size `boot::info` checked; it is identity-mapped,
        // and the position was checked against it.
        unsafe { pixel.write_volatile(value) };
    }
}
