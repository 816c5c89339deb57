//! How the three programs read flags: one environment variable per flag, one line per mistake.
//!
//! Edge: reads the arguments and the environment, and can end the process. Each program's
//! `config.rs` defines its flags; this file must not depend on any flag's name.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, CommandFactory, Parser};

use crate::{interface, peer};

pub use crate::peer::AddressError;

/// Parses the flags and environment of this process as a `C`.
///
/// Every flag `--some-flag` of program `prog` is also read from `PROG_SOME_FLAG`, unless that is
/// empty. A repeatable flag takes several values from there, separated by spaces. `--help` and
/// `--version` print and exit with 0. A mistake exits with 2 after one line on stderr that contains
/// the flag or the variable, the value and the allowed values.
pub fn parse<C: Parser>() -> C {
    or_exit(parse_from(std::env::args_os()))
}

/// Parses the flags of the subcommand `name` as a `C` if that is the first argument of the process;
/// `None` if it is not.
///
/// Its flag `--some-flag` is also read from `PROG_NAME_SOME_FLAG`. Help and mistakes end the
/// process as in [`parse`].
pub fn subcommand<C: Parser>(program: &str, name: &str) -> Option<C> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != name {
        return None;
    }
    let command = C::command().name(format!("{program}_{name}"));
    let command = command.bin_name(format!("{program} {name}"));
    let arguments = std::iter::once(OsString::from(name)).chain(arguments).collect();
    Some(or_exit(parse_with(command, arguments, &|name| std::env::var_os(name))))
}

/// Returns the configuration, or ends the process if parsing failed.
pub fn or_exit<C>(read: Result<C, Stop>) -> C {
    match read {
        Ok(config) => config,
        Err(Stop::Shown(text)) => {
            // The reader may have closed the pipe. There is no one else to report that to.
            drop(std::io::stdout().write_all(text.as_bytes()));
            std::process::exit(0)
        }
        Err(Stop::Wrong(line)) => {
            eprintln!("{line}");
            std::process::exit(WRONG)
        }
    }
}

/// The reason that parsing returned no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Help or version was requested. This is the text.
    Shown(String),
    /// A flag or its value is wrong. This is one line with the flag and the allowed values.
    Wrong(String),
}

