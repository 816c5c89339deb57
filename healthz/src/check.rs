//! The subcommand `check`: what is wrong with the DNS of this pod or cluster, in sentences.
//!
//! Edge. Facts are gathered, then judged, then printed.
//!
//! ```text
//! options ─▶ gather ─▶ facts ─▶ judge ─▶ report ─▶ exit code 0 or 1
//!            edge      core     core     core
//!            └▶ dns, web, account, files of the kernel
//! ```
//!
//! * Every check is a row of the table in `judge`. A judge looks at facts and at nothing else.
//! * A fact that is not known has its reason; the checks that need it are not made, all others are.
//! * A server that does not answer is named by one check. Those that depend on it are not made.

mod cluster;
mod facts;
pub(crate) mod gather;
mod judge;
mod kernel;
mod options;
pub(crate) mod plan;
mod report;
pub(crate) mod resolv;
pub(crate) mod talk;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use gather::gather;
use shared::clock::boot_time;

pub(crate) use options::server;
pub use options::{Access, Form, Options};
pub use report::{Report, list};

/// Runs the check if the arguments of this process begin with `check`; `None` if they do not.
pub fn from_arguments() -> Option<ExitCode> {
    let options: Options = shared::flags::subcommand("healthz", "check")?;
    if options.list {
        print(&list());
        return Some(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = match runtime {
        Ok(runtime) => runtime.block_on(patiently(&options)),
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return Some(ExitCode::FAILURE);
        }
    };
    print(&match options.output {
        Form::Text => report.text(false),
        Form::Short => report.text(true),
        Form::Json => report.json(),
    });
    Some(if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Checks once.
pub async fn run(options: &Options) -> Report {
    let start = boot_time();
    let facts = gather(options).await;
    Report::of(&facts, &options.categories, boot_time().since(start))
}

/// Checks until nothing is wrong or the time is over.
async fn patiently(options: &Options) -> Report {
    let end = boot_time() + options.wait;
    loop {
        let report = run(options).await;
        if report.is_success() || boot_time() >= end {
            return report;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn print(text: &str) {
    // The reader may have closed the pipe; the exit code is the result all the same.
    drop(std::io::stdout().write_all(text.as_bytes()));
}

/// Between two tries of `--wait`.
const PAUSE: Duration = Duration::from_secs(1);
