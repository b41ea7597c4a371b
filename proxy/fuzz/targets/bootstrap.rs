//! Any text as a bootstrap file: reading it and putting it into the store ends, and does not panic.

use std::path::Path;

use clap::Parser;
use weft_proxy::{
    control::{bootstrap::Bootstrap, standalone},
    settings::{Cli, Settings},
};

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // What other files hold is not part of the input.
    if ["filename", "path"].iter().any(|field| text.contains(field)) {
        return;
    }
    let Ok(bootstrap) = Bootstrap::parse(Path::new("bootstrap.yaml"), text) else { return };
    let cli = Cli::parse_from(["weft-proxy", "--config", "bootstrap.yaml"]);
    let settings = Settings::standalone(&cli.standalone, bootstrap.said.clone());
    let _ = standalone::load(&settings, &bootstrap);
}
