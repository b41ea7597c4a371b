//! weft-proxy: reads the settings, sets logging up, and runs the control thread.

use std::{io::Write as _, path::Path, sync::Arc};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use weft_proxy::{
    capture,
    control::{self, bootstrap::Bootstrap, standalone},
    data, hooks, logging,
    settings::{Cli, Command, Mode, Pod, ProxyArgs, Settings, StandaloneArgs},
    shared::Shared,
};

fn main() -> anyhow::Result<()> {
    let Cli { command, standalone } = Cli::parse();
    let command = match (command, &standalone.config) {
        (None, Some(file)) => return run_standalone(&standalone, file),
        (None, None) => {
            usage(ErrorKind::MissingRequiredArgument, "--config or a command is needed")
        }
        (Some(_), Some(_)) => usage(ErrorKind::ArgumentConflict, "--config goes without a command"),
        (Some(command), None) => command,
    };
    match command {
        Command::Sidecar(args) => {
            let pod = pod(&args.proxy)?;
            run(Settings::new(*args, pod)?)
        }
        Command::Router(args) => {
            let pod = pod(&args.proxy)?;
            run(Settings::router(*args, pod)?)
        }
        Command::Drain(args) => Ok(hooks::drain(args)?),
        Command::Wait(args) => Ok(hooks::wait(args)?),
        Command::Init(args) => Ok(capture::init::run(&args, &mut std::io::stdout().lock())?),
    }
}

fn usage(kind: ErrorKind, problem: &str) -> ! {
    Cli::command().error(kind, problem).exit()
}

/// By a bootstrap file.
fn run_standalone(args: &StandaloneArgs, file: &Path) -> anyhow::Result<()> {
    let bootstrap = Bootstrap::read(file)?;
    let settings = Settings::standalone(args, bootstrap.said.clone());
    if args.mode == Mode::Validate {
        standalone::load(&settings, &bootstrap)?;
        writeln!(std::io::stdout(), "configuration '{}' OK", file.display())?;
        return Ok(());
    }
    let log = logging::init(&settings.log_level, settings.log_format)?;
    raise_descriptor_limit();
    control_runtime()?.block_on(standalone::run(settings, bootstrap, log, data_thread))?;
    Ok(())
}

/// The pod around the process. Who names it by flags means those, whatever the environment says.
fn pod(args: &ProxyArgs) -> anyhow::Result<Option<Pod>> {
    if args.pod_name.is_some() {
        return Ok(None);
    }
    let environment = |name: &str| std::env::var(name).ok();
    Ok(Pod::read(environment, |path| std::fs::read_to_string(path).ok())?)
}

fn run(settings: Settings) -> anyhow::Result<()> {
    let log = logging::init(&settings.log_level, settings.log_format)?;
    raise_descriptor_limit();
    control_runtime()?.block_on(control::run(settings, log, data_thread))?;
    Ok(())
}

fn control_runtime() -> anyhow::Result<tokio::runtime::LocalRuntime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .context("cannot make the control thread's runtime")
}

/// Every connection is two descriptors; the usual soft limit of 1,024 is soon reached.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, ..limit };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the limit of open files");
        }
    }
}

fn data_thread(index: usize, shared: Arc<Shared>) {
    if let Err(error) = data::run(index, shared) {
        let error = control::certificates::with_causes(&error);
        tracing::error!(thread = index, error, "data thread failed");
    }
}
