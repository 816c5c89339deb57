//! The fault rig: faults are injected one by one, and `healthz check` must name each of them.
//!
//! Knows what a check prints; does not know how it finds out. Every fault is a row: a name, what
//! makes the fault, and a part of the sentence. The score is printed: named and injected, false
//! alarms and runs.

mod ask;
mod page;
mod proxy;
mod readme;
mod scenarios;
mod world;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use scenarios::SCENARIOS;
use world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_names_every_fault() {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut runs = JoinSet::new();
    for scenario in SCENARIOS {
        let places = Arc::clone(&places);
        runs.spawn(async move {
            let place = places.acquire().await.unwrap();
            let (world, keep) = scenario.inject(World::healthy().await).await;
            let report = world.check().await;
            drop((place, keep));
            let is_named = report.advice().iter().any(|advice| advice.contains(scenario.sentence));
            (scenario, is_named, report.text(true))
        });
    }
    let results = runs.join_all().await;
    let missed: Vec<_> = results.iter().filter(|(_, is_named, _)| !is_named).collect();
    println!("faults named / injected: {} / {}", results.len() - missed.len(), results.len());
    for (scenario, _, report) in &missed {
        println!("\n=== {}: expected {:?} in\n{report}", scenario.fault, scenario.sentence);
    }
    assert!(missed.is_empty(), "{} faults are not named", missed.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_pod_raises_no_alarm() {
    let world = Arc::new(World::healthy().await);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut runs = JoinSet::new();
    for _ in 0..HEALTHY_RUNS {
        let (world, places) = (Arc::clone(&world), Arc::clone(&places));
        runs.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let report = world.check().await;
            (report.advice().is_empty(), report.text(true))
        });
    }
    let results = runs.join_all().await;
    let alarms: Vec<_> = results.iter().filter(|(is_quiet, _)| !is_quiet).collect();
    println!("false alarms / runs: {} / {}", alarms.len(), results.len());
    assert!(alarms.is_empty(), "{} of {}:\n{}", alarms.len(), results.len(), alarms[0].1);
}

/// Runs of which not one may find anything in a healthy pod.
const HEALTHY_RUNS: usize = 200;
/// More checks at a time would be a load test.
const AT_ONCE: usize = 6;
