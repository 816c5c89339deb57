//! What an answer costs: CPU time of the server per million answers, kind by kind.
//!
//! Edge. Knows how to ask and whom; does not know what is in the cluster.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::Duration;

use super::Error;
use super::cluster::Query;
use super::process::Process;
use crate::generator::{self, Plan, Tally};

/// One stretch of asking.
#[derive(Clone, Copy, Debug)]
pub struct Stint {
    /// CPU seconds of the server per million answers.
    pub cpu_secs: f64,
    /// Answers per second of real time.
    pub rate: f64,
    /// Questions that nobody answered.
    pub lost: u64,
}

/// Asks `server` for `duration`, as fast as its answers come.
///
/// Fails where it answers nothing, or anything else than `rcode`; the floor answers everything the
/// same, so `rcode` is nothing there.
pub fn stint(
    server: &Process,
    query: &Query,
    rcode: Option<usize>,
    duration: Duration,
) -> Result<Stint, Error> {
    let plan = Plan {
        server: server.dns,
        tcp: false,
        duration,
        sockets: SOCKETS,
        window: WINDOW,
        rate: None,
        verify: None,
    };
    let (sender, stretches) = mpsc::channel();
    let before = server.cpu()?;
    let never = AtomicBool::new(false);
    generator::run(&plan, &query.questions, &never, &sender).map_err(Error::Ask)?;
    drop(sender);
    let used = server.cpu()?.saturating_sub(before);
    let mut total = Tally::new();
    stretches.iter().for_each(|stretch| total.add(&stretch));
    let right = rcode.map_or(total.answered, |rcode| total.rcodes[rcode]);
    if total.answered == 0 || right != total.answered {
        let wrong = total.answered - right;
        return Err(Error::Wrong { label: query.label, answered: total.answered, wrong });
    }
    Ok(Stint {
        cpu_secs: used.as_secs_f64() * 1e6 / total.answered as f64,
        rate: total.answered as f64 / duration.as_secs_f64(),
        lost: total.lost,
    })
}

/// As `cargo load` has them: enough to keep a server busy without filling its buffers.
const SOCKETS: usize = 4;
const WINDOW: usize = 100;
