//! Which addresses are translated into which, and which answers are translated.

use super::*;
use crate::local::Block;
use crate::local::name::parse;

#[test]
fn addresses_are_embedded_as_rfc_6052_has_it() {
    let rows = [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100:0"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
    ];
    for (prefix, expected) in rows {
        let rule: Dns64 = prefix.parse().unwrap();
        let address: Ipv6Addr = expected.parse().unwrap();
        assert_eq!(rule.translated(Ipv4Addr::new(192, 0, 2, 33)), address, "{prefix}");
    }
    for wrong in ["", "64:ff9b::", "64:ff9b::/95", "64:ff9b::1/96", "10.0.0.0/8", "::/128", "x/96"]
    {
        assert_eq!(wrong.parse::<Dns64>(), Err(PrefixError), "{wrong}");
    }
}

#[test]
fn only_names_without_ipv6_addresses_are_translated() {
    let mut rule: Dns64 = "64:ff9b::/96".parse().unwrap();
    let v4: &[u8] = &[192, 0, 2, 1];
    let (v6, mapped): (Ipv6Addr, Ipv6Addr) =
        ("2001:db8::1".parse().unwrap(), "::ffff:192.0.2.9".parse().unwrap());
    let (v6, mapped) = (v6.octets(), mapped.octets());
    type Case<'a> = (bool, (u16, Option<&'a [u8]>), Option<(u16, Option<&'a [u8]>)>, &'a str);
    let rows: [Case<'_>; 8] = [
        (false, (0, Some(&v6)), None, "2001:db8::1"),
        (true, (0, Some(&v6)), Some((0, Some(v4))), "64:ff9b::c000:201"),
        (false, (0, None), Some((0, Some(v4))), "64:ff9b::c000:201"),
        (false, (0, Some(&mapped)), Some((0, Some(v4))), "64:ff9b::c000:201"),
        (false, (0, None), Some((0, None)), "0"),
        (false, (0, None), Some((3, None)), "0"),
        (false, (3, None), None, "3"),
        (true, (0, Some(&v6)), Some((0, None)), "2001:db8::1"),
    ];
    let name = parse("a.example").unwrap();
    for (translate_all, first, second, expected) in rows {
        rule.translate_all = translate_all;
        let rules = Local::new(vec![Block {
            zones: vec![[0].into()],
            dns64: Some(rule),
            ..Block::default()
        }]);
        let mut outcome = rules.resolve(&name, rtype::AAAA);
        let mut answers = [Some(first), second].into_iter().flatten();
        let made = loop {
            let pending = match outcome {
                Outcome::Ask(pending) => pending,
                Outcome::Answer(made) => break made,
                Outcome::Pass => panic!("it is asked"),
            };
            let (rcode, address) = answers.next().expect("it asks twice at most");
            let (asked, qtype) = pending.question();
            let records = address.map(|it| Row::new(asked, qtype, 900, it)).into_iter().collect();
            let made = Made::new(Rows { rcode, records, ..Rows::default() });
            let came = Came::Answer(Box::new(Made { lifetime_secs: Some(900), ..made }));
            outcome = match pending.take(came, &rules) {
                Next::Done(made) => Outcome::Answer(made),
                Next::Ask(pending) => Outcome::Ask(pending),
                Next::Failed => panic!("nothing fails"),
            };
        };
        assert!(answers.next().is_none(), "{expected}: every question is asked");
        let shown = match made.rows.answers().next() {
            Some(row) => {
                let octets: [u8; 16] = row.data.tail().try_into().unwrap();
                let is_translated = expected.starts_with("64:");
                assert_eq!(row.ttl, if is_translated { 600 } else { 900 });
                Ipv6Addr::from(octets).to_string()
            }
            None => made.rows.rcode.to_string(),
        };
        assert_eq!(shown, expected, "{first:?} {second:?}");
    }
    assert!(!rule_touches(&rule, rtype::A) && rule_touches(&rule, rtype::AAAA));
}

fn rule_touches(rule: &Dns64, qtype: u16) -> bool {
    let block = Block { zones: vec![[0].into()], dns64: Some(*rule), ..Block::default() };
    Local::new(vec![block]).touches(b"\x01a\0", qtype)
}
