//! `cargo load followers` as a process: a few followers of two replicas, measured as thousands are.
//!
//! Knows its JSON; knows nothing of how it measures.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_few_followers_remove_every_changed_name() {
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["followers", "--count", "40", "--changes", "50", "--seconds", "1", "--json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&figures["followers"], &figures["changes"]), (&40.into(), &50.into()));
    assert_eq!(figures["replicas"].as_array().unwrap().len(), 2);
    for times in [&figures["each_removal_ms"], &figures["last_removal_ms"]] {
        assert!(times["p50"].as_f64().unwrap() > 0.0, "{figures}");
    }
    assert!(figures["bytes_per_change"].as_f64().unwrap() > 30.0, "{figures}");
}
