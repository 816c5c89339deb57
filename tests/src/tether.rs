//! Child processes that end with the tool that started them, even if it ends by SIGKILL or a closed
//! terminal. They can be kept on one core.
//!
//! The child must itself request the kernel's parent death signal, after fork and before the
//! program starts. It must set its core before it has threads. Without unsafe code, only a process
//! of its own can do that: the tool starts itself with `--tied-to` first, makes the calls, and
//! becomes the program.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Returns a command that runs `program`, tied to the thread that starts it. If `core` is set, it
/// runs only there. It has a process group of its own: the terminal's Ctrl-C reaches only the tool,
/// which then ends its children in order.
///
/// The tool's `main` must begin with [`exec_if_asked`].
pub fn command(program: &Path, core: Option<usize>) -> Command {
    let mut command = Command::new(OWN_PROGRAM);
    let core = core.map_or_else(|| ANY_CORE.to_owned(), |core| core.to_string());
    command.arg(TETHER).arg(std::process::id().to_string()).arg(core).arg(program);
    command.process_group(0);
    command
}

/// Keeps one core for the servers. The calling thread, and the threads that it starts later, run on
/// the others. Returns the servers' core.
///
/// Fails if there are no other cores, or if the system does not have this call.
pub fn part_cores() -> io::Result<usize> {
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
    let (first, others) = (cores.next(), cores.collect::<Vec<_>>());
    match first {
        Some(first) if !others.is_empty() => keep_on(&others).map(|()| first),
        _ => Err(io::Error::other("this process has a single core")),
    }
}

/// Keeps the calling thread, and the threads that it starts later, on `cores`.
///
/// Fails if this process must not run there, or if the system does not have this call.
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

/// Becomes the program that [`command`] named, if this process was started for that.
///
/// Returns `None` if it was not, and an error if that fails.
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

/// First argument of the tool if it starts itself. Users should not set it.
const TETHER: &str = "--tied-to";
/// Used in place of a core for all cores.
const ANY_CORE: &str = "any";
/// The running program, even if a build has replaced its file.
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
