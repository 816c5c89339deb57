//! How the three programs read flags: one environment variable per flag, one line per mistake.
//!
//! Edge: reads the arguments and the environment, and may end the process. What a flag means is
//! the business of each program's `config.rs`; this file must not know any flag by name.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser};

use crate::{interface, peer};

pub use crate::peer::AddressError;

/// The flags and environment of this process as a `C`.
///
/// Every flag `--some-flag` of program `prog` is also read from `PROG_SOME_FLAG`; a repeatable flag
/// takes several values from there, separated by spaces. `--help` and `--version` print and exit
/// with 0; a mistake is one line on stderr that names the flag, the value and what is allowed, and
/// exits with 2.
pub fn parse<C: Parser>() -> C {
    match parse_from(std::env::args_os()) {
        Ok(config) => config,
        Err(Stop::Shown(text)) => {
            // Whoever asked may have closed the pipe: nobody is left to tell.
            drop(std::io::stdout().write_all(text.as_bytes()));
            std::process::exit(0)
        }
        Err(Stop::Wrong(line)) => {
            eprintln!("{line}");
            std::process::exit(WRONG)
        }
    }
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Help or version was asked for: this is it.
    Shown(String),
    /// A flag or its value is wrong: one line that says which and what is allowed.
    Wrong(String),
}

/// [`parse`] without ending the process: `arguments` begins with the program's name.
pub fn parse_from<C: Parser>(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<C, Stop> {
    let arguments = arguments.into_iter().map(Into::into).collect::<Vec<OsString>>();
    let mut command = command::<C>(&arguments);
    let read = command.try_get_matches_from_mut(arguments).and_then(|matches| {
        C::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    });
    read.map_err(|error| match error.use_stderr() {
        false => Stop::Shown(error.render().to_string()),
        true => Stop::Wrong(one_line(&error)),
    })
}

/// Prints what is wrong with flags that contradict each other, one line, and yields exit code 2:
/// for checks that need more than one flag, made by `main` after [`parse`].
pub fn wrong(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {}", chain(error));
    ExitCode::from(WRONG as u8)
}

/// What an error says, followed by what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Some errors repeat their causes.
        if !line.ends_with(&text) {
            write!(line, ": {text}").expect("a String takes all text");
        }
        source = cause.source();
    }
    line.replace(['\n', '\r'], " ")
}

/// Why a text is not a listening address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected IP:PORT, such as 0.0.0.0:53 or [::]:53")]
pub struct ListenError;

/// A listening address with its port: `IP:PORT` or `[IPv6]:PORT`; port 0 lets the system choose.
pub fn listen_address(text: &str) -> Result<SocketAddr, ListenError> {
    text.parse().map_err(|_| ListenError)
}

/// [`peer::server_address`] with the interfaces of this machine.
pub fn server_address(text: &str, port: u16) -> Result<SocketAddr, AddressError> {
    peer::server_address(text, port, &interface::index)
}

/// Why a text is not a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of bytes from {min} to {max}, with KiB, MiB, GiB or no suffix")]
pub struct BytesError {
    min: String,
    max: String,
}

/// A value parser for bytes from `min` to `max`, both included, with a binary suffix or none.
pub fn bytes(
    min: usize,
    max: usize,
) -> impl Fn(&str) -> Result<usize, BytesError> + Clone + Send + Sync + 'static {
    move |text| {
        let number = BYTE_SUFFIXES.iter().find_map(|(suffix, shift)| {
            let number: usize = text.strip_suffix(suffix)?.parse().ok()?;
            number.checked_mul(1 << shift)
        });
        let allowed = number.filter(|number| (min..=max).contains(number));
        allowed.ok_or_else(|| BytesError { min: bytes_text(min), max: bytes_text(max) })
    }
}

/// `bytes` with the largest suffix that needs no fraction.
fn bytes_text(bytes: usize) -> String {
    let suffix = BYTE_SUFFIXES.iter().find(|(_, shift)| bytes.is_multiple_of(1 << shift));
    let (suffix, shift) = suffix.unwrap_or(&("", 0));
    format!("{}{suffix}", bytes >> shift)
}

/// Why a text is no number of seconds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected whole seconds, {min} to {max}")]
pub struct SecondsError {
    min: u32,
    max: u32,
}

/// A value parser for whole seconds from `min` to `max`, both included.
pub fn seconds(
    min: u32,
    max: u32,
) -> impl Fn(&str) -> Result<Duration, SecondsError> + Clone + Send + Sync + 'static {
    move |text| match text.parse() {
        Ok(seconds) if (min..=max).contains(&seconds) => Ok(Duration::from_secs(seconds.into())),
        _ => Err(SecondsError { min, max }),
    }
}

