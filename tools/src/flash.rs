//! Writes an image to a device so that nobody loses the wrong disk and nobody boots half an image.
//!
//! The first MiB, which makes a device bootable, is written last: an interrupted device does not boot. What was
//! written is read back past the cache and compared.

pub mod devices;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::{Error, Result};
use crate::progress::bytes_bar;
use crate::screen::grouped;
use crate::{interrupt, paths};
use devices::{Device, System};

/// How much is written last: partition tables and boot sectors lie in it.
const HEAD: u64 = 1 << 20;

/// Bytes of one write or read; a multiple of every device's sector.
const PIECE: usize = 1 << 20;

/// Alignment of reads that bypass the cache.
const ALIGNMENT: usize = 4096;

/// What to write, and where.
#[derive(Clone, Debug, Default)]
pub struct FlashOptions {
    /// The image.
    pub image: PathBuf,
    /// The device: `/dev/sdb`.
    pub device: PathBuf,
    /// Asks nothing.
    pub yes: bool,
    /// Shows no progress, and says nothing of what goes well.
    pub quiet: bool,
}

/// Writes the image to the device and compares what is then on it.
///
/// # Errors
/// The device is refused, the user does not agree, a write fails or is interrupted (then the device is
/// incomplete, and the error says so), or what is read back differs.
pub fn flash(options: &FlashOptions) -> Result<()> {
    interrupt::install();
    let system = System::here();
    let image = open_image(&options.image)?;
    let device = system.choose(&options.device, image.size)?;
    let say = |text: String| {
        if !options.quiet {
            println!("{text}");
        }
    };
    say(format!(
        "{}: {}, {} bytes ({:.1} GB)",
        device.path.display(),
        device.model,
        grouped(device.size),
        device.size as f64 / 1e9
    ));
    say(format!(
        "everything on it is overwritten with {} ({} bytes)",
        image.path.display(),
        grouped(image.size)
    ));
    if !options.yes {
        confirm(&device)?;
    }
    interrupt::check("nothing was written")?;
    // Between the question and the answer the device may have been mounted, or exchanged for another.
    let again = System::here().choose(&options.device, image.size)?;
    if again != device {
        return Err(Error::refused(
            format!("nothing was written to {}", device.path.display()),
            "another device answers to that name now",
            "start again, and look at the model and size",
        ));
    }
    copy(&image, &device.path, options.quiet, &interrupt::requested)?;
    compare(&image, &device.path, options.quiet)?;
    say(format!("{} holds the image; it was read back and compared", device.path.display()));
    Ok(())
}

/// The image as it lies on the disk.
struct Image {
    path: PathBuf,
    size: u64,
}

fn open_image(path: &Path) -> Result<Image> {
    let path = paths::absolute(path)?;
    let data = std::fs::metadata(&path).map_err(|cause| Error::file("find", &path, &cause))?;
    let refuse = |cause: &str| {
        let remedy = "give an image that `bulkhead build` made";
        Err(Error::refused(format!("cannot write {}", path.display()), cause, remedy))
    };
    if !data.is_file() || data.len() == 0 {
        return refuse("it is no file, or an empty one");
    }
    if !has_boot_signature(&path) {
        return refuse(
            "no firmware boots it: its first sector has no boot signature (55 AA at byte 510)",
        );
    }
    Ok(Image { path, size: data.len() })
}

fn has_boot_signature(path: &Path) -> bool {
    let mut sector = [0; 512];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut sector));
    read.is_ok() && sector.ends_with(&[0x55, 0xAA])
}

fn confirm(device: &Device) -> Result<()> {
    let name = device.path.display().to_string();
    if !io::stdin().is_terminal() {
        return Err(Error::refused(
            format!("nothing was written to {name}"),
            "there is no terminal to ask on",
            "give --yes in a script",
        ));
    }
    print!("type the device's name ({name}) to go on: ");
    let mut answer = String::new();
    let asked = io::stdout().flush().and_then(|()| io::stdin().lock().read_line(&mut answer));
    asked.map_err(|cause| Error::failed("cannot ask", cause, "give --yes in a script"))?;
    agrees(&answer, &name)
}

