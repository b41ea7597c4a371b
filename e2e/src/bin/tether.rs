//! `weft-tether PARENT PROGRAM [ARGS...]`: runs a program that dies with the process that started it.
//!
//! The kernel is asked to kill this process when its parent ends, then the program takes its place, so that nothing is
//! left behind even when a test is killed.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let error = match (arguments.next(), arguments.next()) {
        (Some(parent), Some(program)) => run(&parent, &program, arguments),
        _ => "usage: weft-tether PARENT PROGRAM [ARGS...]".to_owned(),
    };
    // The log file that the starter opened.
    #[allow(clippy::print_stderr)]
    {
        eprintln!("weft-tether: {error}");
    }
    ExitCode::from(127)
}

/// Returns only when the program cannot be run.
fn run(parent: &OsString, program: &OsString, arguments: impl Iterator<Item = OsString>) -> String {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return format!("prctl: {error}");
    }
    // The parent may have ended before the request was made.
    let alive = getppid().map(|pid| OsString::from(pid.as_raw_nonzero().to_string()));
    if alive.as_ref() != Some(parent) {
        return "the process that started this one is gone".to_owned();
    }
    let error = Command::new(program).args(arguments).exec();
    format!("{}: {error}", program.display())
}
