//! Notices a serving thread that does not come round any more, and ends the program: its next start
//! mends that, and loses no query if the sockets are kept.
//!
//! Core, except for [`guard`].

use std::convert::Infallible;
use std::fs;
use std::time::Duration;

use crate::clock::{Moment, boot_time};

/// What was seen of each thread.
#[derive(Debug)]
struct Watchdog {
    /// The last turn of each thread, and how many checks in a row found the same.
    seen: Vec<(Moment, u32)>,
    checked: Moment,
}

impl Watchdog {
    fn new(now: Moment) -> Self {
        Self { seen: Vec::new(), checked: now }
    }

    /// Takes in the last turn of each thread. Returns the index of a thread that had none for
    /// [`CHECKS_MAX`] checks in a row.
    ///
    /// If a check is late, the whole process did not run: it was stopped, the machine was
    /// suspended, or others have the processor. Then all threads have their full time again.
    fn check(&mut self, now: Moment, turns: impl IntoIterator<Item = Moment>) -> Option<usize> {
        let is_late = now.since(self.checked) > LATE;
        self.checked = now;
        let mut hangs = None;
        for (index, turn) in turns.into_iter().enumerate() {
            match self.seen.get_mut(index) {
                Some((last, checks)) if *last == turn && !is_late => {
                    *checks += 1;
                    if *checks >= CHECKS_MAX {
                        hangs.get_or_insert(index);
                    }
                }
                Some(seen) => *seen = (turn, 0),
                None => self.seen.push((turn, 0)),
            }
        }
        hangs
    }
}

/// Checks the `turns` of threads every second. Each must have at least one per second. If a thread
/// hangs, logs its `name` and ends the process with code 1, without a drain: that would wait for
/// the thread.
pub async fn guard<T: IntoIterator<Item = Moment>>(
    turns: impl Fn() -> T,
    name: impl Fn(usize) -> String,
) -> Infallible {
    let mut watchdog = Watchdog::new(boot_time());
    loop {
        tokio::time::sleep(EVERY).await;
        if let Some(index) = watchdog.check(boot_time(), turns()) {
            let thread = name(index);
            let state = state_of(&thread).unwrap_or_default();
            tracing::error!(thread, state, "a thread hangs, so the program ends");
            std::process::exit(1);
        }
    }
}

/// Returns what the kernel knows about a thread of this process: its state, and the function of the
/// kernel in which it waits, or 0. Its stack is for root only.
fn state_of(thread: &str) -> Option<String> {
    let read = |path| fs::read_to_string(path).ok();
    let mut tasks = fs::read_dir("/proc/self/task").ok()?.flatten().map(|task| task.path());
    let is_it = |name: String| name.trim_end() == thread;
    let task = tasks.find(|task| read(task.join("comm")).is_some_and(is_it))?;
    let stat = read(task.join("stat"))?;
    let (_, state) = stat.rsplit_once(") ")?;
    let waits = read(task.join("wchan")).unwrap_or_default();
    Some(format!("{} {}", state.get(..1)?, waits.trim_end()).trim_end().to_owned())
}

/// The time between two checks.
const EVERY: Duration = Duration::from_secs(1);
/// A check later than this after the one before is late.
const LATE: Duration = Duration::from_millis(1_500);
/// A thread that has no turn for so many seconds hangs.
const CHECKS_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks two threads at these milliseconds. The first has a turn before every check, the other
    /// one at the milliseconds `turns`. Returns when it is found to hang.
    fn check(checks: &[u64], turns: &[u64]) -> Option<u64> {
        let moment = |millis: u64| Moment::default() + Duration::from_millis(millis);
        let mut watchdog = Watchdog::new(moment(0));
        checks.iter().copied().find(|&now| {
            let last = turns.iter().rfind(|&&turn| turn <= now).copied().unwrap_or(0);
            match watchdog.check(moment(now), [moment(now), moment(last)]) {
                Some(index) => {
                    assert_eq!(index, 1);
                    true
                }
                None => false,
            }
        })
    }

    #[test]
    fn only_a_thread_that_hangs_while_the_checks_are_on_time_is_found() {
        let seconds = |range: std::ops::RangeInclusive<u64>| -> Vec<u64> {
            range.map(|second| second * 1_000).collect()
        };
        let all = seconds(1..=60);
        // It never had a turn, or none after a while.
        assert_eq!(check(&all, &[]), Some(6_000));
        assert_eq!(check(&all, &[500, 9_900]), Some(6_000));
        assert_eq!(check(&all, &[900, 1_900, 2_900]), Some(8_000));
        // A turn every five seconds is rare, but it does not hang.
        let rare: Vec<u64> = (0..13).map(|turn| turn * 5_000 + 10).collect();
        assert_eq!(check(&all, &rare), None);
        // The process was stopped for a minute, and then the thread comes round again or hangs.
        let stopped = [seconds(1..=10), seconds(70..=100)].concat();
        let until = |end: u64| -> Vec<u64> { (0..end).map(|second| second * 1_000 + 10).collect() };
        let after: Vec<u64> =
            until(10).into_iter().chain((70..100).map(|s| s * 1_000 + 900)).collect();
        assert_eq!(check(&stopped, &after), None);
        assert_eq!(check(&stopped, &until(10)), Some(75_000));
        // The machine has too little time for the process: checks come late.
        let starved: Vec<u64> = (1..40).map(|check| check * 1_600).collect();
        assert_eq!(check(&starved, &[]), None);
        let jittery: Vec<u64> = (1..40).map(|check| check * 1_000 + check % 3 * 100).collect();
        assert_eq!(check(&jittery, &[]), Some(6_000));
    }

    #[test]
    fn the_kernel_knows_the_state_of_a_thread() {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let waits = move || ended.recv().is_ok();
        let name = "a-thread".to_owned();
        let thread = std::thread::Builder::new().name(name.clone()).spawn(waits).unwrap();
        // Its name is set when it first runs.
        let state = std::iter::repeat_with(|| state_of(&name)).flatten().next().unwrap();
        assert!("RSD".contains(&state[..1]), "{state}");
        assert_eq!(state_of("no-such-thread"), None);
        drop(end);
        thread.join().unwrap();
    }
}
