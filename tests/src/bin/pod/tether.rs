//! Children that end with the launcher, however it ends: SIGKILL and a closed terminal included.
//!
//! The kernel's parent death signal must be asked for in the child, after fork and before the
//! program. Without unsafe code that place is a process of its own: the launcher starts itself with
//! [`TETHER`] first, asks, and becomes the program.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// A command that runs `program`, tied to this process, in a process group of its own: the
/// terminal's Ctrl-C reaches the launcher alone, which then ends its children in order.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(OWN_PROGRAM);
    command.arg(TETHER).arg(std::process::id().to_string()).arg(program).process_group(0);
    command
}

/// Becomes the program named after [`TETHER`], if that is the first argument.
///
/// Comes back with nothing where it is not, and with an error where that cannot be.
pub fn exec_if_asked() -> Option<io::Error> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != TETHER {
        return None;
    }
    let (Some(parent), Some(program)) = (arguments.next(), arguments.next()) else {
        return Some(io::Error::other(format!("{TETHER} needs a process id and a program")));
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Some(error.into());
    }
    let parent = parent.to_str().and_then(|id| Pid::from_raw(id.parse().ok()?));
    if getppid() != parent {
        return Some(io::Error::other("the launcher ended while this program started"));
    }
    Some(Command::new(program).args(arguments).exec())
}

/// First argument of the launcher when it starts itself. Not for people.
const TETHER: &str = "--tied-to";
/// The running program, even where a build has put another in its place.
const OWN_PROGRAM: &str = "/proc/self/exe";
