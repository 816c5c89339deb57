//! Poisoned objects: one field, at any depth, absent, null, empty, or of another type.

use proptest::prelude::*;
use serde_json::{Value, json};

/// The invalid field, and its value.
#[derive(Clone, Debug)]
pub struct Poison {
    /// Chooses among the fields that the object has.
    place: prop::sample::Index,
    /// The value; `None` if the field is absent.
    value: Option<Value>,
}

/// Generates any poison.
pub fn poison() -> impl Strategy<Value = Poison> {
    let long = "y".repeat(300);
    let odd = json!([null, true, 7, -1, 1.5, "", "y", long, [], [null], {}, {"y": null}]);
    let odd: Vec<Value> = odd.as_array().expect("written above").clone();
    let value = prop::option::weighted(0.9, prop::sample::select(odd));
    (any::<prop::sample::Index>(), value).prop_map(|(place, value)| Poison { place, value })
}

impl Poison {
    /// Returns `object` with the metadata of a real one, and with its invalid field.
    pub fn put_into(&self, mut object: Value) -> Value {
        dress(&mut object["metadata"]);
        let mut places = Vec::new();
        find(&object, "", &mut places);
        let place = self.place.get(&places);
        match &self.value {
            Some(value) => *object.pointer_mut(place).expect("found there") = value.clone(),
            None => {
                let (parent, key) = place.rsplit_once('/').expect("it begins with one");
                let key = key.replace("~1", "/").replace("~0", "~");
                match object.pointer_mut(parent).expect("found there") {
                    Value::Object(fields) => drop(fields.remove(&key)),
                    Value::Array(items) => drop(items.remove(key.parse().expect("an index"))),
                    _ => unreachable!("it has something inside"),
                }
            }
        }
        object
    }
}

/// Adds what API servers and controllers write into `metadata`.
fn dress(metadata: &mut Value) {
    let time = "2026-11-24T10:00:00Z";
    for (name, value) in [
        ("uid", json!("u")),
        ("resourceVersion", json!("7")),
        ("generation", json!(1)),
        ("deletionTimestamp", json!(time)),
        ("annotations", json!({"endpoints.kubernetes.io/last-change-trigger-time": time})),
        ("ownerReferences", json!([{"kind": "Service", "name": "s", "uid": "u"}])),
        ("managedFields", json!([{"manager": "m", "operation": "Update", "time": time}])),
    ] {
        metadata[name] = value;
    }
}

/// Finds every place inside `value`, which is at `at`, except the kind of the object.
fn find(value: &Value, at: &str, places: &mut Vec<String>) {
    let mut each = |key: String, value: &Value| {
        let place = format!("{at}/{key}");
        if place != "/kind" {
            places.push(place.clone());
            find(value, &place, places);
        }
    };
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, it)| each(key.replace('~', "~0").replace('/', "~1"), it));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, it)| each(at.to_string(), it));
        }
        _ => {}
    }
}
