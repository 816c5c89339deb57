//! One JSON text of the API server becomes one event.
//!
//! Core. Knows the events of a watch and the envelope of a list; does not know connections, nor
//! what the objects mean.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::project::{
    EndpointSliceObject, Input, Kind, Metadata, NamespaceObject, NodeObject, ObjectId, PodObject,
    ServiceCidrObject, ServiceImportObject, ServiceObject,
};

/// What one line of a watch, or one item of a list, says.
#[derive(Debug)]
pub enum Event {
    /// The object is there.
    Applied(Input),
    /// The object is gone; this is how it was last.
    Deleted(Input),
    /// Everything up to this resource version has been said.
    Bookmark {
        /// The resource version.
        version: String,
        /// Everything that was there at the beginning has been said (KEP-3157).
        ends_initial: bool,
    },
    /// The server ends the watch.
    Refused(Status),
    /// The object cannot be read.
    Unreadable {
        /// Which.
        object: ObjectId,
        /// Its resource version.
        version: Option<String>,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

/// What the API server says when it refuses (`v1` Status), as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// One word for it.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// More.
    #[serde(deserialize_with = "null_is_default")]
    pub details: StatusDetails,
}

/// The details of a refusal that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    /// When to come again, in seconds; 0 where nothing is said.
    pub retry_after_seconds: u32,
}

/// A list without its items.
#[derive(Debug, Deserialize)]
pub struct Envelope {
    /// Where the list stands.
    pub metadata: ListMetadata,
}

/// Where a list stands.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMetadata {
    /// The resource version of the whole list.
    pub resource_version: String,
    /// What to ask for the rest with; empty at the end.
    #[serde(default)]
    pub r#continue: String,
}

/// Reads one line of a watch of `kind`.
///
/// Fails where the line is no event at all: then nothing behind it can be trusted.
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
        Err(error) => match serde_json::from_slice::<Line<Named>>(line)? {
            Line { r#type: Type::Error, .. } => refusal(line),
            Line { r#type: Type::Bookmark, .. } => bookmark(line),
            Line { object, .. } => Ok(unreadable(kind, object, error)),
        },
    }
}

/// Reads one item of a list of `kind`.
///
/// Fails where it is no object at all.
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
        Err(error) => Ok(unreadable(kind, serde_json::from_slice(text)?, error)),
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

/// An object of which only the identity can be read.
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Mark {
    metadata: MarkMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MarkMetadata {
    resource_version: String,
    #[serde(default, deserialize_with = "null_is_default")]
    annotations: MarkAnnotations,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MarkAnnotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_events_end: Option<String>,
}

fn typed<T: DeserializeOwned>(
    line: &[u8],
    input: fn(T) -> Input,
) -> Result<(Type, Input), serde_json::Error> {
    let line: Line<T> = serde_json::from_slice(line)?;
    Ok((line.r#type, input(line.object)))
}

fn bookmark(line: &[u8]) -> Result<Event, serde_json::Error> {
    let MarkMetadata { resource_version, annotations } =
        serde_json::from_slice::<Line<Mark>>(line)?.object.metadata;
    let ends_initial = annotations.initial_events_end.as_deref() == Some("true");
    Ok(Event::Bookmark { version: resource_version, ends_initial })
}

fn refusal(line: &[u8]) -> Result<Event, serde_json::Error> {
    Ok(Event::Refused(serde_json::from_slice::<Line<Status>>(line)?.object))
}

fn unreadable(kind: Kind, named: Named, error: serde_json::Error) -> Event {
    let metadata = named.metadata;
    let namespace = if kind == Kind::Namespace { "" } else { metadata.namespace() };
    let object = ObjectId::new(kind, namespace, &metadata.name);
    Event::Unreadable { object, version: metadata.resource_version, error }
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

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
}
