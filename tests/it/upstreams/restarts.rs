//! A real pair of dnscache and kubedns under load, kubedns killed and stopped.

use serde_json::Value;

use crate::load::load;

#[test]
fn no_cached_name_fails_while_kubedns_is_killed_and_stopped() {
    let some = ["--kills", "3", "--stops", "2", "--rate", "5000", "--json"];
    let figures: Value = serde_json::from_str(&load(&[&["restarts"], &some[..]].concat())).unwrap();
    assert!(figures["cached"]["asked"].as_u64().unwrap() > 10_000, "{figures}");
    assert_eq!(figures["cached"]["servfail"], 0, "{figures}");
}
