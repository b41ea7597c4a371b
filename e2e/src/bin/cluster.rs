//! `weft-cluster`: a real Kubernetes on this machine. `./justw cluster` builds and runs it.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use weft_e2e::cluster::{
    check, config::Families, control, down, folder::Folder, images, init, say, status, up,
};

/// A real Kubernetes on this machine: one node, no Docker, no registry of images.
#[derive(Debug, Parser)]
#[command(name = "weft-cluster", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// Which cluster.
#[derive(Debug, Args)]
struct Which {
    /// The cluster's name; several can run side by side.
    #[arg(long, default_value = "default")]
    name: String,
}

impl Which {
    fn folder(&self) -> anyhow::Result<Folder> {
        Folder::of(&self.name)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start it (building what is missing) and print the lines to evaluate.
    Up {
        #[command(flatten)]
        which: Which,
        /// Folder of image archives to load [default: target/images].
        #[arg(long)]
        images: Option<PathBuf>,
        /// Addresses of pods and Services.
        #[arg(long, value_enum, default_value = "dual")]
        ip_family: Families,
    },
    /// End it and remove what it left.
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Say what runs; fails when the cluster is not up.
    Status {
        #[command(flatten)]
        which: Which,
    },
    /// Print the lines to evaluate.
    Env {
        #[command(flatten)]
        which: Which,
    },
    /// Import image archives (OCI or docker save) [default: those of target/images].
    Load {
        #[command(flatten)]
        which: Which,
        /// The archives.
        archives: Vec<PathBuf>,
    },
    /// End a program of the node, such as kube-apiserver, until `start`.
    Stop {
        #[command(flatten)]
        which: Which,
        /// Its name, as `status` says.
        program: String,
    },
    /// Start a program of the node that was stopped.
    Start {
        #[command(flatten)]
        which: Which,
        /// Its name, as `status` says.
        program: String,
    },
    /// Halt a program of the node (SIGSTOP) until `resume`.
    Pause {
        #[command(flatten)]
        which: Which,
        /// Its name, as `status` says.
        program: String,
    },
    /// Let a halted program of the node go on.
    Resume {
        #[command(flatten)]
        which: Which,
        /// Its name, as `status` says.
        program: String,
    },
    /// Try out whether a cluster of our own can run here; ends with 3 and the reason when not.
    Check,
    /// Run a command in the node's namespaces.
    Enter {
        #[command(flatten)]
        which: Which,
        /// The command.
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Make the images' archives from static programs.
    Images {
        /// Folder of the programs [default: beside this one].
        #[arg(long)]
        programs: Option<PathBuf>,
        /// Folder for the archives [default: target/images].
        #[arg(long)]
        target: Option<PathBuf>,
    },
    /// What `up` starts as the node's process 1.
    #[command(hide = true)]
    Init { folder: PathBuf, programs: PathBuf },
}

/// `check` ends with this where no cluster can run: nothing else that goes wrong does.
const CANNOT: u8 = 3;

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout)]
fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up { which, images, ip_family } => {
            let images = images.unwrap_or_else(images::default_folder);
            print!("{}", up::run(&which.folder()?, &images, ip_family)?);
        }
        Command::Down { which } => down::run(&which.folder()?)?,
        Command::Status { which } => {
            print!("{}", status::report(&which.folder()?)?);
        }
        Command::Env { which } => print!("{}", up::environment(&which.folder()?)?),
        Command::Load { which, archives } => control::load(&which.folder()?, archives)?,
        Command::Stop { which, program } => control::stop(&which.folder()?, &program)?,
        Command::Start { which, program } => control::start(&which.folder()?, &program)?,
        Command::Pause { which, program } => control::pause(&which.folder()?, &program)?,
        Command::Resume { which, program } => control::resume(&which.folder()?, &program)?,
        Command::Check => {
            if let Err(reason) = check::run() {
                println!("{reason:#}");
                return Ok(ExitCode::from(CANNOT));
            }
        }
        Command::Enter { which, command } => return control::enter(&which.folder()?, &command),
        Command::Images { programs, target } => control::images(programs, target)?,
        Command::Init { folder, programs } => match init::run(&folder, &programs)? {},
    }
    Ok(ExitCode::SUCCESS)
}