fn agrees(answer: &str, name: &str) -> Result<()> {
    if answer.trim() == name {
        return Ok(());
    }
    Err(Error::refused(
        format!("nothing was written to {name}"),
        format!("the answer was `{}`", answer.trim()),
        format!("type {name} when that is the device you mean"),
    ))
}

/// Writes everything behind the head, then the head; `stop` is asked before each piece.
fn copy(image: &Image, device: &Path, quiet: bool, stop: &dyn Fn() -> bool) -> Result<()> {
    let failed = |cause: io::Error| incomplete(device, &cause);
    let mut from =
        File::open(&image.path).map_err(|cause| Error::file("read", &image.path, &cause))?;
    // O_EXCL: the kernel refuses while anything else, such as a mount, holds the device.
    let mut to = OpenOptions::new()
        .write(true)
        .custom_flags(OFlags::EXCL.bits() as i32)
        .open(device)
        .map_err(|cause| Error::file("write", device, &cause))?;
    if stop() {
        return Err(Error::Interrupted("nothing was written".to_string()));
    }
    let bar = bytes_bar("writing  ", image.size, quiet);
    let head = HEAD.min(image.size);
    // An older image's head must not boot a newer image's rest.
    to.write_all(&vec![0; head as usize]).map_err(failed)?;
    to.sync_data().map_err(failed)?;
    let mut piece = |bytes: usize| {
        bar.inc(bytes as u64);
        !stop()
    };
    copy_range(&mut from, &mut to, head..image.size, &mut piece).map_err(failed)?;
    to.sync_data().map_err(failed)?;
    copy_range(&mut from, &mut to, 0..head, &mut piece).map_err(failed)?;
    to.sync_all().map_err(failed)?;
    bar.finish_and_clear();
    Ok(())
}

/// Copies a range of `from` to the same place of `to`. `piece` is told of each piece before it is
/// written, and says whether to go on.
fn copy_range(
    from: &mut File,
    to: &mut File,
    range: std::ops::Range<u64>,
    piece: &mut dyn FnMut(usize) -> bool,
) -> io::Result<()> {
    from.seek(SeekFrom::Start(range.start))?;
    to.seek(SeekFrom::Start(range.start))?;
    let mut buffer = vec![0; PIECE];
    let mut left = range.end - range.start;
    while left > 0 {
        let part = &mut buffer[..left.min(PIECE as u64) as usize];
        if !piece(part.len()) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        from.read_exact(part)?;
        to.write_all(part)?;
        left -= part.len() as u64;
    }
    Ok(())
}

fn incomplete(device: &Path, cause: &io::Error) -> Error {
    let what = format!("{} is incomplete and does not boot", device.display());
    if cause.kind() == io::ErrorKind::Interrupted {
        return Error::Interrupted(format!("{what}; run the same command again to write it whole"));
    }
    Error::failed(what, cause, "check the device and its cable, then run the same command again")
}

