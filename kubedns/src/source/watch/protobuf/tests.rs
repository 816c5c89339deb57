//! Tests frames from an API server, unchanged and with each byte of an object replaced.

use super::*;
use crate::project::ServiceObject;
use crate::source::watch::decode;

/// Returns kind, frame and JSON of each sample.
fn samples() -> Vec<(Kind, Vec<u8>, &'static str)> {
    let sample = |line: &'static str| {
        let [kind, frame, json] = *line.splitn(3, ' ').collect::<Vec<_>>() else {
            panic!("{line}")
        };
        let kind = Kind::KNOWN.into_iter().find(|known| known.name() == kind).unwrap();
        (kind, bytes(frame), json)
    };
    include_str!("samples.txt").lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

fn bytes(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Returns a field with a length.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let len = value.len();
    let len = [len as u8 & 0x7f | 0x80, (len >> 7) as u8 & 0x7f | 0x80, (len >> 14) as u8];
    [&[number << 3 | 2][..], &len, value].concat()
}

/// Returns a frame about `object`.
fn frame(word: &str, object: &[u8]) -> Vec<u8> {
    let raw = [MAGIC, &field(1, b""), &field(2, object)].concat();
    [field(1, word.as_bytes()), field(2, &field(1, &raw))].concat()
}

/// Returns the object in `frame`.
fn object(frame: &[u8]) -> &[u8] {
    unwrapped(sole(sole(frame, 2).unwrap(), 1).unwrap()).unwrap()
}

fn shown(event: Result<Event, Malformed>) -> String {
    match event {
        Ok(Event::Applied(input)) => format!("applied {}", input.id()),
        Ok(Event::Deleted(input)) => format!("deleted {}", input.id()),
        Ok(Event::Bookmark { version, ends_initial }) => {
            format!("bookmark {version} {ends_initial}")
        }
        Ok(Event::Refused(status)) => {
            format!("refused {} {} {}", status.code, status.reason, status.message)
        }
        Ok(Event::Unreadable { object, version, reason }) => {
            format!("unreadable {object} {version:?}: {reason}")
        }
        Err(malformed) => malformed.to_string(),
    }
}

#[test]
fn an_object_is_the_same_as_from_json() {
    assert_eq!(samples().len(), Kind::KNOWN.len() - 1, "each kind but ServiceImport");
    for (kind, frame, json) in samples() {
        let Ok(Event::Applied(expected)) = decode::item(kind, json.as_bytes()) else { panic!() };
        let Ok(Event::Applied(read)) = event(kind, &frame) else { panic!("{kind}") };
        assert_eq!(format!("{read:#?}"), format!("{expected:#?}"));
        let gone = self::frame("DELETED", object(&frame));
        assert_eq!(shown(event(kind, &gone)), format!("deleted {}", expected.id()));
    }
}

#[test]
fn events() {
    let metadata = [field(1, b"web"), field(3, b"shop"), field(6, b"7")].concat();
    let service = field(1, &metadata);
    let check = |word: &str, object: &[u8], expected: &str| {
        assert_eq!(shown(event(Kind::Service, &frame(word, object))), expected);
    };
    check("ADDED", &service, "applied Service shop/web");
    check("MODIFIED", &service, "applied Service shop/web");
    check("DELETED", &service, "deleted Service shop/web");
    check("BOOKMARK", &service, "bookmark 7 false");
    let end = [field(1, INITIAL_EVENTS_END.as_bytes()), field(2, b"true")].concat();
    let end = field(1, &[field(6, b"8"), field(12, &end)].concat());
    check("BOOKMARK", &end, "bookmark 8 true");
    let nonsense = "not a protobuf message of the API: ";
    check("BOOKMARK", b"", &format!("{nonsense}a bookmark has no resourceVersion"));
    check("RENAMED", &service, &format!("{nonsense}the event has no known type"));
    let status = [field(3, b"too old"), field(4, b"Expired"), vec![6 << 3, 0x9a, 3]].concat();
    check("ERROR", &status, "refused 410 Expired too old");
    for broken in [&b"{}"[..], b"\xff", b"\x12\x05abc", b""] {
        assert!(shown(event(Kind::Service, broken)).starts_with(nonsense), "{broken:?}");
    }
    assert!(shown(event(Kind::ServiceImport, &frame("ADDED", &service))).starts_with("unreadable"));
}

