//! Names of topology zones below headless Services, with `--zonal`: CoreDNS's `zonal_test.go` as
//! rows, the rule for which names exist, and changes.

use kubedns::records::Zone;
use kubedns::store::Changed;

use super::{check, check_additional, zone};
use crate::fixture::cluster::Cluster;

fn zonal() -> Zone {
    let mut zone = zone();
    zone.zonal = true;
    zone.clusterset = Some(kubedns::name::Name::parse("clusterset.local").unwrap());
    zone
}

fn shop() -> Cluster {
    Cluster::of(zonal(), OBJECTS)
}

#[test]
fn pin_answers_a_zone_and_nothing_else() {
    check(
        &shop(),
        &[
            ("us-west-2a.pin._zone.db.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.1"]),
            ("US-West-2a.PIN._Zone.db.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.1"]),
            (
                "us-west-2b.pin._zone.db.shop.svc.cluster.local. A",
                "NOERROR",
                &["@ A 10.1.0.2", "@ A 10.1.0.3"],
            ),
            (
                "us-west-2b.pin._zone.db.shop.svc.cluster.local. AAAA",
                "NOERROR",
                &["@ AAAA fd01::2"],
            ),
            ("us-west-2a.pin._zone.db.shop.svc.cluster.local. AAAA", "NODATA", &[]),
            // a zone's value may have dots, and its endpoints may be in several slices
            (
                "corp.example.com.pin._zone.db.shop.svc.cluster.local. A",
                "NOERROR",
                &["@ A 10.1.0.4", "@ A 10.1.0.5"],
            ),
            // not ready; drained or mistyped; endpoints without a zone are in no zone
            ("us-west-2d.pin._zone.db.shop.svc.cluster.local. A", "NODATA", &[]),
            ("us-west-2c.pin._zone.db.shop.svc.cluster.local. A", "NODATA", &[]),
            ("example.com.pin._zone.db.shop.svc.cluster.local. A", "NODATA", &[]),
            ("us-west-2a.pin._zone.db.shop.svc.cluster.local. TXT", "NODATA", &[]),
            ("us-west-2c.pin._zone.db.shop.svc.cluster.local. TXT", "NODATA", &[]),
            (
                "us-west-2b.pin._zone.db.shop.svc.cluster.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 5432 db-0.db.shop.svc.cluster.local.",
                    "@ SRV 0 100 5432 10-1-0-3.db.shop.svc.cluster.local.",
                    "@ SRV 0 100 5432 fd01--2.db.shop.svc.cluster.local.",
                ],
            ),
            (
                "us-west-2a.pin._zone.db.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 5432 db-0.db.shop.svc.cluster.local."],
            ),
        ],
    );
}

#[test]
fn prefer_answers_all_where_a_zone_has_none() {
    const ALL: [&str; 6] = [
        "@ A 10.1.0.1",
        "@ A 10.1.0.2",
        "@ A 10.1.0.3",
        "@ A 10.1.0.4",
        "@ A 10.1.0.5",
        "@ A 10.1.0.6",
    ];
    check(
        &shop(),
        &[
            ("us-west-2a.prefer._zone.db.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.1"]),
            ("us-west-2c.prefer._zone.db.shop.svc.cluster.local. A", "NOERROR", &ALL),
            ("a.b.prefer._zone.db.shop.svc.cluster.local. A", "NOERROR", &ALL),
            // it has endpoints, but of the other family
            ("us-west-2a.prefer._zone.db.shop.svc.cluster.local. AAAA", "NODATA", &[]),
            (
                "us-west-2c.prefer._zone.db.shop.svc.cluster.local. AAAA",
                "NOERROR",
                &["@ AAAA fd01::2"],
            ),
            ("us-west-2c.prefer._zone.db.shop.svc.cluster.local. TXT", "NODATA", &[]),
            (
                "us-west-2c.prefer._zone.one.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 10-2-0-1.one.shop.svc.cluster.local."],
            ),
        ],
    );
}

