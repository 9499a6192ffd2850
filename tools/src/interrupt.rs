//! Ctrl-C and termination: a flag that every long loop looks at, so that each ends in its own orderly way.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static INSTALL: Once = Once::new();

/// Takes over SIGINT, SIGTERM and SIGHUP. Later calls do nothing.
pub fn install() {
    INSTALL.call_once(|| {
        let taken = ctrlc::set_handler(|| REQUESTED.store(true, Ordering::SeqCst));
        if let Err(cause) = taken {
            eprintln!(
                "bulkhead: Ctrl-C cannot be caught here ({cause}); it ends the command at once"
            );
        }
    });
}

/// Asks the command to end, as Ctrl-C does: for a key that means the same.
pub fn request() {
    REQUESTED.store(true, Ordering::SeqCst);
}

/// Whether the user asked the command to end.
#[must_use]
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Fails when the user asked the command to end; `left` says what that leaves behind.
///
/// # Errors
/// [`Error::Interrupted`].
pub fn check(left: &str) -> Result<()> {
    if requested() { Err(Error::Interrupted(left.to_string())) } else { Ok(()) }
}
