//! Parses one JSON text of the API server into one event: a line of a watch, or an item of a list.
//!
//! Core. Knows the events of a watch and the envelope of a list; does not know connections, nor
//! what the objects mean.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::project::{
    EndpointSliceObject, Input, Kind, NamespaceObject, NodeObject, ObjectId, PodObject,
    ServiceCidrObject, ServiceImportObject, ServiceObject,
};

/// One line of a watch, or one item of a list.
#[derive(Debug)]
pub enum Event {
    /// The object was added or changed.
    Applied(Input),
    /// The object was removed; this is its last state.
    Deleted(Input),
    /// All events up to this resource version have been sent.
    Bookmark {
        /// The resource version.
        version: String,
        /// Whether all objects of the streamed list have been sent (KEP-3157).
        ends_initial: bool,
    },
    /// The server ends the watch.
    Refused(Status),
    /// The object cannot be read.
    Unreadable {
        /// Its identity.
        object: ObjectId,
        /// Its resource version.
        version: Option<String>,
        /// Why, in one line.
        reason: String,
    },
}

/// The parts of the API server's refusal (`v1` Status) that are used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// The reason in one word.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Further details.
    #[serde(deserialize_with = "null_is_default")]
    pub details: StatusDetails,
}

/// The details of a refusal that are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    /// When to retry, in seconds; 0 if the server set no time.
    pub retry_after_seconds: u32,
}

/// A list without its items.
#[derive(Debug, Deserialize)]
pub struct Envelope {
    /// The position of the list.
    pub metadata: ListMetadata,
}

/// The position of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMetadata {
    /// The resource version of the whole list.
    pub resource_version: String,
    /// The continue token of the next page; empty at the end.
    #[serde(default)]
    pub r#continue: String,
}

