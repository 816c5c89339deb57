//! The log of a program: one line per event on stderr, text for people or JSON for collectors.
//!
//! Edge. Knows no event; whoever has something to say uses `tracing`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The flags of the log, flattened into each program's flags.
#[derive(Clone, Debug, clap::Args)]
pub struct LogConfig {
    /// What is logged: error, warn, info, debug, trace or off, also per module: info,kube=debug
    #[arg(long = "log", value_name = "LEVEL-OR-FILTER", default_value = "info")]
    pub filter: Filter,
    /// How it is written [default: text on a terminal, else json]
    #[arg(long = "log-format", value_name = "FORMAT", value_enum)]
    pub format: Option<Format>,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// A checked filter: a level for everything, levels for modules, or both, separated by commas.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Targets);

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part:?} is no level: expected error, warn, info, debug, trace, off or MODULE=LEVEL")]
pub struct FilterError {
    part: String,
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        text.split(',').try_fold(Targets::new(), add).map(Self)
    }
}

/// Starts the log of this process; a log that runs already (several programs in one test) stays.
pub fn start(config: &LogConfig) {
    let terminal = std::io::stderr().is_terminal();
    let format = config.format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    let filter = config.filter.0.clone();
    let registry = tracing_subscriber::registry();
    let started = match format {
        Format::Text => registry.with(lines.with_filter(filter)).try_init(),
        Format::Json => {
            registry.with(lines.json().flatten_event(true).with_filter(filter)).try_init()
        }
    };
    if started.is_err() {
        tracing::debug!("the log runs already");
    }
}

/// The last words of a program: its error with all causes in one line, and exit code 1.
pub fn exit_code(result: Result<(), impl std::error::Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", crate::flags::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// Adds one part of a filter: `LEVEL` or `MODULE=LEVEL`.
fn add(targets: Targets, part: &str) -> Result<Targets, FilterError> {
    let wrong = || FilterError { part: part.to_owned() };
    let level = |name: &str| match name.trim().to_ascii_lowercase().as_str() {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        "off" => Ok(LevelFilter::OFF),
        _ => Err(wrong()),
    };
    match part.split_once('=') {
        None => Ok(targets.with_default(level(part)?)),
        Some((module, _)) if module.trim().is_empty() => Err(wrong()),
        Some((module, name)) => Ok(targets.with_target(module.trim(), level(name)?)),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_filter_is_levels_and_modules() {
        let filter = "warn, kubedns=debug,kube::client=off".parse::<Filter>().unwrap().0;
        assert!(filter.would_enable("kubedns::watch", &Level::DEBUG));
        assert!(!filter.would_enable("dnscache", &Level::INFO));
        assert!(!filter.would_enable("kube::client", &Level::ERROR));
        assert!("INFO".parse::<Filter>().is_ok());
        for bad in ["", "verbose", "info,", "=debug", "kubedns=", "kubedns=3", "info;debug"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}
