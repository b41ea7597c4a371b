//! The process's own log, on standard error; its level can be changed while it runs.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, reload};

use crate::settings::LogFormat;

/// Why a level is not taken.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It is no level and no list of directives.
    #[error(
        "{0:?} is not a level (trace, debug, info, warn, error, off) or a list of TARGET=LEVEL"
    )]
    Level(String),
    /// Something else in the process logs already.
    #[error("logging was set up before")]
    Twice,
    /// The subscriber has gone.
    #[error("logging has ended")]
    Ended,
}

/// Changes what is logged.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: Option<reload::Handle<EnvFilter, Registry>>,
    current: Arc<Mutex<String>>,
}

impl LogHandle {
    /// A handle for a process whose log is somebody else's, as in tests.
    pub fn detached() -> Self {
        Self { filter: None, current: Arc::new(Mutex::new("info".to_owned())) }
    }

    /// Logs by this level or these directives from now on.
    ///
    /// # Errors
    /// They are not understood.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        let filter = filter(level)?;
        if let Some(handle) = &self.filter {
            handle.reload(filter).map_err(|_| LogError::Ended)?;
        }
        level.clone_into(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// What is logged now.
    pub fn current(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Envoy's names of levels are taken as well.
fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let error = || LogError::Level(level.to_owned());
    let directives = match level {
        "" => return Err(error()),
        "warning" => "warn",
        "critical" => "error",
        other => other,
    };
    if !directives.contains(['=', ','])
        && directives.parse::<tracing::level_filters::LevelFilter>().is_err()
    {
        return Err(error());
    }
    EnvFilter::try_new(directives).map_err(|_| error())
}

/// Sets logging up, once for the process.
///
/// # Errors
/// The level is not understood, or logging is set up already.
pub fn init(level: &str, format: LogFormat) -> Result<LogHandle, LogError> {
    let (layer, handle) = reload::Layer::new(filter(level)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = Registry::default().with(layer).with(lines);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    Ok(LogHandle { filter: Some(handle), current: Arc::new(Mutex::new(level.to_owned())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_taken_by_our_names_and_envoys() {
        let handle = LogHandle::detached();
        for level in ["debug", "warning", "critical", "off", "warn,weft_proxy=trace"] {
            handle.set(level).unwrap();
            assert_eq!(handle.current(), level);
        }
        for level in ["", "loud", "weft_proxy=loud"] {
            assert!(handle.set(level).is_err(), "{level}");
        }
        assert_eq!(handle.current(), "warn,weft_proxy=trace");
    }
}
