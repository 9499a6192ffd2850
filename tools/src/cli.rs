//! The command line: what each subcommand takes, with examples, and what it calls.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bulkhead::audit::audit;
use bulkhead::bench::BenchOptions;
use bulkhead::bench::suite::Suite;
use bulkhead::compile;
use bulkhead::explain::explain;
use bulkhead::flash::{FlashOptions, flash};
use bulkhead::fmt;
use bulkhead::measure::{Format, MeasureOptions, close, demo, measure};
use bulkhead::monitor::{MonitorOptions, monitor};
use bulkhead::new::new;
use bulkhead::provision::{self, Need};
use bulkhead::schema::{self, schema};
use bulkhead::verify::verify;
use bulkhead::who::who;
use bulkhead::{
    BuildOptions, Error, Firmware, Machine, Result, RunOptions, Target, build_image, build_native,
    difference, log, paths, probe, report_page, run_image,
};
use bulkhead_config::Input;
use clap::{Parser, Subcommand};

/// From one TOML file to running, measured partitions.
#[derive(Parser)]
#[command(name = "bulkhead", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Proves a system file and shows its plan; says every mistake at once
    #[command(after_help = "Examples:
  bulkhead check partitions/demo.toml
  bulkhead check partitions/demo.toml --board partitions/boards/qemu-epyc.toml
  bulkhead check partitions/press-line.toml --format json")]
    Check {
        #[command(flatten)]
        system: SystemArguments,
        /// How mistakes and the plan are printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Writes a commented system file for a board, which checks and runs
    #[command(after_help = "Nothing is overwritten.

Examples:
  bulkhead new press --board partitions/boards/bochs-skylake-x.toml
  bulkhead new press --board partitions/boards/bochs-skylake-x.toml --output partitions/press.toml")]
    New {
        /// Name of the system: lower-case letters, digits and hyphens
        name: String,
        /// The board file
        #[arg(long)]
        board: PathBuf,
        /// The file to write, instead of NAME.toml in the current folder
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Explains a rule: why it exists, with a good and a bad example
    #[command(after_help = "Examples:
  bulkhead explain BH0301
  bulkhead explain                      # lists every rule
  bulkhead explain BH0301 --format json")]
    Explain {
        /// The code of the rule, as messages show it
        code: Option<String>,
        /// How it is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Formats system and board files in place: order, blanks, units; every comment stays
    #[command(
        after_help = "A file is replaced whole or not at all; one that is no TOML leaves all of them as they are.

Examples:
  bulkhead fmt partitions/demo.toml
  bulkhead fmt --check partitions/*.toml partitions/boards/*.toml"
    )]
    Fmt {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Writes nothing; exit code 1 when a file is not formatted
        #[arg(long)]
        check: bool,
    },
    /// Prints the JSON Schema of system or board files, for editors
    #[command(
        after_help = "Name it in the first line of a file, and taplo or VS Code (Even Better TOML) completes and checks:
  #:schema ./system.json

Examples:
  bulkhead schema > system.json
  bulkhead schema board > board.json"
    )]
    Schema {
        /// What it is of
        #[arg(value_enum, default_value_t)]
        of: schema::Of,
    },
    /// Builds guests and hypervisor and writes a bootable disk image (BIOS and UEFI)
    #[command(
        after_help = "Leaves IMAGE.elf and IMAGE.json beside the image: `run` and `log` need them.

Examples:
  bulkhead build partitions/demo.toml -o demo.img
  bulkhead build partitions/demo.toml --board partitions/boards/qemu-epyc.toml -o epyc.img"
    )]
    Build {
        #[command(flatten)]
        system: SystemArguments,
        /// The image to write
        #[arg(short, long)]
        output: PathBuf,
    },
    /// Proves a built image again, from its own bytes: one owner for each page, port, core and tick
    #[command(
        after_help = "Reads table, hypervisor, menu and modules out of the image, with no code of the planner. Every build
does the same. config/README.md lists what is proven.

Examples:
  bulkhead audit demo.img
  bulkhead audit demo.img --format json"
    )]
    Audit {
        /// The image
        image: PathBuf,
        /// How faults are printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Runs a system or an image in an emulator or on a board, and shows its decoded log
    #[command(
        after_help = "With --rig the image is brought to the board, the board is switched, and one that hangs is tried again;
the whole log is kept in IMAGE.rig.log. hil-tests/rigs/example.toml has every key of a rig file.

Examples:
  bulkhead run partitions/demo.toml
  bulkhead run demo.img --report report.json
  bulkhead run partitions/demo.toml --native motion
  bulkhead run partitions/linux-rt.toml --console linux      # Ctrl-] ends the run
  bulkhead run partitions/linux-rt.toml --type linux='poweroff -f' --type office='poweroff -f'
  bulkhead run partitions/demo.toml --firmware uefi            # in Bochs 3.0, which has UEFI and VT-x
  bulkhead run partitions/demo.toml --target bochs-3-fast      # twice as fast; its times are not right
  bulkhead run partitions/demo.toml --cpu-model tigerlake --serial serial.log
  bulkhead run partitions/demo.toml --board partitions/boards/qemu-epyc.toml --target qemu
  bulkhead run demo.img --target qemu-fast --firmware uefi --screenshot screen.png
  bulkhead run my-line.toml --rig my-rig.toml"
    )]
    Run(RunArguments),
    /// Decodes the serial log of a board, a file, or standard input
    #[command(
        after_help = "Without --elf, the build that the log names is looked for among those built in this tree.

Examples:
  bulkhead log /dev/ttyS0
  bulkhead log saved.log --elf demo.img.elf
  ssh bench cat /dev/ttyUSB0 | bulkhead log --elf demo.img.elf"
    )]
    Log {
        /// A serial port, a file, or - for standard input
        source: Option<PathBuf>,
        /// The hypervisor's ELF that wrote the log: IMAGE.elf
        #[arg(long)]
        elf: Option<PathBuf>,
        /// Baud rate of a serial port
        #[arg(long, default_value_t = 115_200)]
        baud: u32,
    },
    /// Builds and runs a system, and shows what its partitions measured
    #[command(
        after_help = "With a suite the board is measured too: what exits cost, timers, windows, switches and boot, idle and beside noisy
neighbours, with the same guests without a hypervisor and with the least that an exit can cost beside them.
Exit code 0 only when every partition that must finish passed and, with --compare, no figure is worse.
tools/README.md documents the report's fields.

Examples:
  bulkhead measure partitions/demo.toml
  bulkhead measure partitions/demo.toml --suite quick --report bench.json --html bench.html
  bulkhead measure partitions/demo.toml --suite quick --baseline old.json
  bulkhead measure partitions/demo.toml --suite quick --compare old.json
  bulkhead measure partitions/demo.toml --firmware uefi
  bulkhead measure partitions/press-line.toml --report report.json --plot latency.svg
  bulkhead measure my.toml --gantt ran.svg
  bulkhead measure my.toml --rig my-rig.toml
  bulkhead measure partitions/demo.toml --format json"
    )]
    Measure(MeasureArguments),
    /// Shows a running system live: partitions, windows, exits, health, latency, log
    #[command(
        after_help = "SOURCE is a system file or an image, which is run in an emulator (or on a board with --rig), or a log that somebody
else writes: a serial port, a file, a FIFO, or - for standard input. `q` quits, and ends a run that was started here.
Without a terminal it prints plain lines. How late windows began comes at the end of the run, everything else while it runs.

Examples:
  bulkhead monitor partitions/demo.toml
  bulkhead monitor partitions/demo.toml --target bochs-3
  bulkhead monitor /dev/ttyUSB0 --metrics 127.0.0.1:9464
  bulkhead monitor my-line.toml --rig my-rig.toml
  bulkhead monitor saved.log --elf demo.img.elf --plain --trace run.json    # open it in ui.perfetto.dev"
    )]
    Monitor(MonitorArguments),
    /// Writes an image to a device, reads it back and compares
    #[command(
        after_help = "Refuses mounted devices, disks of the running system, and devices that are too small.
Asks for the device's name before it overwrites anything.

Examples:
  bulkhead flash demo.img /dev/sdb
  bulkhead flash demo.img /dev/sdb --yes"
    )]
    Flash {
        /// The image
        image: PathBuf,
        /// The device: /dev/sdb
        device: PathBuf,
        /// Asks nothing
        #[arg(long)]
        yes: bool,
    },
    /// Draws the system as one HTML page: who owns what, its time, its memory, its digests, its rules
    #[command(
        after_help = "The page stands alone: no network, no script. It prints, and follows a dark or light setting.

Examples:
  bulkhead report partitions/demo.toml
  bulkhead report partitions/demo.toml -o demo.html
  bulkhead report partitions/demo.toml --board partitions/boards/qemu-epyc.toml
  bulkhead report partitions/demo.toml --build"
    )]
    Report {
        #[command(flatten)]
        system: SystemArguments,
        /// The page to write; by default the system's name with .html, in the current folder
        #[arg(short, long, value_name = "FILE.html")]
        output: Option<PathBuf>,
        /// Builds the guests first, so that the page carries the digests of their images and of the table
        #[arg(long)]
        build: bool,
    },
    /// Says who owns an address, a port, a core or an instant, and shows the line that says so
    #[command(
        after_help = "Questions: 0x2100000 (or \"33 MiB\"), plc:0x1000, port 0x3f8, irq 4, pci 00:1f.2, core 2,
at 350 us [core N] [plan NAME], partition NAME, housekeeping, hypervisor.
Exit code 0 for every answer, also when it is nobody's; 2 for a question that is not understood.

Examples:
  bulkhead who partitions/demo.toml 0x2100000
  bulkhead who partitions/demo.toml at 350 us
  bulkhead who partitions/demo.toml at 350 us core 0 --format json
  bulkhead who partitions/demo.toml motion"
    )]
    Who {
        #[command(flatten)]
        system: SystemArguments,
        /// What to ask for
        #[arg(required = true)]
        query: Vec<String>,
        /// How the answer is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Says in words who gains or loses what from one system to another
    #[command(
        after_help = "Compares what the two mean, not how they are written. The gravest change comes first.
Images that are built from a folder are compared by name only: their digests are in `report --build`.
Exit code 0 when nothing changes, 1 when something does, 2 when a system is rejected.

Examples:
  bulkhead diff running.toml next.toml
  bulkhead diff running.toml next.toml --format json"
    )]
    Diff {
        /// The system file as it is
        old: PathBuf,
        /// The system file as it is to be
        new: PathBuf,
        /// Compares both on this board, instead of each on the one that it names
        #[arg(long, value_name = "BOARD.toml")]
        board: Option<PathBuf>,
        /// How the changes are printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Makes the board file of a machine: on a running Linux, or by an image that boots on the bare machine
    #[command(
        after_help = "On Linux, run it as root: a user sees less, and the file says what is missing.
The image says the board over COM1 (115200 baud, 8N1) and in short on the screen.

Examples:
  sudo bulkhead probe --name press-7 -o partitions/boards/press-7.toml
  bulkhead probe --image probe.img && bulkhead flash probe.img /dev/sdb
  bulkhead probe --from-log captured.log --name press-7 -o partitions/boards/press-7.toml
  bulkhead probe --run qemu
  sudo bulkhead probe --facts machine.facts
  bulkhead probe --from-facts machine.facts --name press-7"
    )]
    Probe(ProbeArguments),
    /// Gets Debian's kernels, with and without PREEMPT_RT, and makes RAM disks for them
    #[command(
        after_help = "Nothing is installed, and nothing needs root: packages are downloaded into cargo's target directory, and files
taken out of them. Without --output they go where the shipped systems look for them: partitions/linux.

Examples:
  bulkhead linux
  bulkhead linux --output my-kernels"
    )]
    Linux {
        /// The folder to write: vmlinuz, vmlinuz-rt, initrd (a shell) and initrd-rt (with cyclictest)
        #[arg(short, long, value_name = "FOLDER")]
        output: Option<PathBuf>,
    },
    /// Makes a RAM disk for a Linux: Debian's busybox, a shell on the console, and your files
    #[command(
        after_help = "A program brings the libraries that it is linked to, from this machine. Words behind `--` in the kernel's
command line are run instead of the shell; then Linux switches itself off. The same files give the same bytes.

Examples:
  bulkhead initrd -o my.initrd
  bulkhead initrd -o my.initrd /usr/bin/cyclictest ./app app.conf=/etc/app.conf"
    )]
    Initrd {
        /// Files: FILE goes to /bin, FILE=/PATH goes there
        files: Vec<String>,
        /// The RAM disk to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Everything from a bare machine to a latency table: installs, builds, boots, measures
    #[command(after_help = "Examples:
  cargo demo")]
    Demo,
    /// Runs every check and test of the tree
    #[command(after_help = "Examples:
  cargo verify
  cargo verify --long")]
    Verify {
        /// Runs the long emulator runs too
        #[arg(long)]
        long: bool,
    },
}

/// A system file and its board.
#[derive(clap::Args)]
struct SystemArguments {
    /// The system file
    system: PathBuf,
    #[command(flatten)]
    board: BoardArgument,
}

impl SystemArguments {
    fn input(&self) -> Input<'_> {
        Input { system: &self.system, board: self.board.board.as_deref() }
    }
}

#[derive(clap::Args)]
struct BoardArgument {
    /// Takes this board file instead of the one that the system names
    #[arg(long, value_name = "BOARD.toml")]
    board: Option<PathBuf>,
}

/// The emulated machine, named in one way everywhere.
#[derive(clap::Args)]
struct MachineArguments {
    /// The emulator; by default `bochs`, and `bochs-3` by UEFI
    #[arg(long, value_enum)]
    target: Option<Target>,
    /// The firmware that boots the image
    #[arg(long, value_enum, default_value_t)]
    firmware: Firmware,
    /// The emulated processor, as the emulator names it, instead of its own: `bochs-bin --help cpu`, `qemu-system-x86_64 -cpu help`.
    /// Features may follow: `ryzen,+x2apic`
    #[arg(long, value_name = "MODEL", value_parser = bulkhead::emulator::machine::model)]
    cpu_model: Option<String>,
}

impl MachineArguments {
    /// The machine; says which one it is where the firmware chose the emulator.
    fn machine(&self) -> Result<Machine> {
        let machine = Machine::chosen(self.target, self.firmware, self.cpu_model.clone());
        machine.check()?;
        if self.target.is_none() && machine.target != Target::default() {
            eprintln!(
                "bulkhead: {} has a BIOS only, so this runs in {}",
                Target::default().name(),
                machine.target.name()
            );
        }
        Ok(machine)
    }
}

#[derive(clap::Args)]
struct RunArguments {
    /// A system file, or an image that `bulkhead build` wrote
    source: PathBuf,
    #[command(flatten)]
    board: BoardArgument,
    #[command(flatten)]
    machine: MachineArguments,
    /// Where to write the report, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
    /// Boots this partition's guest alone, without the hypervisor, for comparison
    #[arg(long, value_name = "PARTITION")]
    native: Option<String>,
    /// Logical processors of the emulated machine, instead of the board's
    #[arg(long)]
    cores: Option<usize>,
    /// Seconds of real time that the run may take
    #[arg(long)]
    timeout: Option<u64>,
    /// Where to write a picture of the screen, as PNG (QEMU)
    #[arg(long, value_name = "FILE.png")]
    screenshot: Option<PathBuf>,
    /// Where to keep the serial log as it came, for `bulkhead log`
    #[arg(long, value_name = "FILE")]
    serial: Option<PathBuf>,
    /// Shows the console of this partition alone, as it is, and sends it what is typed or piped in (Bochs, or --rig)
    #[arg(long, value_name = "PARTITION", conflicts_with = "native")]
    console: Option<String>,
    /// Types this line to this partition when it shows a prompt; may be given many times (Bochs, or --rig)
    #[arg(long = "type", value_name = "PARTITION=LINE", value_parser = typed_line, conflicts_with = "native")]
    typed: Vec<(String, String)>,
    /// Runs it on the board of this rig instead of in an emulator
    #[arg(long, value_name = "RIG.toml", conflicts_with_all = ["target", "firmware", "native", "cores", "cpu_model", "screenshot"])]
    rig: Option<PathBuf>,
}

#[derive(clap::Args)]
struct MonitorArguments {
    /// A system file, an image, a serial port, a file, a FIFO, or - for standard input
    source: Option<PathBuf>,
    #[command(flatten)]
    board: BoardArgument,
    /// The hypervisor's ELF that writes the log: IMAGE.elf; by default the build is looked for among those built in this tree
    #[arg(long)]
    elf: Option<PathBuf>,
    /// Baud rate of a serial port
    #[arg(long, default_value_t = 115_200)]
    baud: u32,
    #[command(flatten)]
    machine: MachineArguments,
    /// Runs the system on the board of this rig instead of in an emulator
    #[arg(long, value_name = "RIG.toml", conflicts_with_all = ["target", "firmware", "cpu_model"])]
    rig: Option<PathBuf>,
    /// Serves the figures as OpenMetrics text at http://ADDR:PORT/metrics; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    metrics: Option<SocketAddr>,
    /// Writes windows, health events, figures and log lines as a trace that Perfetto opens
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
    /// Prints plain lines on a terminal too
    #[arg(long)]
    plain: bool,
}

#[derive(clap::Args)]
struct MeasureArguments {
    #[command(flatten)]
    system: SystemArguments,
    /// Measures the board too, and how thoroughly
    #[arg(long, value_enum)]
    suite: Option<Suite>,
    /// Where to write the report, as JSON
    #[arg(long)]
    report: Option<PathBuf>,
    /// Where to write the figures alone, as JSON, for a later --compare
    #[arg(long, value_name = "FILE.json")]
    baseline: Option<PathBuf>,
    /// Holds the figures against those of an earlier run: what --baseline or --report wrote
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Where to write the page, as HTML: it stands alone, with its pictures inside
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Where to draw the histograms, as SVG
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Where to draw what ran on the time-shared cores over the plan, as SVG; the system file needs `[log] windows = true`
    #[arg(long)]
    gantt: Option<PathBuf>,
    /// How the figures are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Seconds of real time that each run may take
    #[arg(long)]
    timeout: Option<u64>,
    #[command(flatten)]
    machine: MachineArguments,
    /// Measures on the board of this rig instead of in an emulator
    #[arg(long, value_name = "RIG.toml", conflicts_with_all = ["target", "firmware", "cpu_model"])]
    rig: Option<PathBuf>,
}

impl MeasureArguments {
    fn options(self) -> Result<MeasureOptions> {
        Ok(MeasureOptions {
            bench: BenchOptions {
                machine: self.machine.machine()?,
                system: self.system.system,
                board: self.system.board.board,
                suite: self.suite,
                timeout: self.timeout.map(Duration::from_secs),
                rig: self.rig,
                quiet: self.format == Format::Json,
                ..BenchOptions::default()
            },
            report: self.report,
            baseline: self.baseline,
            compare: self.compare,
            html: self.html,
            plot: self.plot,
            gantt: self.gantt,
            format: self.format,
        })
    }
}

#[derive(clap::Args)]
struct ProbeArguments {
    /// What the board is called
    #[arg(long, default_value = probe::NAME)]
    name: String,
    /// Where to write the board file, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Builds the probe image, for `bulkhead flash`
    #[arg(long, value_name = "FILE.img", group = "way", conflicts_with = "output")]
    image: Option<PathBuf>,
    /// Takes the board file out of what the probe image said over a serial port
    #[arg(long, value_name = "FILE", group = "way")]
    from_log: Option<PathBuf>,
    /// Boots the probe image in an emulator: the machine of the board file that ships for it
    #[arg(long, value_enum, value_name = "EMULATOR", group = "way")]
    run: Option<Target>,
    /// Writes what was read of this machine, before anything is concluded: for a bug report
    #[arg(long, value_name = "FILE", group = "way", conflicts_with = "output")]
    facts: Option<PathBuf>,
    /// Makes the board file from what --facts wrote on another machine
    #[arg(long, value_name = "FILE", group = "way")]
    from_facts: Option<PathBuf>,
}

impl Cli {
    /// Does what was asked; the exit code of what succeeded is 0, but for `diff`, which tells by it whether two systems differ.
    ///
    /// # Errors
    /// As the subcommand.
    pub fn run(self) -> Result<ExitCode> {
        let done = match self.command {
            Command::Diff { old, new, board, format } => {
                let board = board.as_deref();
                let on_board = |system| Input { system, board };
                let (text, differs) = difference::diff(on_board(&old), on_board(&new), format)?;
                show(&text);
                return Ok(ExitCode::from(u8::from(differs)));
            }
            Command::Check { system, format } => {
                compile::check(system.input(), format == Format::Json)
            }
            Command::New { name, board, output } => {
                let file = new(&name, &board, output)?.display().to_string();
                println!("{file} is written; `bulkhead run {file}` runs it");
                Ok(())
            }
            Command::Explain { code, format } => {
                show(&explain(code.as_deref(), format == Format::Json)?);
                Ok(())
            }
            Command::Fmt { files, check } => fmt::run(&files, check),
            Command::Schema { of } => {
                show(&schema(of));
                Ok(())
            }
            Command::Build { system, output } => build(system, output),
            Command::Audit { image, format } => audit(&image, format),
            Command::Run(arguments) => run(&arguments),
            Command::Log { source, elf, baud } => {
                log::show(source.as_deref(), baud, elf.as_deref())
            }
            Command::Measure(arguments) => measure(&arguments.options()?),
            Command::Monitor(arguments) => monitor(&MonitorOptions {
                source: arguments.source,
                board: arguments.board.board,
                elf: arguments.elf,
                baud: arguments.baud,
                machine: arguments.machine.machine()?,
                rig: arguments.rig,
                metrics: arguments.metrics,
                trace: arguments.trace,
                plain: arguments.plain,
            }),
            Command::Flash { image, device, yes } => {
                flash(&FlashOptions { image, device, yes, quiet: false })
            }
            Command::Report { system, output, build } => {
                report_page::report(system.input(), output.as_deref(), build)
            }
            Command::Who { system, query, format } => {
                show(&who(system.input(), &query, format)?);
                Ok(())
            }
            Command::Probe(arguments) => run_probe(&arguments),
            Command::Linux { output } => get_linux(output.as_deref()),
            Command::Initrd { files, output } => {
                let size = bulkhead::linux::initrd(&files, &output, false)?;
                println!("{} ({} bytes)", output.display(), bulkhead::screen::grouped(size));
                Ok(())
            }
            Command::Demo => demo(),
            Command::Verify { long } => verify(long),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// Prints a text; a reader that went away, such as `head`, is no error.
fn show(text: &str) {
    let _closed = std::io::stdout().write_all(text.as_bytes());
}

fn get_linux(folder: Option<&Path>) -> Result<()> {
    for path in bulkhead::linux::kernels(folder, false)? {
        println!("{}", path.display());
    }
    Ok(())
}

fn build(system: SystemArguments, output: PathBuf) -> Result<()> {
    provision::ensure(Need::Build, false)?;
    let options = BuildOptions {
        system: system.system,
        board: system.board.board,
        output: Some(output),
        ..BuildOptions::default()
    };
    let built = build_image(&options)?;
    println!(
        "{} ({} bytes), {} and {}.json",
        built.image.display(),
        bulkhead::screen::grouped(built.manifest.image_size),
        built.elf.display(),
        built.image.display()
    );
    Ok(())
}

/// A partition and what is typed to it.
fn typed_line(text: &str) -> std::result::Result<(String, String), String> {
    let parts = text.split_once('=');
    let (name, line) = parts.ok_or("write PARTITION=LINE, such as linux='poweroff -f'")?;
    Ok((name.to_string(), line.to_string()))
}

fn run(arguments: &RunArguments) -> Result<()> {
    let machine = arguments.machine.machine()?;
    let need = if arguments.rig.is_some() { Need::Build } else { machine.target.need() };
    provision::ensure(need, false)?;
    let image = image_of(arguments)?;
    let run = run_image(&RunOptions {
        image: image.clone(),
        machine,
        cores: arguments.cores,
        timeout: arguments.timeout.map(Duration::from_secs),
        screenshot: arguments.screenshot.clone(),
        rig: arguments.rig.clone(),
        console: arguments.console.clone(),
        typed: arguments.typed.clone(),
        ..RunOptions::default()
    })?;
    if let Some(path) = &arguments.serial {
        paths::write(path, &run.serial)?;
    }
    close(&run, &image, arguments.report.as_deref())
}

fn run_probe(arguments: &ProbeArguments) -> Result<()> {
    probe::check_name(&arguments.name)?;
    if let Some(image) = &arguments.image {
        provision::ensure(Need::Build, false)?;
        probe::build(image, false)?;
        println!(
            "{}: write it to a stick with `bulkhead flash`, and boot the machine from that",
            image.display()
        );
        return Ok(());
    }
    if let Some(path) = &arguments.facts {
        return paths::write(path, probe::linux::gather(Path::new("/")).to_text().as_bytes());
    }
    let board = match (arguments.run, &arguments.from_log, &arguments.from_facts) {
        (Some(target), _, _) => probe_emulator(target, &arguments.name)?,
        (_, Some(path), _) => {
            probe::board_file(&probe::Source::Log(path.clone()), &arguments.name)?
        }
        (_, _, Some(path)) => {
            probe::board_file(&probe::Source::Facts(path.clone()), &arguments.name)?
        }
        _ => probe::board_file(&probe::Source::Here, &arguments.name)?,
    };
    match &arguments.output {
        Some(path) => paths::write_new(path, board.as_bytes())?,
        None => print!("{board}"),
    }
    // Who does not see the file now should see what it says first.
    if arguments.output.is_some() || !std::io::stdout().is_terminal() {
        probe::told(&board).iter().for_each(|sentence| eprintln!("{sentence}"));
    }
    Ok(())
}

fn probe_emulator(target: Target, name: &str) -> Result<String> {
    provision::ensure(target.need(), false)?;
    let folder = probe::run_folder()?;
    let image = paths::beside(&folder, ".img");
    probe::build(&image, false)?;
    let probed = probe::run(&image, &probe::Machine::of(target), &folder, None)?;
    probe::from_log(&probed.log, "what the emulator said", name)
}

/// A system file is built first; anything else is taken for an image.
fn image_of(arguments: &RunArguments) -> Result<PathBuf> {
    let source = &arguments.source;
    let is_system = paths::is_system(Some(source));
    let board = arguments.board.board.clone();
    if board.is_some() && !is_system {
        return Err(paths::no_other_board(source.display()));
    }
    let options = BuildOptions { system: source.clone(), board, ..BuildOptions::default() };
    match &arguments.native {
        Some(partition) if is_system => Ok(build_native(&options, partition)?.image),
        Some(partition) => Err(Error::refused(
            format!("cannot boot {partition} natively from {}", source.display()),
            "an image holds guests only in the form that the hypervisor loads",
            "give the system file instead",
        )),
        None if is_system => Ok(build_image(&options)?.image),
        None => Ok(source.clone()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{} has none", command.get_name());
        }
    }

    #[test]
    fn an_image_has_no_native_guest() {
        let words = ["bulkhead", "run", "demo.img", "--native", "motion"];
        let Command::Run(arguments) = Cli::parse_from(words).command else { panic!("not run") };
        assert!(image_of(&arguments).unwrap_err().to_string().contains("give the system file"));
    }

    #[test]
    fn an_image_stays_on_its_board() {
        let words = ["bulkhead", "run", "demo.img", "--board", "other.toml"];
        let Command::Run(arguments) = Cli::parse_from(words).command else { panic!("not run") };
        let refused = image_of(&arguments).unwrap_err().to_string();
        assert!(refused.contains("leave --board out"), "{refused}");
    }
}
