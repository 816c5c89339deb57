//! The cost of a process, seen from outside: processor time and memory, from `/proc` (proc(5)).
//!
//! Edge. It takes process ids. It must not depend on what the processes do.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;

/// The memory of a process in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// The current value.
    pub resident: u64,
    /// The highest value so far.
    pub peak: u64,
}

/// Returns the user and system time so far of the threads of process `id`, and of its children
/// (dnsmasq has one for each connection), both running and ended. The time of its own ended threads
/// is not included.
pub fn cpu(id: u32) -> io::Result<Duration> {
    let root = format!("/proc/{id}");
    let mut used = reaped(&fs::read_to_string(format!("{root}/stat"))?)?;
    for task in fs::read_dir(format!("{root}/task"))? {
        let task = task?.path();
        let Some(times) = read(&task.join("schedstat"))? else { continue };
        used += Duration::from_nanos(number(times.split_whitespace().next())?);
        for child in read(&task.join("children"))?.unwrap_or_default().split_whitespace() {
            used += match cpu(number(Some(child))? as u32) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Duration::ZERO,
                used => used?,
            };
        }
    }
    Ok(used)
}

/// Returns the memory of process `id`, without its children.
pub fn memory(id: u32) -> io::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{id}/status"))?;
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        number(line.and_then(|line| line.split_whitespace().next())).map(|kib| kib << 10)
    };
    Ok(Memory { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
}

/// Resets the peak of process `id`.
pub fn forget_peak(id: u32) -> io::Result<()> {
    fs::write(format!("/proc/{id}/clear_refs"), "5")
}

/// Returns the time of the children that were waited for, from `stat`: fields 16 and 17, in ticks.
fn reaped(stat: &str) -> io::Result<Duration> {
    // Field 3 and later follow the name in parentheses, which can contain any character.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks = number(fields.nth(13))? + number(fields.next())?;
    Ok(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// Returns the text of the file at `path`, or `None` if its thread has ended meanwhile.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => text.map(Some),
    }
}

fn number(text: Option<&str>) -> io::Result<u64> {
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;

    const BOUND: Duration = Duration::from_secs(20);

    #[test]
    fn what_children_used_counts_while_they_run_and_afterwards() {
        let shell = "while :; do :; done & read line; kill $!; wait $!; read line";
        let mut shell = Command::new("sh")
            .args(["-c", shell])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let id = shell.id();
        let start = Instant::now();
        let running = loop {
            let used = cpu(id).unwrap();
            if used > Duration::from_millis(100) || start.elapsed() > BOUND {
                break used;
            }
            std::thread::yield_now();
        };
        assert!(running > Duration::from_millis(100), "{running:?}");
        io::Write::write_all(shell.stdin.as_mut().unwrap(), b"\n").unwrap();
        let children = || fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        while !children().is_empty() && start.elapsed() < BOUND {
            std::thread::yield_now();
        }
        let reaped = cpu(id).unwrap();
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert!(reaped > Duration::from_millis(50), "{reaped:?} of {running:?}");
    }

    #[test]
    fn memory_is_told_and_its_peak_is_no_less() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.resident > 1 << 20 && memory.peak >= memory.resident, "{memory:?}");
    }

    #[test]
    fn children_are_found_behind_any_name_and_a_torn_file_is_an_error() {
        let stat = "7 (a) (b c) S 1 7 7 0 -1 0 0 0 0 0 11 12 130 70 20 0 1 0";
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(reaped(stat).unwrap(), Duration::from_secs_f64(200.0 / ticks));
        for torn in ["", "7 (a) S 1 7", "7 (a) S 1 7 7 0 -1 0 0 0 0 0 11 12 x 70"] {
            assert!(reaped(torn).is_err(), "{torn}");
        }
    }
}
