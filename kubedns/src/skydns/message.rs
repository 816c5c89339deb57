//! One message: a key of etcd and its JSON value, checked field by field.
//!
//! Core. Knows the fields and their limits; does not know which records follow from them. A value
//! that breaks a rule is not used, and the reason is returned.

use std::net::IpAddr;

use serde_json::Value;

use crate::name::{Name, NameError, push_label};

/// A message that keeps to the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    path: Box<[u8]>,
    /// The revision of etcd that wrote it.
    pub revision: u64,
    /// TTL of its records in seconds: the smaller of the field and the lease, or the default.
    pub ttl_secs: u32,
    /// What it points to.
    pub host: Host,
    /// The port of SRV records; `None` if there is no SRV record.
    pub port: Option<u16>,
    /// The priority of SRV records and the preference of MX records.
    pub priority: u16,
    /// The weight among the messages of one priority, before it is scaled.
    pub weight: u32,
    /// Whether it is a mail exchange.
    pub mail: bool,
    /// The text of TXT records; empty if there is none.
    pub text: Box<str>,
    /// How many labels of its name the target of an address loses.
    pub strip: u8,
    /// Its group; empty if it has none.
    pub group: Box<str>,
}

/// What a message points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// Nothing: it has only a text.
    None,
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(Name),
}

/// Why a key or its value is not used.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The key is not a name.
    #[error("the key is not a name")]
    Key(#[source] NameError),
    /// The key has letters that no query has.
    #[error("the key has upper-case letters, and names are compared in lower case")]
    UpperCase,
    /// The name of the key is longer than 255 bytes.
    #[error("the name of the key takes {length} bytes on the wire, of 255")]
    Long {
        /// Its length in wire form, in bytes.
        length: usize,
    },
    /// The value is not JSON.
    #[error("the value is not a JSON object")]
    Json(#[source] serde_json::Error),
    /// A field has another type, or is out of its range.
    #[error("{field} is {value}, which is not {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// The beginning of its value.
        value: String,
        /// What it can be.
        expected: &'static str,
    },
}

/// Returns the path of `key`, which is written without the prefix: `local/skydns/b/a`.
///
/// Fails if it is not a name in lower case.
pub fn path_of_key(key: &str) -> Result<Box<[u8]>, Broken> {
    if key.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(Broken::UpperCase);
    }
    let mut path = Vec::with_capacity(key.len() + 1);
    for label in key.split('/') {
        push_label(&mut path, label, |byte| byte.is_ascii_graphic()).map_err(Broken::Key)?;
    }
    match path.len() + 1 {
        length if length > shared::wire::NAME_MAX => Err(Broken::Long { length }),
        _ => Ok(path.into()),
    }
}

impl Message {
    /// Reads `value`, which the key at `path` had since `revision`. `lease_secs` is the TTL of the
    /// key's lease, already within its bounds, if it has one. Unknown fields are ignored.
    pub fn read(
        path: Box<[u8]>,
        revision: u64,
        value: &[u8],
        lease_secs: Option<u32>,
    ) -> Result<Self, Broken> {
        let fields: serde_json::Map<String, Value> =
            serde_json::from_slice(value).map_err(Broken::Json)?;
        let mut message = Self { revision, ..Self::at(path) };
        for (name, value) in &fields {
            if !value.is_null() {
                message.set(&name.to_ascii_lowercase(), value)?;
            }
        }
        message.ttl_secs = match (message.ttl_secs, lease_secs) {
            (0, lease) => lease.unwrap_or(TTL_SECS),
            (ttl, lease) => ttl.min(lease.unwrap_or(ttl)),
        };
        Ok(message)
    }

    /// Returns a message without fields.
    pub(crate) fn at(path: Box<[u8]>) -> Self {
        Self {
            path,
            revision: 0,
            ttl_secs: 0,
            host: Host::None,
            port: Some(0),
            priority: PRIORITY,
            weight: 0,
            mail: false,
            text: Box::default(),
            strip: 0,
            group: Box::default(),
        }
    }

