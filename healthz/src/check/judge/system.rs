//! The kernel of this machine, and its clock.
//!
//! Core. Facts in, finding out.

use super::{Judged, right, warning, wrong};
use crate::check::facts::{Facts, known};
use crate::check::kernel::Kernel;
use crate::page::html::grouped;

/// How much a counter grew while the check ran; fails if it cannot be read.
fn growth(facts: &Facts, of: fn(&Kernel) -> Option<u64>) -> Result<u64, String> {
    let both = of(&facts.before).zip(of(&facts.after));
    let (before, after) = both.ok_or("the kernel's counter cannot be read")?;
    Ok(after.saturating_sub(before))
}

pub fn buffers(facts: &Facts) -> Judged {
    let dropped = growth(facts, |kernel| kernel.full_buffers)?;
    let secs = facts.span.as_secs_f64();
    if dropped < DROPS_MIN {
        return right(format!("{dropped} datagrams dropped in {secs:.0} s"));
    }
    warning(
        format!("{dropped} datagrams dropped in {secs:.0} s"),
        format!(
            "The kernel dropped {dropped} datagrams on this machine in {secs:.0} s because the \
             receive buffer was full; add threads, replicas or buffer space."
        ),
    )
}

pub fn listeners(facts: &Facts) -> Judged {
    let refused = growth(facts, |kernel| kernel.listen_overflows)?;
    if refused < DROPS_MIN {
        return right(format!("{refused} connections refused"));
    }
    warning(
        format!("{refused} connections refused"),
        format!(
            "The kernel refused {refused} TCP connections because a listener's queue was full; \
             a program does not accept fast enough. Raise net.core.somaxconn, or add replicas."
        ),
    )
}

pub fn tracked(facts: &Facts) -> Judged {
    let (count, max) = facts.after.tracked.ok_or("nf_conntrack is not in use here")?;
    let dropped = growth(facts, |kernel| kernel.tracking_drops).unwrap_or_default();
    let seen = format!("{} of {}", grouped(count), grouped(max));
    if count * 100 >= max * FULL_PERCENT {
        return wrong(
            &seen,
            format!(
                "nf_conntrack holds {} of {} entries and dropped {} packets; new DNS queries from \
                 this node are lost. Raise net.netfilter.nf_conntrack_max, or use a cache on each \
                 node.",
                grouped(count),
                grouped(max),
                grouped(facts.after.tracking_drops.unwrap_or(dropped))
            ),
        );
    }
    right(seen)
}

pub fn insertions(facts: &Facts) -> Judged {
    let failed = growth(facts, |kernel| kernel.insert_failures)?;
    let rate = failed as f64 / facts.span.as_secs_f64().max(0.1);
    if failed < DROPS_MIN {
        return right(format!("{failed} insertions failed"));
    }
    warning(
        format!("insert_failed grew by {failed}"),
        format!(
            "insert_failed grows by {rate:.0} per second on this node; parallel A and AAAA queries \
             over one socket lose packets for 5 s. Use a cache on each node, or \
             single-request-reopen."
        ),
    )
}

pub fn throttled(facts: &Facts) -> Judged {
    let both = facts.before.throttled.zip(facts.after.throttled);
    let ((was, _), (waits, periods)) = both.ok_or("the CPU limit is not known")?;
    let grew = waits.saturating_sub(was);
    if periods == 0 || grew < DROPS_MIN {
        return right("not throttled");
    }
    warning(
        format!("throttled in {grew} periods"),
        "This pod waits for CPU time because of its limit, so answers are late; raise or remove \
         the CPU limit.",
    )
}

/// The clock against that of the API server.
pub fn clock(facts: &Facts) -> Judged {
    let ahead = known(&facts.cluster)?.clock_ahead_secs.ok_or("the API server sends no date")?;
    let (size, direction) = (ahead.unsigned_abs(), if ahead > 0 { "behind" } else { "ahead of" });
    let shown = match size {
        0..=120 => format!("{size} s"),
        _ => format!("{} minutes", size / 60),
    };
    if size <= SKEW_SECS {
        return right(format!("within {} s of the API server", size.max(1)));
    }
    let advice = format!(
        "The clock of this pod is {shown} {direction} the API server; TLS to the upstream and to \
         the API server fails if a certificate is not valid yet or no longer. Repair time \
         synchronisation on the node."
    );
    match size > SKEW_WRONG_SECS {
        true => wrong(format!("{shown} {direction} the API server"), advice),
        false => warning(format!("{shown} {direction} the API server"), advice),
    }
}

/// A few are lost on any busy machine.
const DROPS_MIN: u64 = 10;
/// From this share on new connections are lost in bursts.
const FULL_PERCENT: u64 = 98;
/// An HTTP date has seconds, and the answer took a moment.
const SKEW_SECS: u64 = 5;
/// Certificates and tokens are off by more than they allow for.
const SKEW_WRONG_SECS: u64 = 120;