#[test]
fn what_stands_in_additional_is_the_whole_of_a_name() {
    check_additional(
        &shop(),
        &[
            // db-0 is in two zones: the RRset must be whole (RFC 2181 section 5)
            (
                "us-west-2a.pin._zone.db.shop.svc.cluster.local. SRV",
                &[
                    "db-0.db.shop.svc.cluster.local. A 10.1.0.1",
                    "db-0.db.shop.svc.cluster.local. A 10.1.0.2",
                ],
            ),
            (
                "us-west-2c.prefer._zone.one.shop.svc.cluster.local. SRV",
                &["10-2-0-1.one.shop.svc.cluster.local. A 10.2.0.1"],
            ),
        ],
    );
}

#[test]
fn what_exists() {
    const OFF: &str = "us-west-2a.pin._zone.db.shop.svc.cluster.local. A";
    check(
        &shop(),
        &[
            // there are names below
            ("_zone.db.shop.svc.cluster.local. A", "NODATA", &[]),
            ("pin._zone.db.shop.svc.cluster.local. A", "NODATA", &[]),
            ("prefer._zone.db.shop.svc.cluster.local. SRV", "NODATA", &[]),
            // not a directive
            ("us-west-2a._zone.db.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("us-west-2a.florp._zone.db.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("us-west-2a.pin._zones.db.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            // the Service does not exist, or is not headless, or its name does not exist
            ("us-west-2a.pin._zone.ghost.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("us-west-2a.pin._zone.web.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("_zone.web.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("us-west-2a.pin._zone.alias.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("us-west-2a.pin._zone.idle.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("us-west-2a.pin._zone.10-1-0-1.shop.pod.cluster.local. A", "NXDOMAIN", &[]),
            // not in a clusterset
            ("db.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.3.0.1"]),
            ("us-west-2a.pin._zone.db.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("_zone.db.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
        ],
    );
    let off = Cluster::of(zone(), OBJECTS);
    check(&off, &[(OFF, "NXDOMAIN", &[]), ("_zone.db.shop.svc.cluster.local. A", "NXDOMAIN", &[])]);
}

#[test]
fn explanations_say_which_zone_has_none() {
    let cluster = shop();
    let check = |question: &str, expected: &str| cluster.check_reason(question, expected);
    check(
        "a.b.pin._zone.db.shop.svc.cluster.local A",
        "no published endpoint of Service shop/db is in the topology zone a.b\n",
    );
    check("_zone.db.shop.svc.cluster.local A", "owns nothing; names below it do, or may");
    check(
        "a.florp._zone.db.shop.svc.cluster.local A",
        "below _zone there are ZONE.pin and ZONE.prefer",
    );
    check("a.pin._zone.web.shop.svc.cluster.local A", "Service shop/web is not headless: no name");
    check("us-west-2a.pin._zone.db.shop.svc.cluster.local A", "from EndpointSlice shop/db-1\n");
}

#[test]
fn an_endpoint_that_changes_its_zone_is_news_to_those_who_ask_by_zone() {
    let moved = SLICE.replace("us-west-2a", "us-west-2b");
    let mut cluster = shop();
    cluster.apply(&moved);
    let published = cluster.sync().expect("a change");
    let Changed::Names(names) = published.changed else { panic!("names") };
    assert!(format!("{names:?}").contains("\"db.shop.svc.cluster.local.\""), "{names:?}");
    check(
        &cluster,
        &[
            ("us-west-2a.pin._zone.db.shop.svc.cluster.local. A", "NODATA", &[]),
            (
                "us-west-2b.pin._zone.db.shop.svc.cluster.local. A",
                "NOERROR",
                &["@ A 10.1.0.1", "@ A 10.1.0.2", "@ A 10.1.0.3"],
            ),
        ],
    );
    let mut off = Cluster::of(zone(), OBJECTS);
    off.apply(&moved);
    assert!(off.sync().is_none(), "nobody can see it");
}

const OBJECTS: &str =
    concat!(include_str!("zonal.yaml"), "\n---\n", include_str!("zonal-slice.yaml"));
const SLICE: &str = include_str!("zonal-slice.yaml");