    /// Sets the field `name`. Zero and empty text are the same as a missing field.
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Broken> {
        match name {
            "host" => self.host = host(text("host", value)?)?,
            "text" => self.text = text("text", value)?.into(),
            "group" => self.group = text("group", value)?.into(),
            "mail" => self.mail = value.as_bool().ok_or_else(|| wrong("mail", value, "a bool"))?,
            "port" if value.as_i64() == Some(-1) => self.port = None,
            "port" => self.port = Some(number("port", value, "from -1 to 65535")?),
            "priority" => match number("priority", value, "from 0 to 65535")? {
                0 => self.priority = PRIORITY,
                priority => self.priority = priority,
            },
            "weight" => self.weight = u32::from(number::<u16>("weight", value, "0 to 65535")?),
            "ttl" => self.ttl_secs = number("ttl", value, "a number of seconds")?,
            "targetstrip" => {
                let strip: u64 = number("targetstrip", value, "a number of labels")?;
                self.strip = u8::try_from(strip).unwrap_or(u8::MAX); // more than a name has
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns its place in the tree.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Returns the name that SRV, MX and NS records of this message point to, in wire form: its
    /// host, or if that is an address its own name without the labels that are stripped. `None` if
    /// it has no host.
    pub fn target(&self) -> Option<Vec<u8>> {
        match &self.host {
            Host::None => None,
            Host::Name(name) => Some(name.wire().to_vec()),
            Host::Address(_) => {
                let mut name = super::name_of_path(&self.path);
                let strip = usize::from(self.strip);
                let rest = shared::wire::with_ancestors(&name).nth(strip);
                // A name without labels is no target: then nothing is stripped.
                let len = rest.filter(|rest| rest.len() > 1).map_or(name.len(), <[u8]>::len);
                name.drain(..name.len() - len);
                Some(name)
            }
        }
    }
}

fn host(text: &str) -> Result<Host, Broken> {
    if text.is_empty() {
        return Ok(Host::None);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Host::Address(address.to_canonical()));
    }
    let name = Name::parse_asked(text);
    let broken = |_| wrong("host", &text.into(), "an address or a name");
    name.map(Host::Name).map_err(broken)
}

fn text<'v>(field: &'static str, value: &'v Value) -> Result<&'v str, Broken> {
    value.as_str().ok_or_else(|| wrong(field, value, "a string"))
}

fn number<N: TryFrom<u64>>(
    field: &'static str,
    value: &Value,
    expected: &'static str,
) -> Result<N, Broken> {
    let number = value.as_u64().and_then(|number| N::try_from(number).ok());
    number.ok_or_else(|| wrong(field, value, expected))
}

fn wrong(field: &'static str, value: &Value, expected: &'static str) -> Broken {
    Broken::Field { field, value: value.to_string().chars().take(SHOWN_MAX).collect(), expected }
}

/// The priority of a message that has none.
const PRIORITY: u16 = 10;
/// TTL of a message that has neither a TTL nor a lease.
const TTL_SECS: u32 = 300;
/// Characters of a wrong value that are logged.
const SHOWN_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str, lease_secs: Option<u32>) -> Result<Message, Broken> {
        let path = path_of_key("local/skydns/www/1a2b3c4d").unwrap();
        Message::read(path, 7, value.as_bytes(), lease_secs)
    }

    #[test]
    fn keys_become_paths() {
        let check = |key: &str, expected: Result<&[u8], &str>| {
            let path = path_of_key(key).map_err(|broken| shared::flags::chain(&broken));
            match (path, expected) {
                (Ok(path), Ok(expected)) => assert_eq!(*path, *expected, "{key}"),
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{key}: {reason}"),
                (path, _) => panic!("{key}: {path:?}"),
            }
        };
        check("local/skydns/b/a", Ok(b"\x05local\x06skydns\x01b\x01a"));
        check("local/*/_tcp/a.b", Ok(b"\x05local\x01*\x04_tcp\x03a.b"));
        check("local//a", Err("a label is empty"));
        check("local/a/", Err("a label is empty"));
        check("", Err("a label is empty"));
        check("local/A", Err("upper-case"));
        check("local/a b", Err("other characters"));
        check(&"a/".repeat(128), Err("a label is empty"));
        check(&["a"; 128].join("/"), Err("257 bytes"));
        check(&["a"; 127].join("/"), Ok(&b"\x01a".repeat(127)));
    }