/// Does the same as [`parse`] without ending the process. `arguments` begins with the program's
/// name.
pub fn parse_from<C: Parser>(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<C, Stop> {
    let arguments = arguments.into_iter().map(Into::into).collect();
    parse_with(C::command(), arguments, &|name| std::env::var_os(name))
}

/// The flags that the command line or the environment sets, without their hyphens, with their
/// values as text. A switch has no values.
pub type Given = BTreeMap<String, Vec<String>>;

/// Does the same as [`parse_from`], and also returns which flags were set.
pub fn parse_given<C: Parser>(arguments: &[OsString]) -> Result<(C, Given), Stop> {
    let environment = |name: &str| std::env::var_os(name);
    let (matches, mut command, variables) =
        matches(C::command(), arguments.to_vec(), &environment)?;
    let is_set = |argument: &clap::Arg| {
        let source = matches.value_source(argument.get_id().as_str());
        let is_given = matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        argument.get_long().filter(|_| is_given).map(str::to_owned)
    };
    let mut given = Given::new();
    for argument in command.get_arguments() {
        let Some(long) = is_set(argument) else { continue };
        let is_switch = matches!(argument.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
        let values = matches.get_raw(argument.get_id().as_str()).filter(|_| !is_switch);
        let values = values.into_iter().flatten();
        given.insert(long, values.map(|value| value.to_string_lossy().into_owned()).collect());
    }
    let config = C::from_arg_matches(&matches)
        .map_err(|error| Stop::Wrong(blame(one_line(&error.format(&mut command)), &variables)))?;
    Ok((config, given))
}

/// Returns the value of an environment variable.
type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

fn parse_with<C: Parser>(
    command: clap::Command,
    arguments: Vec<OsString>,
    environment: Environment<'_>,
) -> Result<C, Stop> {
    let (matches, mut command, variables) = matches(command, arguments, environment)?;
    C::from_arg_matches(&matches)
        .map_err(|error| Stop::Wrong(blame(one_line(&error.format(&mut command)), &variables)))
}

/// The matches, the command and the variables.
type Matched = (clap::ArgMatches, clap::Command, Vec<Variable>);

fn matches(
    command: clap::Command,
    mut arguments: Vec<OsString>,
    environment: Environment<'_>,
) -> Result<Matched, Stop> {
    let mut command = command.color(clap::ColorChoice::Auto);
    let variables = variables(&command, &arguments, environment);
    let is_help = |argument: &OsString| argument == "--help" || argument == "-h";
    let shows_help = arguments.iter().any(is_help);
    let prefix = prefix(&command);
    command = command.mut_args(|argument| {
        let Some(long) = argument.get_long() else { return argument };
        let name = variable(&prefix, long);
        // clap treats an empty value as a value.
        let is_empty = environment(&name).is_some_and(|value| value.is_empty());
        match is_empty && !shows_help {
            true => argument,
            false => argument.env(name).hide_env_values(true),
        }
    });
    let values = variables.iter().flat_map(|variable| variable.arguments.iter().cloned());
    let at = arguments.len().min(1);
    arguments.splice(at..at, values.collect::<Vec<_>>());
    match command.try_get_matches_from_mut(arguments) {
        Ok(matches) => Ok((matches, command, variables)),
        Err(error) if error.use_stderr() => Err(Stop::Wrong(blame(one_line(&error), &variables))),
        Err(error) => Err(Stop::Shown(error.render().to_string())),
    }
}

/// Prints one line about flags that contradict each other, and returns exit code 2. For checks of
/// more than one flag, which `main` makes after [`parse`].
pub fn wrong<C: CommandFactory>(error: &dyn std::error::Error) -> ExitCode {
    let arguments = std::env::args_os().collect::<Vec<_>>();
    let variables = variables(&C::command(), &arguments, &|name| std::env::var_os(name));
    eprintln!("error: {}", blame(chain(error), &variables));
    ExitCode::from(WRONG as u8)
}

/// Returns the text of an error, followed by its causes, in one line.
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

/// Parses a listening address with its port: `IP:PORT` or `[IPv6]:PORT`. Port 0 lets the system
/// choose.
pub fn listen_address(text: &str) -> Result<SocketAddr, ListenError> {
    text.parse().map_err(|_| ListenError)
}

/// Calls [`peer::server_address`] with the interfaces of this machine.
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

/// Returns a value parser for bytes from `min` to `max`, both included, with or without a binary
/// suffix.
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

/// Returns `bytes` with the largest suffix that needs no fraction.
fn bytes_text(bytes: usize) -> String {
    let suffix = BYTE_SUFFIXES.iter().find(|(_, shift)| bytes.is_multiple_of(1 << shift));
    let (suffix, shift) = suffix.unwrap_or(&("", 0));
    format!("{}{suffix}", bytes >> shift)
}

/// Why a text is not a number of seconds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected whole seconds, {min} to {max}")]
pub struct SecondsError {
    min: u32,
    max: u32,
}

/// Returns a value parser for whole seconds from `min` to `max`, both included.
pub fn seconds(
    min: u32,
    max: u32,
) -> impl Fn(&str) -> Result<Duration, SecondsError> + Clone + Send + Sync + 'static {
    move |text| match text.parse() {
        Ok(seconds) if (min..=max).contains(&seconds) => Ok(Duration::from_secs(seconds.into())),
        _ => Err(SecondsError { min, max }),
    }
}

/// A flag that is set in the environment, and not on the command line.
struct Variable {
    name: String,
    /// The flag as a user would write it: `--some-flag`.
    flag: String,
    /// The equivalent arguments; empty for a switch that is off.
    arguments: Vec<OsString>,
}

/// Returns the variables that apply: they are not empty, and their flags are not in `arguments`.
fn variables(
    command: &clap::Command,
    arguments: &[OsString],
    environment: Environment<'_>,
) -> Vec<Variable> {
    let prefix = prefix(command);
    let read = |argument: &clap::Arg| {
        let long = argument.get_long()?;
        let (name, flag) = (variable(&prefix, long), format!("--{long}"));
        let is_it = |given: &OsString| {
            let given = given.to_string_lossy();
            given.strip_prefix(&*flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        let value = environment(&name).filter(|value| !value.is_empty())?;
        if arguments.iter().skip(1).any(is_it) {
            return None;
        }
        let with = |value: &OsStr| {
            let mut argument = OsString::from(format!("{flag}="));
            argument.push(value);
            argument
        };
        let arguments = match (argument.get_action(), value.to_str()) {
            // Parsed by clap, which accepts the words for on and off.
            (ArgAction::SetTrue | ArgAction::SetFalse, _) => Vec::new(),
            (ArgAction::Append, Some(text)) => {
                text.split_whitespace().map(|part| with(part.as_ref())).collect()
            }
            _ => vec![with(&value)],
        };
        Some(Variable { name, flag, arguments })
    };
    command.get_arguments().filter_map(read).collect()
}

/// Returns `PROG` for the program `prog`.
fn prefix(command: &clap::Command) -> String {
    command.get_name().to_uppercase()
}

/// Returns `PROG_SOME_FLAG` for `--some-flag`.
fn variable(prefix: &str, long: &str) -> String {
    format!("{prefix}_{}", long.to_uppercase()).replace('-', "_")
}

/// Replaces a flag in `line`, quoted as by clap, by the variable that set it.
fn blame(line: String, variables: &[Variable]) -> String {
    variables.iter().fold(line, |line, Variable { name, flag, .. }| {
        let quoted = format!("'{flag}");
        let begin = line
            .match_indices(&quoted)
            .map(|(at, _)| at)
            .find(|&at| line[at + quoted.len()..].starts_with(['\'', ' ', '=', '.']));
        let Some(begin) = begin else { return line };
        let rest = &line[begin + quoted.len()..];
        let end = rest.find('\'').map_or("", |end| &rest[end + 1..]);
        format!("{}the environment variable {name}{end}", &line[..begin])
    })
}

/// Returns clap's report without usage and hints, on one line.
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

/// Suffixes of numbers of bytes, with their powers of two.
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

    /// Names and values.
    type Variables<'v> = &'v [(&'v str, &'v str)];

    /// Returns the configuration from `environment` and `arguments`.
    fn read(environment: Variables<'_>, arguments: &[&str]) -> Result<Config, Stop> {
        let value = |name: &str| {
            let mut rows = environment.iter();
            rows.find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        let arguments = ["prog"].iter().chain(arguments).map(OsString::from).collect();
        parse_with(Config::command(), arguments, &value)
    }

    #[test]
    fn a_variable_counts_unless_it_is_empty_or_its_flag_is_given() {
        let all = [
            ("PROG_LISTEN", "127.0.0.1:1"),
            ("PROG_SOME_TTL", "7"),
            ("PROG_PODS", "disabled"),
            ("PROG_NAMESPACE", " a  b "),
        ];
        let config = read(&all, &[]).unwrap();
        assert_eq!((config.listen.port(), config.some_ttl.as_secs()), (1, 7));
        assert_eq!(config.pods.as_deref(), Some("disabled"));
        assert_eq!(config.namespace, ["a", "b"]);

        let flags = ["--listen=127.0.0.1:2", "--some-ttl", "8", "--namespace=c d"];
        let config = read(&all, &flags).unwrap();
        assert_eq!((config.listen.port(), config.some_ttl.as_secs()), (2, 8));
        assert_eq!(config.pods.as_deref(), Some("disabled"));
        assert_eq!(config.namespace, ["c d"]);

        let config = read(&all.map(|(name, _)| (name, "")), &[]).unwrap();
        assert_eq!((config.listen.port(), config.some_ttl.as_secs()), (53, 30));
        assert_eq!((config.pods, config.namespace.len()), (None, 0));
    }

    #[test]
    fn a_wrong_variable_is_named_and_a_wrong_flag_is_not_blamed_on_it() {
        let rows: [(Variables<'_>, &[&str], &str); 5] = [
            (
                &[("PROG_SOME_TTL", "-1")],
                &[],
                "error: invalid value '-1' for the environment variable PROG_SOME_TTL: expected \
                 whole seconds, 0 to 3600",
            ),
            (
                &[("PROG_PODS", "all")],
                &[],
                "error: invalid value 'all' for the environment variable PROG_PODS [possible \
                 values: disabled, insecure]",
            ),
            (
                &[("PROG_LISTEN", "a b")],
                &[],
                "error: invalid value 'a b' for the environment variable PROG_LISTEN: expected \
                 IP:PORT, such as 0.0.0.0:53 or [::]:53",
            ),
            (
                &[("PROG_SOME_TTL", "-1")],
                &["--some-ttl=-2"],
                "error: invalid value '-2' for '--some-ttl <SOME_TTL>': expected whole seconds, 0 \
                 to 3600",
            ),
            (
                &[("PROG_SOME_TTL", "7")],
                &["--listen=x"],
                "error: invalid value 'x' for '--listen <LISTEN>': expected IP:PORT, such as \
                 0.0.0.0:53 or [::]:53",
            ),
        ];
        for (environment, arguments, expected) in rows {
            let Err(Stop::Wrong(line)) = read(environment, arguments) else {
                panic!("{environment:?} {arguments:?} was taken");
            };
            assert_eq!(line, expected);
        }
        let Err(Stop::Shown(help)) = read(&[("PROG_SOME_TTL", "")], &["--help"]) else { panic!() };
        assert!(help.contains("PROG_SOME_TTL"), "{help}");
    }
}