/// Reads the device back past the cache and compares it with the image.
fn compare(image: &Image, device: &Path, quiet: bool) -> Result<()> {
    let failed = |cause: io::Error| {
        let what = format!("cannot read {} back", device.display());
        Error::failed(what, cause, "check the device, then run the same command again")
    };
    let mut from =
        File::open(&image.path).map_err(|cause| Error::file("read", &image.path, &cause))?;
    let mut back = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(device)
        .map_err(failed)?;
    let bar = bytes_bar("comparing", image.size, quiet);
    let (mut wanted, mut buffer) = (vec![0; PIECE], vec![0; PIECE + ALIGNMENT]);
    let skip = buffer.as_ptr().align_offset(ALIGNMENT);
    let found = &mut buffer[skip..skip + PIECE];
    let mut at = 0;
    while at < image.size {
        interrupt::check(&format!(
            "{} was written whole, but not compared; run the same command again to be sure",
            device.display()
        ))?;
        let part = (image.size - at).min(PIECE as u64) as usize;
        from.read_exact(&mut wanted[..part]).map_err(failed)?;
        let got = fill(&mut back, found, part).map_err(failed)?;
        if got < part || wanted[..part] != found[..part] {
            return Err(Error::failed(
                format!("{} does not hold what was written", device.display()),
                format!("it differs {}", difference(&wanted[..part], &found[..got.min(part)], at)),
                "the device is worn out or lies about its size: use another one",
            ));
        }
        at += part as u64;
        bar.inc(part as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Reads at least `wanted` bytes in whole aligned reads, or up to the end of the device.
fn fill(from: &mut File, into: &mut [u8], wanted: usize) -> io::Result<usize> {
    let mut got = 0;
    while got < wanted {
        match from.read(&mut into[got..])? {
            0 => break,
            more => got += more,
        }
    }
    Ok(got)
}

fn difference(wanted: &[u8], found: &[u8], start: u64) -> String {
    let place = wanted.iter().zip(found).position(|(one, other)| one != other);
    format!("at byte {}", grouped(start + place.unwrap_or(found.len()) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_devices_own_name_agrees() {
        agrees("/dev/sdb\n", "/dev/sdb").unwrap();
        for answer in ["", "yes", "y\n", "/dev/sda\n"] {
            assert!(
                agrees(answer, "/dev/sdb").unwrap_err().to_string().contains("nothing was written")
            );
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        assert_eq!(difference(&[1, 2, 3], &[1, 9, 3], 4096), "at byte 4,097");
        assert_eq!(difference(&[1, 2, 3], &[1], 0), "at byte 1");
    }

    /// An image of three MiB and a file that stands for a device with an older image.
    fn image_and_device(folder: &Path) -> (Image, PathBuf) {
        let (path, device) = (folder.join("image"), folder.join("device"));
        std::fs::write(&path, vec![7; 3 << 20]).unwrap();
        std::fs::write(&device, vec![9; 4 << 20]).unwrap();
        (Image { path, size: 3 << 20 }, device)
    }

    #[test]
    fn an_interrupted_device_is_said_to_be_incomplete_and_does_not_boot() {
        let folder = tempfile::tempdir().unwrap();
        let (image, device) = image_and_device(folder.path());
        let asked = std::cell::Cell::new(0);
        let after_the_first = || asked.replace(asked.get() + 1) > 0;
        let error = copy(&image, &device, true, &after_the_first).unwrap_err();
        assert!(matches!(error, Error::Interrupted(_)));
        assert!(error.to_string().contains("incomplete and does not boot"), "{error}");
        let found = std::fs::read(&device).unwrap();
        assert!(found[..HEAD as usize].iter().all(|byte| *byte == 0));
        copy(&image, &device, true, &|| false).unwrap();
        assert!(std::fs::read(&device).unwrap()[..3 << 20].iter().all(|byte| *byte == 7));
    }

    #[test]
    fn who_gives_up_before_the_first_byte_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (image, device) = image_and_device(folder.path());
        let error = copy(&image, &device, true, &|| true).unwrap_err();
        assert!(error.to_string().contains("nothing was written"), "{error}");
        assert!(std::fs::read(&device).unwrap().iter().all(|byte| *byte == 9));
    }

    #[test]
    fn what_no_firmware_boots_is_no_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("demo.img.json");
        std::fs::write(&path, vec![b'{'; 4096]).unwrap();
        let error = open_image(&path).err().unwrap().to_string();
        assert!(error.contains("no boot signature"), "{error}");
    }

    #[test]
    fn a_device_that_forgets_is_found_out() {
        // A temporary folder in memory has no reads past the cache: the target directory is on a disk.
        let target = crate::paths::target().unwrap();
        crate::paths::create(&target).unwrap();
        let folder = tempfile::tempdir_in(target).unwrap();
        let (image, device) = image_and_device(folder.path());
        copy(&image, &device, true, &|| false).unwrap();
        let mut bytes = std::fs::read(&device).unwrap();
        bytes[(2 << 20) + 5] ^= 1;
        std::fs::write(&device, bytes).unwrap();
        let error = compare(&image, &device, true).unwrap_err().to_string();
        assert!(error.contains("at byte 2,097,157"), "{error}");
    }

    #[test]
    fn an_empty_image_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(open_image(file.path()).is_err());
        assert!(open_image(Path::new("/no/such.img")).is_err());
    }
}
