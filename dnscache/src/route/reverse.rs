//! Reverse names: kubedns is asked about every address first, and other servers only after it.
//!
//! Core. Works on names alone: kubedns decides which addresses are the cluster's, and refuses to
//! answer for the others.

use shared::{prefix, reverse};

use super::Route;

/// The route of a reverse name after kubedns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beyond<'a> {
    /// The stub domain that covers the name, otherwise the upstreams. [`Route::Local`] if a flag
    /// forbids to ask a server.
    pub route: Route<'a>,
    /// The replies after which kubedns gives way.
    pub after: After,
}

/// The replies after which kubedns gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// REFUSED alone. The address may be the cluster's, so its name must not leave the pod.
    Refused,
    /// REFUSED and every failure, including an answer of SERVFAIL. The name covers only global
    /// addresses, which have an owner outside. If Pods have some of them, kubedns announces these
    /// names once it is back, and they are asked for again.
    Failure,
}

impl After {
    /// Returns the replies after which other servers can be asked about `name`, in lower-case wire
    /// form. `None` if it is not a reverse name.
    pub fn of(name: &[u8]) -> Option<Self> {
        let (first, last) = reverse::parse(name)?.range();
        Some(if prefix::is_global(first, last) { Self::Failure } else { Self::Refused })
    }
}

/// Returns whether `name`, in lower-case wire form, is a reverse name.
pub fn is_reverse(name: &[u8]) -> bool {
    let Some(zone) = ZONES.iter().find(|zone| name.ends_with(zone)) else { return false };
    // The suffix must begin at a label.
    let (start, mut at) = (name.len() - zone.len(), 0);
    while at < start {
        at += 1 + usize::from(name[at]);
    }
    at == start
}

/// `in-addr.arpa.` and `ip6.arpa.` in wire form.
const ZONES: [&[u8]; 2] = [b"\x07in-addr\x04arpa\0", b"\x03ip6\x04arpa\0"];

#[cfg(test)]
mod tests {
    use super::*;
    use shared::name::parse;

    #[test]
    fn only_global_addresses_do_without_kubedns() {
        let rows = [
            ("8.8.8.8.in-addr.arpa", Some(After::Failure)),
            ("8.8.in-addr.arpa", Some(After::Failure)),
            ("x.8.8.8.in-addr.arpa", Some(After::Failure)),
            ("1.0.32.172.in-addr.arpa", Some(After::Failure)),
            ("8.b.d.0.1.0.0.2.ip6.arpa", Some(After::Failure)),
            ("2.ip6.arpa", Some(After::Failure)),
            ("7.0.96.10.in-addr.arpa", Some(After::Refused)),
            ("1.0.31.172.in-addr.arpa", Some(After::Refused)),
            ("172.in-addr.arpa", Some(After::Refused)),
            ("in-addr.arpa", Some(After::Refused)),
            ("x.in-addr.arpa", Some(After::Refused)),
            ("1.0.0.240.in-addr.arpa", Some(After::Refused)),
            ("d.f.ip6.arpa", Some(After::Refused)),
            ("ip6.arpa", Some(After::Refused)),
            ("arpa", None),
            ("web.shop.svc.cluster.local", None),
        ];
        for (name, expected) in rows {
            let name = parse(name).unwrap();
            assert_eq!(After::of(&name), expected, "{name:?}");
            assert_eq!(is_reverse(&name), expected.is_some(), "{name:?}");
        }
        let inside = [b"\x0f8\x07in-addr\x04arpa\0".as_slice(), b"\0"].concat();
        assert!(!is_reverse(&inside) && !is_reverse(&[0]) && !is_reverse(&[]));
        assert!(!is_reverse(b"\x0e8\x07in-addr\x04arpa\0"), "it ends inside a label");
    }
}