    #[test]
    fn values_of_external_dns_are_read_as_its_provider_writes_them() {
        let owner = r#"{"host":"10.0.0.7","text":"\"heritage=external-dns,external-dns/owner=x\"",
            "ttl":300,"targetstrip":1}"#;
        let message = read(owner, None).unwrap();
        assert_eq!(message.host, Host::Address("10.0.0.7".parse().unwrap()));
        assert_eq!(&*message.text, "\"heritage=external-dns,external-dns/owner=x\"");
        assert_eq!((message.ttl_secs, message.strip, message.port), (300, 1, Some(0)));
        assert_eq!(message.target().unwrap(), b"\x03www\x06skydns\x05local\x00");
        let grouped =
            r#"{"host":"lb.example.com","targetstrip":1,"group":"g1","setIdentifier":"a"}"#;
        let message = read(grouped, None).unwrap();
        assert_eq!(message.host, Host::Name(Name::parse("lb.example.com").unwrap()));
        assert_eq!((&*message.group, message.ttl_secs, message.priority), ("g1", 300, 10));
    }

    #[test]
    fn a_lease_and_the_field_give_the_smaller_ttl() {
        let rows = [("{}", None, 300), ("{}", Some(60), 60), (r#"{"ttl":5}"#, None, 5)];
        let both = [(r#"{"ttl":50}"#, Some(40), 40), (r#"{"TTL":50}"#, Some(60), 50)];
        for (value, lease_secs, expected) in rows.into_iter().chain(both) {
            assert_eq!(read(value, lease_secs).unwrap().ttl_secs, expected, "{value}");
        }
    }

    #[test]
    fn a_value_that_breaks_a_rule_is_not_used() {
        let rows = [
            ("", "not a JSON object"),
            ("[]", "not a JSON object"),
            (r#"{"host":7}"#, "host is 7, which is not a string"),
            (r#"{"host":"a b"}"#, r#"host is "a b", which is not an address or a name"#),
            (r#"{"port":"80"}"#, "port is"),
            (r#"{"port":-2}"#, "from -1 to 65535"),
            (r#"{"port":65536}"#, "from -1 to 65535"),
            (r#"{"priority":65536}"#, "priority is 65536"),
            (r#"{"weight":-1}"#, "weight is -1"),
            (r#"{"ttl":1.5}"#, "ttl is 1.5"),
            (r#"{"mail":"yes"}"#, "mail is"),
            (r#"{"targetstrip":-1}"#, "targetstrip is -1"),
        ];
        for (value, part) in rows {
            let reason = shared::flags::chain(&read(value, None).unwrap_err());
            assert!(reason.contains(part), "{value}: {reason}");
        }
        for value in [r#"{"host":null,"unknown":{}}"#, r#"{"Host":"1.2.3.4","port":-1}"#] {
            assert!(read(value, None).is_ok(), "{value}");
        }
    }

    #[test]
    fn targets_lose_the_labels_that_are_stripped() {
        let rows: [(u16, &[u8]); 5] = [
            (0, b"\x081a2b3c4d\x03www\x06skydns\x05local\x00"),
            (2, b"\x06skydns\x05local\x00"),
            (3, b"\x05local\x00"),
            (4, b"\x081a2b3c4d\x03www\x06skydns\x05local\x00"),
            (999, b"\x081a2b3c4d\x03www\x06skydns\x05local\x00"),
        ];
        for (strip, expected) in rows {
            let message = read(&format!(r#"{{"host":"::1","targetstrip":{strip}}}"#), None);
            assert_eq!(message.unwrap().target().unwrap(), expected, "{strip}");
        }
        let name = read(r#"{"host":"a.b.c","targetstrip":1}"#, None).unwrap();
        assert_eq!(name.target().unwrap(), b"\x01a\x01b\x01c\x00");
    }
}