#[test]
fn a_refusal_is_read() {
    let details = field(5, &[5 << 3, 3]);
    let body = [MAGIC, &field(2, &[field(3, b"busy"), details].concat())].concat();
    let status = refusal(&body).unwrap();
    assert_eq!((&*status.message, status.details.retry_after_seconds), ("busy", 3));
    assert!(refusal(br#"{"message":"busy"}"#).is_none() && refusal(b"").is_none());
}

/// If an object has a field of another type, only this object is lost, and the watch continues from
/// its version, however its own name is written.
#[test]
fn an_odd_field_costs_its_object() {
    let metadata = |name: &[u8]| [name, &field(3, b"shop"), &field(6, b"7")].concat();
    let web = field(1, &metadata(&field(1, b"web")));
    let check = |object: &[u8], expected: &str| {
        let shown = shown(event(Kind::Service, &frame("ADDED", object)));
        let id = shown.split(':').next().unwrap();
        assert_eq!(id, expected, "{object:?}");
    };
    let (all, nameless) = ("unreadable Service shop/web Some(\"7\")", "Service shop/ Some(\"7\")");
    check(&[&web[..], &[2 << 3, 1]].concat(), all);
    check(&[&web[..], &field(2, &[3 << 3, 1])].concat(), all);
    check(&[&web[..], &field(2, &field(3, b"\xff"))].concat(), all);
    check(&[&web[..], &field(2, &field(1, b"\x08"))].concat(), all);
    check(&[&web[..], &[2 << 3 | 2, 9]].concat(), all);
    check(&[&web[..], &[7]].concat(), all);
    check(&field(1, &metadata(&[1 << 3, 1])), &format!("unreadable {nameless}"));
    check(&field(1, &metadata(&field(1, b"\xff"))), &format!("unreadable {nameless}"));
    check(&field(1, &metadata(b"")), &format!("applied {nameless}").replace(" Some(\"7\")", ""));
    check(&[1 << 3, 1], "unreadable Service default/ None");
}

#[test]
fn the_ways_to_a_service_from_outside() {
    let ingress = |number, text| field(1, &field(1, &field(number, text)));
    let object = [
        field(2, &[field(3, b"10.0.0.7"), field(5, b"192.0.2.1"), field(5, b"192.0.2.2")].concat()),
        field(3, &ingress(1, b"192.0.2.3")),
        field(3, &ingress(2, b"lb.example")),
    ];
    let service = ServiceObject::read(&object.concat()).unwrap();
    assert_eq!(service.spec.external_ips, ["192.0.2.1", "192.0.2.2"]);
    let ingress: Vec<_> = service.status.load_balancer.ingress.iter().collect();
    assert_eq!(ingress[0].ip.as_deref(), Some("192.0.2.3"));
    assert_eq!(ingress[1].hostname.as_deref(), Some("lb.example"));
}

/// If any byte of an object is replaced, or it is cut off anywhere, the frame is still an event.
#[test]
fn no_byte_of_an_object_stops_a_watch() {
    for (kind, sample, _) in samples() {
        let whole = object(&sample);
        for at in 0..whole.len() {
            let cut = event(kind, &frame("MODIFIED", &whole[..at]));
            assert!(matches!(cut, Ok(Event::Applied(_) | Event::Unreadable { .. })), "{at}");
            for odd in [0, 1, 0x7f, 0x80, 0xff, whole[at] ^ 1, whole[at] ^ 8] {
                let mut object = whole.to_vec();
                object[at] = odd;
                let read = event(kind, &frame("DELETED", &object));
                assert!(matches!(read, Ok(Event::Deleted(_) | Event::Unreadable { .. })), "{at}");
            }
        }
    }
}

#[test]
fn numbers() {
    let number = |bytes: &[u8]| Fields(bytes).next().unwrap().map(|(_, value)| value.number());
    assert_eq!(number(b"\x08\x96\x01"), Ok(Ok(150)));
    assert_eq!(number(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Ok(Ok(-1)));
    assert_eq!(number(b"\x08\xff"), Err(Malformed("a number has no end")));
    assert_eq!(number(&[0xff; 20]), Err(Malformed("a number has no end")));
    assert_eq!(number(b"\x0d\0\0\0\0"), Ok(Err(Malformed("a field is not a number"))));
    assert_eq!(number(b"\x09\0\0\0\0"), Err(Malformed("a field is cut off")));
    assert_eq!(Fields(b"\x09\0\0\x08\x01").count(), 1, "nothing follows an error");
}
