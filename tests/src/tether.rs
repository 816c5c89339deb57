//! Children that end with the tool that started them, however it ends: SIGKILL and a closed
//! terminal included. They may be kept on one core.
//!
//! The kernel's parent death signal must be asked for in the child, after fork and before the
//! program, and so must the core, before it has threads. Without unsafe code that place is a
//! process of its own: the tool starts itself with `--tied-to` first, asks, and becomes the
//! program.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A command that runs `program`, tied to the thread that starts it, on `core` alone where one is
/// given, in a process group of its own: the terminal's Ctrl-C reaches the tool alone, which then
/// ends its children in order.
///
/// The tool's `main` begins with [`exec_if_asked`].
pub fn command(program: &Path, core: Option<usize>) -> Command {
    let mut command = Command::new(OWN_PROGRAM);
    let core = core.map_or_else(|| ANY_CORE.to_owned(), |core| core.to_string());
    command.arg(TETHER).arg(std::process::id().to_string()).arg(core).arg(program);
    command.process_group(0);
    command
}

/// Keeps one core for the servers: the calling thread, and the threads it starts from now on, run
/// on the others. Yields the servers' core.
///
/// Fails where there are no others, or the system has no such call.
pub fn part_cores() -> io::Result<usize> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let (first, others) = (cores.next(), cores.collect::<Vec<_>>());
    match first {
        Some(first) if !others.is_empty() => keep_on(&others).map(|()| first),
        _ => Err(io::Error::other("this process has a single core")),
    }
}

/// Keeps the calling thread, and the threads it starts from now on, on `cores`.
///
/// Fails where this process may not run there, or the system has no such call.
pub fn keep_on(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        if core >= CpuSet::MAX_CPU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        set.set(core);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// Becomes the program that [`command`] named, if this process is to.
///
/// Comes back with nothing where it is not, and with an error where that cannot be.
pub fn exec_if_asked() -> Option<io::Error> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != TETHER {
        return None;
    }
    let next = [arguments.next(), arguments.next(), arguments.next()];
    let [Some(parent), Some(core), Some(program)] = next else {
        return Some(io::Error::other(format!("{TETHER} needs a process id, a core, a program")));
    };
    if core != ANY_CORE {
        let core = core.to_str().and_then(|core| core.parse().ok()).unwrap_or(usize::MAX);
        if let Err(error) = keep_on(&[core]) {
            return Some(error);
        }
    }
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return Some(error.into());
    }
    let parent = parent.to_str().and_then(|id| Pid::from_raw(id.parse().ok()?));
    if getppid() != parent {
        return Some(io::Error::other("the tool ended while this program started"));
    }
    Some(Command::new(program).args(arguments).exec())
}

/// First argument of the tool when it starts itself. Not for people.
const TETHER: &str = "--tied-to";
/// In the place of a core: all of them.
const ANY_CORE: &str = "any";
/// The running program, even where a build has put another in its place.
const OWN_PROGRAM: &str = "/proc/self/exe";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_on_its_core() {
        let here = sched_getaffinity(None).unwrap();
        let core = (0..CpuSet::MAX_CPU).rfind(|&core| here.is_set(core)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                keep_on(&[core]).unwrap();
                assert_eq!(rustix::thread::sched_getcpu(), core);
            });
        });
        assert!(keep_on(&[usize::MAX]).is_err());
    }
}
