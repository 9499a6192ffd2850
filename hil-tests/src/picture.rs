//! Looks at a picture of the emulated screen.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use crate::bench::sure;

/// Share of pixels, in thousandths, that differ from the picture's first one (its background).
///
/// # Panics
/// The file is no PNG.
#[must_use]
pub fn lit_thousandths(path: &Path) -> usize {
    let what = path.display().to_string();
    let file = BufReader::new(sure(&what, File::open(path)));
    let mut reader = sure(&what, png::Decoder::new(file).read_info());
    let size = reader.output_buffer_size().unwrap_or(0);
    let mut bytes = vec![0; size];
    let frame = sure(&what, reader.next_frame(&mut bytes));
    let width = frame.color_type.samples() * frame.bit_depth as usize / 8;
    let mut pixels = bytes.chunks_exact(width.max(1));
    let background = pixels.next().map(<[u8]>::to_vec).unwrap_or_default();
    let total = pixels.len().max(1);
    pixels.filter(|pixel| *pixel != background).count() * 1000 / total
}
