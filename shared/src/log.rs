//! The log of a program: one line per event on stderr, as text or as JSON for collectors.
//!
//! Edge. Independent of the events; code that logs uses `tracing`.

use std::borrow::Cow;
use std::fmt;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::str::FromStr;

use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
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

/// The format of a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// A checked filter: a level for all modules, levels for single modules, or both, separated by
/// commas.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Targets);

/// Why a text is not a filter.
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

/// Starts the log of this process. If a log already runs (several programs in one test), it is
/// kept.
pub fn start(config: &LogConfig) {
    let terminal = std::io::stderr().is_terminal();
    let format = config.format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    // JSON escapes control characters by itself; text does not.
    let fields = debug_fn(write_field).delimited(" ");
    let filter = config.filter.0.clone();
    let registry = tracing_subscriber::registry();
    let started = match format {
        Format::Text => registry.with(lines.fmt_fields(fields).with_filter(filter)).try_init(),
        Format::Json => {
            registry.with(lines.json().flatten_event(true).with_filter(filter)).try_init()
        }
    };
    if started.is_err() {
        tracing::debug!("the log runs already");
    }
}

/// Writes one field of a text line: the message as it is, others as `NAME=VALUE`.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => write!(writer, "{}", escaped(&format!("{value:?}"))),
        name => write!(writer, "{name}={}", escaped(&format!("{value:?}"))),
    }
}

/// Returns `text` with its control characters escaped as in a Rust string. Names from outside must
/// not be able to start a line of their own or to control the terminal.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character.is_control() {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    escaped.into()
}

/// Logs the error of a program with all causes in one line. Returns exit code 1 if there is an
/// error.
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

    #[test]
    fn control_characters_are_escaped_and_nothing_else() {
        let rows = [
            (
                "plain text, Gr\u{fc}\u{df}e \u{1f600} 'x' \\",
                "plain text, Gr\u{fc}\u{df}e \u{1f600} 'x' \\",
            ),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[31mred\u{7f}\u{9b}0m\0", "\\u{1b}[31mred\\u{7f}\\u{9b}0m\\u{0}"),
        ];
        for (text, expected) in rows {
            assert_eq!(escaped(text), expected);
        }
    }

    /// A writer whose output can be read.
    #[derive(Clone, Default)]
    struct Page(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_the_log_stays_one_line() {
        let page = Page::default();
        let writer = page.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .without_time()
            .fmt_fields(debug_fn(write_field).delimited(" "));
        let evil = "x\n2026 ERROR forged \u{1b}[2J";
        let error = std::io::Error::other(evil);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            let span = tracing::info_span!("span", name = %evil);
            let _entered = span.enter();
            tracing::warn!(name = %evil, quoted = evil, debug = ?evil, %error, count = 7, "{evil}");
        });
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(char::is_control), "{line:?}");
        assert_eq!(line.matches("x\\n2026 ERROR forged \\u{1b}[2J").count(), 6, "{line}");
        assert!(line.contains("WARN") && line.contains("count=7"), "{line}");
    }
}