/// Reads one line of a watch of `kind`.
///
/// Fails if the line is not an event at all: then all lines after it cannot be trusted.
pub fn event(kind: Kind, line: &[u8]) -> Result<Event, serde_json::Error> {
    let read = match kind {
        Kind::Service => typed::<ServiceObject>(line, Input::Service),
        Kind::EndpointSlice => typed::<EndpointSliceObject>(line, Input::EndpointSlice),
        Kind::Namespace => typed::<NamespaceObject>(line, Input::Namespace),
        Kind::Pod => typed::<PodObject>(line, Input::Pod),
        Kind::ServiceImport => typed::<ServiceImportObject>(line, Input::ServiceImport),
        Kind::Node => typed::<NodeObject>(line, Input::Node),
        Kind::ServiceCidr => typed::<ServiceCidrObject>(line, Input::ServiceCidr),
    };
    match read {
        Ok((Type::Added | Type::Modified, input)) => Ok(Event::Applied(input)),
        Ok((Type::Deleted, input)) => Ok(Event::Deleted(input)),
        Ok((Type::Bookmark, _)) => bookmark(line),
        Ok((Type::Error, _)) => refusal(line),
        Err(error) => match serde_json::from_slice::<Line<Value>>(line)? {
            Line { r#type: Type::Error, .. } => refusal(line),
            Line { r#type: Type::Bookmark, .. } => bookmark(line),
            Line { object, .. } => Ok(unreadable_json(kind, &object, &error)),
        },
    }
}

/// Reads one item of a list of `kind`.
///
/// Fails if it is not an object at all.
pub fn item(kind: Kind, text: &[u8]) -> Result<Event, serde_json::Error> {
    let read = match kind {
        Kind::Service => serde_json::from_slice(text).map(Input::Service),
        Kind::EndpointSlice => serde_json::from_slice(text).map(Input::EndpointSlice),
        Kind::Namespace => serde_json::from_slice(text).map(Input::Namespace),
        Kind::Pod => serde_json::from_slice(text).map(Input::Pod),
        Kind::ServiceImport => serde_json::from_slice(text).map(Input::ServiceImport),
        Kind::Node => serde_json::from_slice(text).map(Input::Node),
        Kind::ServiceCidr => serde_json::from_slice(text).map(Input::ServiceCidr),
    };
    match read {
        Ok(input) => Ok(Event::Applied(input)),
        Err(error) => {
            let object: Value = serde_json::from_slice(text)?;
            if !object.is_object() {
                return Err(error);
            }
            Ok(unreadable_json(kind, &object, &error))
        }
    }
}

#[derive(Deserialize)]
struct Line<T> {
    r#type: Type,
    object: T,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Type {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

fn typed<T: DeserializeOwned>(
    line: &[u8],
    input: fn(T) -> Input,
) -> Result<(Type, Input), serde_json::Error> {
    let line: Line<T> = serde_json::from_slice(line)?;
    Ok((line.r#type, input(line.object)))
}

/// Reads a bookmark. One without a version is an error: the watch cannot continue from there.
fn bookmark(line: &[u8]) -> Result<Event, serde_json::Error> {
    let object = serde_json::from_slice::<Line<Value>>(line)?.object;
    let metadata = &object["metadata"];
    let Some(version) = metadata["resourceVersion"].as_str() else {
        return Err(serde::de::Error::custom("a bookmark has no resourceVersion"));
    };
    let ends_initial = metadata["annotations"][INITIAL_EVENTS_END].as_str() == Some("true");
    Ok(Event::Bookmark { version: version.to_owned(), ends_initial })
}

fn refusal(line: &[u8]) -> Result<Event, serde_json::Error> {
    Ok(Event::Refused(serde_json::from_slice::<Line<Status>>(line)?.object))
}

/// Reads name, namespace and version of `object` separately from all other fields: an odd object
/// must not stop the watch of all others.
fn unreadable_json(kind: Kind, object: &Value, error: &serde_json::Error) -> Event {
    let text = |field: &str| object["metadata"][field].as_str().filter(|text| !text.is_empty());
    let version = text("resourceVersion").map(str::to_owned);
    unreadable(kind, (text("namespace"), text("name")), version, error)
}

/// Returns the event of an object that cannot be read because of `error`. It has the namespace and
/// the name, if these can be read.
pub(super) fn unreadable(
    kind: Kind,
    (namespace, name): (Option<&str>, Option<&str>),
    version: Option<String>,
    error: &dyn std::error::Error,
) -> Event {
    let namespace = if kind.is_namespaced() { namespace.unwrap_or("default") } else { "" };
    let object = ObjectId::new(kind, namespace, name.unwrap_or_default());
    Event::Unreadable { object, version, reason: error.to_string() }
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The annotation of the bookmark that ends a streamed list (KEP-3157).
pub(super) const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(event: Result<Event, serde_json::Error>) -> String {
        match event {
            Ok(Event::Applied(input)) => format!("applied {}", input.id()),
            Ok(Event::Deleted(input)) => format!("deleted {}", input.id()),
            Ok(Event::Bookmark { version, ends_initial }) => {
                format!("bookmark {version} {ends_initial}")
            }
            Ok(Event::Refused(status)) => {
                let retry = status.details.retry_after_seconds;
                format!("refused {} {} {retry}", status.code, status.reason)
            }
            Ok(Event::Unreadable { object, version, .. }) => {
                format!("unreadable {object} {version:?}")
            }
            Err(_) => "no event".to_owned(),
        }
    }

    #[test]
    fn lines_of_a_watch() {
        let check = |kind, line: &str, expected: &str| {
            assert_eq!(shown(event(kind, line.as_bytes())), expected, "{line}");
        };
        let web = r#"{"kind":"Service","metadata":{"name":"web","namespace":"shop",
            "managedFields":[{"manager":"kubectl"}]},"spec":{"clusterIP":"10.0.0.7"}}"#;
        let line = |word: &str, object: &str| format!(r#"{{"type":"{word}","object":{object}}}"#);
        check(Kind::Service, &line("ADDED", web), "applied Service shop/web");
        check(Kind::Service, &line("MODIFIED", web), "applied Service shop/web");
        check(Kind::Service, &line("DELETED", web), "deleted Service shop/web");
        check(Kind::Service, &line("RENAMED", web), "no event");
        let shop = r#"{"metadata":{"name":"shop","annotations":null}}"#;
        check(Kind::Namespace, &line("ADDED", shop), "applied Namespace shop");
        let mark = r#"{"metadata":{"resourceVersion":"7"}}"#;
        check(Kind::Service, &line("BOOKMARK", mark), "bookmark 7 false");
        let mark = r#"{"kind":"Pod","metadata":{"resourceVersion":"8","annotations":
            {"k8s.io/initial-events-end":"true"}},"spec":{"containers":null},"status":{}}"#;
        check(Kind::Pod, &line("BOOKMARK", mark), "bookmark 8 true");
        let gone = r#"{"kind":"Status","metadata":{},"status":"Failure","reason":"Expired",
            "code":410,"details":null}"#;
        check(Kind::Pod, &line("ERROR", gone), "refused 410 Expired 0");
        check(Kind::Service, &line("ERROR", gone), "refused 410 Expired 0");
        let busy = r#"{"code":429,"reason":"TooManyRequests","details":{"retryAfterSeconds":3}}"#;
        check(Kind::Service, &line("ERROR", busy), "refused 429 TooManyRequests 3");
        let odd = r#"{"metadata":{"name":"web","resourceVersion":"9"},"spec":{"ports":"http"}}"#;
        check(Kind::Service, &line("ADDED", odd), r#"unreadable Service default/web Some("9")"#);
        check(Kind::Service, "{}", "no event");
        check(Kind::Service, "<html>", "no event");
    }

    #[test]
    fn items_of_a_list() {
        let check = |kind, text: &str, expected: &str| {
            assert_eq!(shown(item(kind, text.as_bytes())), expected, "{text}");
        };
        check(
            Kind::EndpointSlice,
            r#"{"metadata":{"name":"web-x"},"addressType":"IPv4","endpoints":null}"#,
            "applied EndpointSlice default/web-x",
        );
        check(
            Kind::EndpointSlice,
            r#"{"metadata":{"name":"web-x"},"endpoints":7}"#,
            "unreadable EndpointSlice default/web-x None",
        );
        check(Kind::Pod, "7", "no event");
    }

    /// An object of each kind with every field that is read, and many that are not.
    fn samples() -> [(Kind, Value); 7] {
        let metadata = serde_json::json!({
            "name": "web", "namespace": "shop", "resourceVersion": "7", "uid": "u",
            "creationTimestamp": "2026-11-24T10:00:00Z", "generation": 1,
            "deletionTimestamp": "2026-11-24T10:00:00Z",
            "labels": {"kubernetes.io/service-name": "web", "topology.kubernetes.io/zone": "a",
                "multicluster.kubernetes.io/service-name": "web",
                "multicluster.kubernetes.io/source-cluster": "c"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time":
                "2026-11-24T10:00:00Z"},
            "ownerReferences": [{"kind": "Service", "name": "web", "uid": "u"}],
            "managedFields": [{"manager": "m", "time": "2026-11-24T10:00:00Z",
                "fieldsV1": {"f:spec": {}}}],
        });
        let object = |kind, mut object: Value| {
            object["metadata"] = metadata.clone();
            (kind, object)
        };
        let port = serde_json::json!({"name": "http", "port": 80, "protocol": "TCP"});
        [
            object(
                Kind::Service,
                serde_json::json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.7",
                    "clusterIPs": ["10.0.0.7", "fd00::7"], "externalName": "a.example",
                    "ports": [port], "publishNotReadyAddresses": true}}),
            ),
            object(
                Kind::EndpointSlice,
                serde_json::json!({"addressType": "IPv4", "ports": [port], "endpoints": [
                    {"addresses": ["10.1.0.1"], "hostname": "a", "nodeName": "n", "zone": "z",
                        "conditions": {"ready": true, "serving": true, "terminating": false},
                        "targetRef": {"kind": "Pod", "name": "p", "namespace": "shop"}}]}),
            ),
            object(Kind::Namespace, serde_json::json!({"status": {"phase": "Active"}})),
            object(
                Kind::Pod,
                serde_json::json!({"spec": {"hostNetwork": false, "hostname": "a"}, "status":
                    {"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}]}}),
            ),
            object(
                Kind::ServiceImport,
                serde_json::json!({"spec": {"type": "ClusterSetIP", "ips": ["10.0.0.7"],
                    "ports": [port]}, "status": {"clusters": [{"cluster": "c"}]}}),
            ),
            object(
                Kind::Node,
                serde_json::json!({"spec": {"podCIDR": "10.1.0.0/24",
                    "podCIDRs": ["10.1.0.0/24"]}}),
            ),
            object(Kind::ServiceCidr, serde_json::json!({"spec": {"cidrs": ["10.96.0.0/16"]}})),
        ]
    }

    /// Returns every path to a value inside `value`.
    fn paths(value: &Value, at: &str, found: &mut Vec<String>) {
        let step = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        let inside: Vec<(String, &Value)> = match value {
            Value::Object(fields) => fields.iter().map(|(key, it)| (step(key), it)).collect(),
            Value::Array(items) => {
                items.iter().enumerate().map(|(at, it)| (step(&at.to_string()), it)).collect()
            }
            _ => Vec::new(),
        };
        for (path, value) in inside {
            found.push(path.clone());
            paths(value, &path, found);
        }
    }

    /// If one field has any odd value, only this object is lost: the line is an event of that
    /// object, and the watch continues from its version.
    #[test]
    fn no_field_of_an_object_stops_a_watch() {
        let odd = serde_json::json!([null, true, 7, -1.5, "", "x", [], [null], {}, {"a": null}]);
        let mut count = 0;
        for (kind, sample) in samples() {
            let whole = item(kind, sample.to_string().as_bytes());
            assert!(shown(whole).starts_with("applied"), "{kind:?}");
            let mut found = Vec::new();
            paths(&sample, "", &mut found);
            for (path, odd) in found
                .iter()
                .flat_map(|path| odd.as_array().unwrap().iter().map(move |odd| (path, odd)))
            {
                let mut object = sample.clone();
                *object.pointer_mut(path).unwrap() = odd.clone();
                let names = ["/metadata", "/metadata/name", "/metadata/namespace"];
                for word in ["ADDED", "MODIFIED", "DELETED"] {
                    let line = serde_json::json!({"type": word, "object": object}).to_string();
                    let read = shown(event(kind, line.as_bytes()));
                    let is_named = read.contains("web") || names.contains(&path.as_str());
                    assert!(read != "no event" && is_named, "{kind:?} {path} {odd}: {read}");
                    let version = ["/metadata", "/metadata/resourceVersion"];
                    let keeps = !read.starts_with("unreadable") || read.contains(r#"Some("7")"#);
                    assert!(keeps || version.contains(&path.as_str()), "{path} {odd}: {read}");
                }
                let read = shown(item(kind, object.to_string().as_bytes()));
                assert_ne!(read, "no event", "{kind:?} {path} {odd}");
                count += 1;
            }
        }
        assert!(count > 2_000, "{count}");
    }
}
