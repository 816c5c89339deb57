//! The subcommand `corefile check FILE` of kubedns and dnscache.
//!
//! Edge. Reads the file and prints.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use super::plan::{self, Surroundings};
use super::source::Look;
use crate::flags;

/// Checks Corefiles: what each line becomes, and what cannot be run.
#[derive(Debug, Parser)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print what each line of a Corefile becomes. The exit code is 0 if everything can be run, 3
    /// if a line is refused, and 2 if the file cannot be read or is not a Corefile
    Check {
        /// The Corefile; its imports are read too
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Output format
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value = "text")]
        output: Format,
    },
}

/// The output format of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Text,
    /// JSON.
    Json,
}

/// Runs the subcommand if the first argument of the process is `corefile`. Returns its exit code;
/// `None` if the argument is different.
pub fn from_arguments(program: &str, surroundings: Surroundings) -> Option<ExitCode> {
    let Command { action: Action::Check { file, output } } =
        flags::subcommand(program, "corefile")?;
    let look = Look::new(&file);
    let (text, code) = match look.corefile() {
        Err(error) => {
            eprintln!("error: {error}");
            return Some(ExitCode::from(WRONG));
        }
        Ok(corefile) => {
            let plan = plan::plan(corefile, surroundings);
            let text = match output {
                Format::Text => plan::table(&plan),
                Format::Json => format!("{:#}\n", plan::json(&plan)),
            };
            (text, if plan.refusals().is_empty() { 0 } else { REFUSED })
        }
    };
    // The reader may have closed the pipe.
    drop(std::io::stdout().write_all(text.as_bytes()));
    Some(ExitCode::from(code))
}

/// The exit code if the file cannot be read, or is not a Corefile.
const WRONG: u8 = 2;
/// The exit code if a line is refused.
const REFUSED: u8 = 3;