/// The command of `C` with an environment variable for each flag. Spaces part values where a
/// repeatable flag is not on the command line, and so can only come from there.
fn command<C: CommandFactory>(arguments: &[OsString]) -> clap::Command {
    let command = C::command();
    let prefix = command.get_name().to_uppercase();
    command.color(clap::ColorChoice::Auto).mut_args(|argument| {
        let Some(long) = argument.get_long() else { return argument };
        let variable = format!("{prefix}_{}", long.to_uppercase()).replace('-', "_");
        let flag = format!("--{long}");
        let given = arguments.iter().any(|given| given.to_string_lossy().starts_with(&flag));
        let parted = matches!(argument.get_action(), ArgAction::Append) && !given;
        let argument = argument.env(variable).hide_env_values(true);
        if parted { argument.value_delimiter(' ') } else { argument }
    })
}

/// clap's report without usage and hints, on one line.
fn one_line(error: &clap::Error) -> String {
    let report = error.render().to_string();
    let said = report
        .split('\n')
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let mut line = said.collect::<Vec<_>>().join(" ");
    if error.kind() == ErrorKind::UnknownArgument {
        line.push_str("; --help lists what is allowed");
    }
    line.replace(|c: char| c.is_control(), " ")
}

/// Suffixes of numbers of bytes, with the powers of two that they stand for.
const BYTE_SUFFIXES: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("", 0)];
/// The exit code of a wrong flag, as of every Unix command.
const WRONG: i32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "prog", version)]
    struct Config {
        /// Where.
        #[arg(long, default_value = "0.0.0.0:53", value_parser = listen_address)]
        listen: SocketAddr,
        /// How long.
        #[arg(long, default_value = "30", value_parser = seconds(0, 3_600))]
        some_ttl: Duration,
        /// Which.
        #[arg(long, value_parser = ["disabled", "insecure"])]
        pods: Option<String>,
        /// Several.
        #[arg(long)]
        namespace: Vec<String>,
    }

    #[test]
    fn a_mistake_is_one_line_that_names_flag_value_and_what_is_allowed() {
        let rows: &[(&[&str], &[&str])] = &[
            (&["--listen", "53"], &["'53'", "--listen", "IP:PORT"]),
            (&["--listen", "a\nb"], &["--listen", "IP:PORT"]),
            (&["--some-ttl", "-1"], &["-1"]),
            (&["--some-ttl=-1"], &["'-1'", "--some-ttl", "0 to 3600"]),
            (&["--some-ttl", "3601"], &["'3601'", "--some-ttl", "0 to 3600"]),
            (&["--some-ttl"], &["--some-ttl", "value"]),
            (&["--pods", "all"], &["'all'", "--pods", "disabled, insecure"]),
            (&["--pod", "insecure"], &["'--pod'", "'--pods'", "--help"]),
            (&["--verbose"], &["'--verbose'", "--help"]),
            (&["extra"], &["'extra'", "--help"]),
        ];
        for (arguments, expected) in rows {
            let arguments = [&["prog"], *arguments].concat();
            let Err(Stop::Wrong(line)) = parse_from::<Config>(arguments.iter().copied()) else {
                panic!("{arguments:?} was taken");
            };
            assert!(line.starts_with("error: ") && !line.contains('\n'), "{line}");
            for part in *expected {
                assert!(line.contains(part), "{part} is missing in {line}");
            }
        }
    }

    #[test]
    fn help_and_version_are_no_mistakes_and_help_names_the_variables() {
        let Err(Stop::Shown(help)) = parse_from::<Config>(["prog", "--help"]) else { panic!() };
        for part in ["PROG_SOME_TTL", "PROG_LISTEN", "[default: 30]", "How long"] {
            assert!(help.contains(part), "{part} is missing in {help}");
        }
        assert!(matches!(parse_from::<Config>(["prog", "--version"]), Err(Stop::Shown(_))));
    }

    #[test]
    fn sizes_have_binary_suffixes() {
        let parse = bytes(1 << 20, 64 << 30);
        let wrong =
            "expected a number of bytes from 1MiB to 64GiB, with KiB, MiB, GiB or no suffix";
        let rows = [
            ("1048576", Some(1 << 20)),
            ("1024KiB", Some(1 << 20)),
            ("1MiB", Some(1 << 20)),
            ("64GiB", Some(64 << 30)),
            ("65GiB", None),
            ("1048575", None),
            ("12", None),
            ("1TiB", None),
            ("1MB", None),
            ("-1MiB", None),
            ("MiB", None),
            ("", None),
            ("99999999999999999999GiB", None),
            ("17179869184GiB", None),
        ];
        for (text, expected) in rows {
            let got = parse(text).map_err(|error| error.to_string());
            assert_eq!(got, expected.ok_or_else(|| wrong.to_owned()), "{text}");
        }
    }

    #[test]
    fn defaults_and_values_are_read() {
        let config = parse_from::<Config>(["prog", "--namespace", "a", "--namespace=b c"]).unwrap();
        assert_eq!(config.listen.port(), 53);
        assert_eq!(config.some_ttl, Duration::from_secs(30));
        assert_eq!(config.namespace, ["a", "b c"], "as they are: only a variable is parted");
    }
}
