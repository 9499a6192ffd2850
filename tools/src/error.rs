//! What can go wrong on the host, each with its place, its cause and its remedy.

use std::fmt::Display;
use std::io;
use std::path::Path;

/// Result of everything in this room.
pub type Result<T> = std::result::Result<T, Error>;

/// Whose fault a failure is decides its kind; the kind decides the exit code of the command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system file or its board file is wrong. Holds the rendered diagnostics.
    #[error("{0}")]
    Rejected(String),
    /// What was asked for cannot be done as asked: a wrong file, a wrong device, a wrong ELF.
    #[error("{what}\n  cause:  {cause}\n  remedy: {remedy}")]
    Refused {
        /// What was refused, and where.
        what: String,
        /// Why.
        cause: String,
        /// What to do about it.
        remedy: String,
    },
    /// Something on this machine failed: a program, a file system, a missing package.
    #[error("{what}\n  cause:  {cause}\n  remedy: {remedy}")]
    Failed {
        /// What failed, and where.
        what: String,
        /// Why.
        cause: String,
        /// What to do about it.
        remedy: String,
    },
    /// The system ran, and a partition did not do what it has to.
    #[error("{0}")]
    Verdict(String),
    /// The user or another program ended the command. Says what was left behind.
    #[error("interrupted: {0}")]
    Interrupted(String),
}

impl Error {
    /// A request that cannot be served as it stands.
    pub fn refused(what: impl Display, cause: impl Display, remedy: impl Display) -> Self {
        Self::Refused {
            what: what.to_string(),
            cause: cause.to_string(),
            remedy: remedy.to_string(),
        }
    }

    /// A failure of this machine.
    pub fn failed(what: impl Display, cause: impl Display, remedy: impl Display) -> Self {
        Self::Failed {
            what: what.to_string(),
            cause: cause.to_string(),
            remedy: remedy.to_string(),
        }
    }

    /// A file that could not be read or written.
    pub fn file(action: &str, path: &Path, cause: &io::Error) -> Self {
        let remedy = match cause.kind() {
            io::ErrorKind::NotFound => "check the path".to_string(),
            io::ErrorKind::PermissionDenied => {
                "check the owner and the rights of the path, or run as root".to_string()
            }
            io::ErrorKind::StorageFull => "free space on that file system".to_string(),
            _ => format!("check {} and the file system that holds it", path.display()),
        };
        Self::failed(format!("cannot {action} {}", path.display()), cause, remedy)
    }

    /// Exit code of the command: 2 for a request that cannot be served, 1 for a failure, 130 as shells
    /// count an interrupt.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Rejected(_) | Self::Refused { .. } => 2,
            Self::Failed { .. } | Self::Verdict(_) => 1,
            Self::Interrupted(_) => 130,
        }
    }
}
