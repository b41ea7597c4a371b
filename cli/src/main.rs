//! `weft`: the command line of the mesh.

mod admin;
mod analyze;
mod chart;
mod check;
mod cleanup;
mod duration;
mod http;
mod inject;
mod install;
mod kubernetes;
mod manifest;
mod names;
mod output;
mod proxy_config;
mod proxy_status;
mod table;
mod token;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The command line of the Weft mesh.
#[derive(Debug, Parser)]
#[command(name = "weft", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Install(install::Args),
    Uninstall(install::UninstallArgs),
    Check(check::Args),
    Analyze(analyze::Args),
    Token(token::Args),
    Validate(validate::Args),
    Inject(inject::Args),
    ProxyStatus(proxy_status::Args),
    ProxyConfig(proxy_config::Args),
    Cleanup(cleanup::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Install(args) => install::run(&args),
        Command::Uninstall(args) => install::uninstall(&args),
        Command::Check(args) => check::run(&args),
        Command::Analyze(args) => analyze::run(&args),
        Command::Token(args) => token::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Validate(args) => validate::run(&args),
        Command::Inject(args) => inject::run(&args),
        Command::ProxyStatus(args) => proxy_status::run(&args).map(|()| ExitCode::SUCCESS),
        Command::ProxyConfig(args) => proxy_config::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Cleanup(args) => cleanup::run(&args).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::error(&format!("error: {error:#}"));
            // 1 is the answer "not valid"; this is "could not be done".
            ExitCode::from(2)
        }
    }
}
