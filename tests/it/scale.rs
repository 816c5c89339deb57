//! `cargo load scale` as a process: kubedns on a small cluster, measured as on a large one.
//!
//! The test uses only its JSON. It must not depend on how it measures.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_small_cluster_is_measured_from_start_to_last_change() {
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["scale", "--services", "20", "--endpoints", "260", "--headless", "1100"])
        .args(["--rounds", "1", "--seconds", "0.1", "--changes", "100"])
        .args(["--change-seconds", "0.5", "--json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    let size = &figures["sizes"][0];
    assert_eq!((&size["services"], &size["endpoints"]), (&20.into(), &1_360.into()));
    assert!(size["start_seconds"]["median"].as_f64().unwrap() > 0.0, "{size}");
    assert!(size["peak_megabytes"]["median"].as_f64().unwrap() > 1.0, "{size}");
    assert_eq!(figures["answers"].as_array().unwrap().len(), 8);
    for answers in figures["answers"].as_array().unwrap() {
        assert!(answers["over_floor"].as_f64().unwrap() > 0.0, "{answers}");
    }
    let changes = &figures["propagation"];
    assert!(changes["written"].as_u64().unwrap() > 0, "{changes}");
    assert_eq!(changes["lost"], 0);
}
