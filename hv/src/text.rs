//! Plain text for a person at boot: the same lines on the serial port and on the screen.

use core::fmt::{self, Write};

/// Prints a line on serial and screen, formatted as `format!` does. Boot and panics only: it waits for the port.
macro_rules! say {
    ($($part:tt)*) => {
        $crate::text::print_line(format_args!($($part)*))
    };
}
pub(crate) use say;

/// Both devices at once.
struct Both;

impl Write for Both {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        crate::serial::write_text(text);
        crate::screen::write_text(text);
        Ok(())
    }
}

/// Prints `line` and ends it. Use [`say!`].
pub fn print_line(line: fmt::Arguments<'_>) {
    // `Both` never fails, and a failing `Display` of ours would be a defect that garbles only this line.
    let _never_fails = Both.write_fmt(format_args!("{line}\r\n"));
}
