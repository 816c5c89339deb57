//! Objects as an API server writes them in protobuf: frames of a watch, and errors.
//!
//! It has the numbers of the fields that objects in tests use (`generated.proto` of `k8s.io/api`).
//! A value keeps the type that it has in JSON, so that an invalid object is invalid in both.

use jiff::Timestamp;
use serde_json::Value;

/// The type of a field.
#[derive(Clone, Copy)]
enum Shape {
    /// Strings, numbers and booleans.
    Plain,
    Time,
    Map,
    Message(&'static [Field]),
}

/// Number, name and shape. A list is its items, one after the other.
type Field = (u8, &'static str, Shape);

use Shape::{Map, Message, Plain, Time};

/// Returns one frame of a watch, without its length: an object as [`enveloped`] returns it, and the
/// type of the event.
pub fn frame(word: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    bytes(&mut raw, 1, object);
    let mut frame = Vec::new();
    bytes(&mut frame, 1, word.as_bytes());
    bytes(&mut frame, 2, &raw);
    frame
}

/// Appends a frame after its length, as it is sent.
pub fn write_frame(word: &str, object: &[u8], frames: &mut Vec<u8>) {
    let frame = frame(word, object);
    let len = u32::try_from(frame.len()).expect("a small object");
    frames.extend_from_slice(&len.to_be_bytes());
    frames.extend_from_slice(&frame);
}

/// Returns `object` in its envelope, as the whole answer to a request.
pub fn enveloped(object: &Value) -> Vec<u8> {
    let mut message = Vec::new();
    write(&mut message, fields(object), object);
    let mut types = Vec::new();
    for (number, name) in [(1, "apiVersion"), (2, "kind")] {
        bytes(&mut types, number, object[name].as_str().unwrap_or_default().as_bytes());
    }
    let mut envelope = MAGIC.to_vec();
    bytes(&mut envelope, 1, &types);
    bytes(&mut envelope, 2, &message);
    envelope
}

/// Returns the fields of an object by its kind. If it has no kind, returns those of metadata.
fn fields(object: &Value) -> &'static [Field] {
    match object["kind"].as_str().unwrap_or_default() {
        "Service" => &SERVICE,
        "EndpointSlice" => &ENDPOINT_SLICE,
        "Pod" => &POD,
        "Node" => &NODE,
        "ServiceCIDR" => &SERVICE_CIDR,
        "Status" => &STATUS,
        _ => &NAMESPACE,
    }
}

fn write(message: &mut Vec<u8>, fields: &[Field], object: &Value) {
    for &(number, name, shape) in fields {
        match &object[name] {
            Value::Array(items) => items.iter().for_each(|item| put(message, number, shape, item)),
            value => put(message, number, shape, value),
        }
    }
}

fn put(message: &mut Vec<u8>, number: u8, shape: Shape, value: &Value) {
    match (shape, value) {
        (_, Value::Null) => {}
        (_, Value::Bool(truth)) => varint(message, number, u64::from(*truth)),
        (_, Value::Number(value)) => {
            varint(message, number, value.as_i64().unwrap_or_default().cast_unsigned());
        }
        (shape, Value::String(text)) => match (shape, text.parse::<Timestamp>()) {
            (Time, Ok(time)) => {
                let mut inside = Vec::new();
                varint(&mut inside, 1, time.as_second().cast_unsigned());
                bytes(message, number, &inside);
            }
            _ => bytes(message, number, text.as_bytes()),
        },
        (Map, Value::Object(entries)) => {
            for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
                let mut entry = Vec::new();
                bytes(&mut entry, 1, key.as_bytes());
                put(&mut entry, 2, Plain, value);
                bytes(message, number, &entry);
            }
        }
        (shape, value) => {
            let mut inside = Vec::new();
            if let Message(fields) = shape {
                write(&mut inside, fields, value);
            }
            bytes(message, number, &inside);
        }
    }
}

fn bytes(message: &mut Vec<u8>, number: u8, value: &[u8]) {
    number_of(message, u64::from(number) << 3 | 2);
    number_of(message, value.len() as u64);
    message.extend_from_slice(value);
}

fn varint(message: &mut Vec<u8>, number: u8, value: u64) {
    number_of(message, u64::from(number) << 3);
    number_of(message, value);
}

fn number_of(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

const MAGIC: &[u8] = b"k8s\0";
const METADATA: Shape = Message(&[
    (1, "name", Plain),
    (3, "namespace", Plain),
    (5, "uid", Plain),
    (6, "resourceVersion", Plain),
    (7, "generation", Plain),
    (8, "creationTimestamp", Time),
    (9, "deletionTimestamp", Time),
    (11, "labels", Map),
    (12, "annotations", Map),
    (13, "ownerReferences", Message(&[(1, "kind", Plain), (3, "name", Plain), (4, "uid", Plain)])),
    (17, "managedFields", MANAGED_FIELD),
]);
const MANAGED_FIELD: Shape =
    Message(&[(1, "manager", Plain), (2, "operation", Plain), (4, "time", Time)]);
const NAMESPACE: [Field; 1] = [(1, "metadata", METADATA)];
/// A port of a Service or an EndpointSlice.
const PORT: Shape = Message(&[(1, "name", Plain), (2, "protocol", Plain), (3, "port", Plain)]);
const SERVICE: [Field; 3] = [
    (1, "metadata", METADATA),
    (
        2,
        "spec",
        Message(&[
            (1, "ports", PORT),
            (2, "selector", Map),
            (3, "clusterIP", Plain),
            (4, "type", Plain),
            (5, "externalIPs", Plain),
            (10, "externalName", Plain),
            (13, "publishNotReadyAddresses", Plain),
            (18, "clusterIPs", Plain),
        ]),
    ),
    (3, "status", Message(&[(1, "loadBalancer", Message(&[(1, "ingress", INGRESS)]))])),
];
const INGRESS: Shape = Message(&[(1, "ip", Plain), (2, "hostname", Plain)]);
const ENDPOINT_SLICE: [Field; 4] = [
    (1, "metadata", METADATA),
    (
        2,
        "endpoints",
        Message(&[
            (1, "addresses", Plain),
            (
                2,
                "conditions",
                Message(&[(1, "ready", Plain), (2, "serving", Plain), (3, "terminating", Plain)]),
            ),
            (3, "hostname", Plain),
            (
                4,
                "targetRef",
                Message(&[
                    (1, "kind", Plain),
                    (2, "namespace", Plain),
                    (3, "name", Plain),
                    (4, "uid", Plain),
                ]),
            ),
            (6, "nodeName", Plain),
            (7, "zone", Plain),
        ]),
    ),
    (3, "ports", PORT),
    (4, "addressType", Plain),
];
const POD: [Field; 3] = [
    (1, "metadata", METADATA),
    (2, "spec", Message(&[(11, "hostNetwork", Plain)])),
    (3, "status", Message(&[(1, "phase", Plain), (6, "podIP", Plain), (12, "podIPs", POD_IP)])),
];
const POD_IP: Shape = Message(&[(1, "ip", Plain)]);
const NODE: [Field; 2] = [
    (1, "metadata", METADATA),
    (2, "spec", Message(&[(1, "podCIDR", Plain), (7, "podCIDRs", Plain)])),
];
const SERVICE_CIDR: [Field; 2] =
    [(1, "metadata", METADATA), (2, "spec", Message(&[(1, "cidrs", Plain)]))];
const STATUS: [Field; 5] = [
    (2, "status", Plain),
    (3, "message", Plain),
    (4, "reason", Plain),
    (5, "details", Message(&[(5, "retryAfterSeconds", Plain)])),
    (6, "code", Plain),
];
