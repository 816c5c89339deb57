//! Which clients may ask what: the rules of the Corefile's plugin `acl`.
//!
//! Core. Looked at only if there are rules.

use std::net::IpAddr;

use shared::corefile::plugins::{self, Action};
use shared::prefix::Prefix;

use crate::local::name::Zones;

/// A list of policies for some zones. The first policy that fits decides; if none does, the next
/// list is looked at.
#[derive(Clone, Debug)]
pub struct Acl {
    zones: Zones,
    policies: Vec<plugins::Policy>,
}

impl Acl {
    /// The list of `zones`.
    pub fn new(zones: Zones, policies: Vec<plugins::Policy>) -> Self {
        Self { zones, policies }
    }

    /// Returns what becomes of a query for `qtype` at `name`, in wire form and lower case. `None`
    /// if this list does not decide.
    fn action(&self, name: &[u8], qtype: u16, client: IpAddr) -> Option<Action> {
        let fits = |policy: &&plugins::Policy| {
            let has_type = policy.types.is_empty() || policy.types.contains(&qtype);
            let holds = |network: &Prefix| network.contains(client);
            has_type && (policy.networks.is_empty() || policy.networks.iter().any(holds))
        };
        let policies = Some(&self.policies).filter(|_| self.zones.hold(name));
        policies.and_then(|policies| policies.iter().find(fits)).map(|policy| policy.action)
    }
}

/// Returns what `lists` decide about a query for `qtype` at `name`, in lower-case wire form. IPv4
/// written as IPv6 is taken as IPv4.
pub fn action(lists: &[Acl], name: &[u8], qtype: u16, client: IpAddr) -> Action {
    let client = client.to_canonical();
    let decided = lists.iter().find_map(|list| list.action(name, qtype, client));
    decided.unwrap_or(Action::Allow)
}

#[cfg(test)]
mod tests {
    use shared::corefile::plugins::Policy;
    use shared::mnemonics::type_number;
    use shared::prefix;
    use shared::wire::rtype::{A, AAAA};

    use super::*;
    use crate::local::name::parse;

    /// A list: its zones, and lines `ACTION TYPES PREFIXES` with `-` for all.
    fn list(zones: &str, lines: &[&str]) -> Acl {
        let zones = zones.split(' ').map(|zone| parse(zone).unwrap()).collect();
        let policy = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            fn all(word: &str) -> Vec<&str> {
                word.split(',').filter(|it| *it != "-").collect()
            }
            Policy {
                action: match words[0] {
                    "allow" => Action::Allow,
                    "block" => Action::Block,
                    "filter" => Action::Filter,
                    _ => Action::Drop,
                },
                types: all(words[1]).iter().map(|it| type_number(it).unwrap()).collect(),
                networks: all(words[2]).iter().map(|it| prefix::parse(it).unwrap()).collect(),
            }
        };
        Acl::new(Zones::new(zones), lines.iter().map(policy).collect())
    }

    #[test]
    fn the_first_policy_that_fits_decides() {
        use Action::{Allow, Block, Drop, Filter};
        let lists = [
            list("a.example b.example", &["drop A 10.0.9.0/24", "block - 10.0.0.0/8"]),
            list("a.example", &["allow AAAA -", "filter - fd00::/8,192.168.0.0/16"]),
            list(".", &["block AAAA 192.168.7.0/24"]),
        ];
        let rows = [
            ("x.a.example", A, "10.0.9.7", Drop),
            ("x.a.example", A, "::ffff:10.0.9.7", Drop),
            ("x.a.example", AAAA, "10.0.9.7", Block),
            ("b.example", A, "10.1.0.7", Block),
            ("a.example", AAAA, "fd00::1", Allow),
            ("a.example", A, "fd00::1", Filter),
            ("a.example", A, "192.168.7.1", Filter),
            ("b.example", A, "fd00::1", Allow),
            ("c.example", AAAA, "192.168.7.1", Block),
            ("c.example", A, "192.168.7.1", Allow),
            ("a.example", AAAA, "192.168.7.1", Allow),
        ];
        for (name, qtype, client, expected) in rows {
            let told = action(&lists, &parse(name).unwrap(), qtype, client.parse().unwrap());
            assert_eq!(told, expected, "{name} {qtype} {client}");
        }
    }
}
