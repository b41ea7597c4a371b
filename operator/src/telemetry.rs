//! Logging of the process.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::settings::{LogFormat, Settings};

/// Starts logging to standard error.
///
/// # Errors
/// When the filter is not one, or logging was started before.
pub fn start(settings: &Settings) -> anyhow::Result<()> {
    // What the client of Kubernetes fails at is told by whoever used it, once.
    let level = format!("kube_client=off,kube_runtime=off,{}", settings.log_level);
    let filter = EnvFilter::try_new(level)?;
    let layer = fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    match settings.log_format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init()?,
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init()?,
    }
    Ok(())
}
