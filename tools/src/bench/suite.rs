//! What a suite is: beside which neighbours the bench runs, and how much it measures.

use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amounts {
    /// Runs of each operation of the cost guest.
    pub runs: u64,
    /// Samples of the timer task.
    pub samples: u64,
    /// Windows that are watched.
    pub windows: u64,
}

/// How thoroughly the bench measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// About a minute of an emulator: idle, and beside one neighbour that does everything
    Quick,
    /// Beside each kind of neighbour: cache, memory, exits, interrupts, log, and all in turn
    Full,
    /// A million timer samples and ten thousand windows, idle and beside everything
    Soak,
}

impl Suite {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
            Self::Soak => "soak",
        }
    }

    /// Modes of the neighbour, one run each; the first is the quiet one.
    #[must_use]
    pub const fn neighbours(self) -> &'static [&'static str] {
        match self {
            Self::Quick | Self::Soak => &[IDLE, "all"],
            Self::Full => &[IDLE, "wbinvd", "memory", "exits", "ipi", "console", "all"],
        }
    }

    /// Wall-clock time that one of its runs may take unless told otherwise; nothing where the usual limit does.
    #[must_use]
    pub const fn limit(self) -> Option<Duration> {
        match self {
            Self::Quick | Self::Full => None,
            Self::Soak => Some(Duration::from_secs(3_600)),
        }
    }

    /// Runs that the suite takes: the system, one beside each neighbour, the floor, and in an emulator two without the hypervisor.
    #[must_use]
    pub const fn runs(self, native: bool) -> usize {
        let natives = if native { 2 } else { 0 };
        2 + self.neighbours().len() + natives
    }

    /// How much each run measures.
    #[must_use]
    pub const fn amounts(self) -> Amounts {
        match self {
            Self::Quick => Amounts { runs: 500, samples: 100_000, windows: 1_000 },
            Self::Full => Amounts { runs: 1_000, samples: 100_000, windows: 1_000 },
            Self::Soak => Amounts { runs: 10_000, samples: 1_000_000, windows: 10_000 },
        }
    }
}

/// A neighbour as people call it, with its mode where that is another word.
#[must_use]
pub fn told(neighbour: &str) -> String {
    let word = match neighbour {
        "wbinvd" => "cache",
        "ipi" => "interrupts",
        "console" => "log",
        "all" => "everything",
        _ => return neighbour.to_string(),
    };
    format!("{word} ({neighbour})")
}

/// The neighbour that does nothing.
pub const IDLE: &str = "idle";
