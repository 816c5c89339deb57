//! Reads the pages of dnscache and kubedns once per second for the status page.
//!
//! Edge. What the pages mean is the business of `view`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use shared::clock::boot_time;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::figures::{Figures, Pages};
use crate::view::{Top, View};
use crate::web::{Origin, pages};

/// Where the programs of the pod answer over HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// dnscache.
    pub dnscache: SocketAddr,
    /// kubedns.
    pub kubedns: SocketAddr,
}

/// Reads until `stopping`.
pub async fn follow(
    programs: Programs,
    view: watch::Sender<View>,
    stopping: CancellationToken,
) -> Result<(), Infallible> {
    let start = boot_time();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0_u64.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stopping.cancelled() => break,
        }
        let is_full = turn.is_multiple_of(FULL_EVERY);
        let (before, other) = {
            let view = view.borrow();
            (view.dnscache.clone(), view.kubedns.clone())
        };
        let read = async {
            tokio::join!(
                again(programs.dnscache, before, is_full),
                again(programs.kubedns, other, is_full),
                tops(programs.dnscache, is_full),
            )
        };
        let (dnscache, kubedns, tops) = tokio::select! {
            read = read => read,
            () = stopping.cancelled() => break,
        };
        view.send_modify(|view| {
            view.read(dnscache, kubedns, boot_time().since(start));
            if let Some(tops) = tops {
                view.tops = tops;
            }
        });
    }
    Ok(())
}

/// The pages of a program: all of them if `is_full` or if there were none, else the metrics alone.
async fn again(
    address: SocketAddr,
    before: Result<Pages, String>,
    is_full: bool,
) -> Result<Pages, String> {
    match before {
        Ok(before) if !is_full => {
            let page = Origin::plain(address).get("/metrics", PATIENCE).await?;
            Ok(Pages { figures: Figures::read(&page.body), ..before })
        }
        _ => pages(address, PATIENCE).await,
    }
}

/// The heavy hitters, if it is time for them.
async fn tops(address: SocketAddr, is_full: bool) -> Option<Vec<Top>> {
    if !is_full {
        return None;
    }
    let origin = Origin::plain(address);
    let mut tops = Vec::new();
    for by in ["name", "client", "nxdomain"] {
        let path = format!("/top?by={by}&window=1m&limit=10&format=json");
        let Ok(page) = origin.get(&path, PATIENCE).await else { continue };
        if let Ok(top) = serde_json::from_str::<Top>(&page.body) {
            tops.push(Top { by: by.to_owned(), ..top });
        }
    }
    Some(tops)
}

const PERIOD: Duration = Duration::from_secs(1);
/// So many periods lie between two readings of what changes rarely.
const FULL_EVERY: u64 = 5;
/// A program that does not answer in time has no figures for this second.
const PATIENCE: Duration = Duration::from_millis(900);
