//! The cost of an answer: CPU time of the server per million answers, for each kind of query.
//!
//! Edge. It sends queries to a server. It must not depend on the objects of the cluster.

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
    /// Questions that the server did not answer.
    pub lost: u64,
}

/// Asks `server` for `duration`, as fast as its answers arrive.
///
/// Fails if it does not answer, or answers with another code than `rcode`. The floor gives the same
/// answer to every question, so `rcode` is `None` for it.
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

/// The defaults of `cargo load`: enough to keep a server busy without filling its buffers.
const SOCKETS: usize = 4;
const WINDOW: usize = 100;
