//! Addresses in each spelling that API servers accept, and the effect of one that cannot be parsed,
//! in every field that holds addresses (KEP-4858).
//!
//! Rows only. The parent module checks a row.

use kubedns::name::Name;
use kubedns::records::{PodMode, Zone};

use super::{check, check_additional, zone};
use crate::fixture::cluster::Cluster;

fn cluster() -> Cluster {
    let mut zone: Zone = zone();
    zone.pods = PodMode::Verified;
    zone.clusterset = Name::parse("clusterset.local").ok();
    let mut cluster = Cluster::empty(zone);
    let reasons = cluster.apply_odd(OBJECTS);
    cluster.sync();
    let expected = [
        "Service shop/half: spec.clusterIPs has \"10.96.0.300\", which is not an IP address",
        "Service shop/none: spec.clusterIPs has \"10.96.0.8/32\", which is not an IP address",
        "EndpointSlice shop/hl-a: endpoints.addresses has \"10.1.0.300\", which is not an IPv4 \
         address, and 3 more of its parts are wrong",
        "EndpointSlice shop/hl-b: endpoints.addresses has \"::ffff:10.1.0.12\", which is not an \
         IPv6 address, and 2 more of its parts are wrong",
        "EndpointSlice shop/unread-a: endpoints.addresses has \"\", which is not an IPv4 address",
        "Pod shop/half: status.podIPs has \"nowhere\", which is not an IP address",
        "Pod shop/none: status.podIPs has \"10.4.0.999\", which is not an IP address",
        "ServiceImport shop/half: spec.ips has \"fe80::1%eth0\", which is not an IP address",
        "ServiceImport shop/none: spec.ips has \"x\", which is not an IP address",
        "EndpointSlice shop/far-a: endpoints.addresses has \"10.3.0\", which is not an IPv4 \
         address",
    ];
    assert_eq!(reasons, expected);
    cluster
}

#[test]
fn cluster_ips() {
    check(
        &cluster(),
        &[
            ("zeros.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.7"]),
            ("zeros.shop.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:96::7"]),
            ("zeros.shop.svc.cluster.local. ANY", "NOERROR", &["@ A 10.96.0.7"]),
            (
                "_http._tcp.zeros.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 zeros.shop.svc.cluster.local."],
            ),
            ("7.0.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR zeros.shop.svc.cluster.local."]),
            ("mapped.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.8"]),
            ("mapped.shop.svc.cluster.local. AAAA", "NODATA", &[]),
            ("8.0.96.10.in-addr.arpa. PTR", "NOERROR", &["@ PTR mapped.shop.svc.cluster.local."]),
            // one of two cannot be read
            ("half.shop.svc.cluster.local. A", "NODATA", &[]),
            ("half.shop.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:96::9"]),
            // the only one cannot be read
            ("none.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
        ],
    );
}

#[test]
fn endpoints() {
    let cluster = cluster();
    check(
        &cluster,
        &[
            (
                "hl.shop.svc.cluster.local. A",
                "NOERROR",
                &["@ A 10.1.0.7", "@ A 10.1.0.8", "@ A 10.1.0.9", "@ A 10.1.0.10"],
            ),
            (
                "hl.shop.svc.cluster.local. AAAA",
                "NOERROR",
                &["@ AAAA fd00:1::7", "@ AAAA fd00:1::8"],
            ),
            ("10-1-0-7.hl.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.7"]),
            ("10-1-0-7.hl.shop.svc.cluster.local. AAAA", "NODATA", &[]),
            ("10-1-0-8.hl.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.8"]),
            // the other addresses of an endpoint keep its hostname
            ("two.hl.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.10"]),
            ("lost.hl.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("fd00-1--7.hl.shop.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:1::7"]),
            (
                "7.0.1.10.in-addr.arpa. PTR",
                "NOERROR",
                &["@ PTR 10-1-0-7.hl.shop.svc.cluster.local."],
            ),
            (
                "8.0.1.10.in-addr.arpa. PTR",
                "NOERROR",
                &["@ PTR 10-1-0-8.hl.shop.svc.cluster.local."],
            ),
            (
                "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa. PTR",
                "NOERROR",
                &["@ PTR fd00-1--7.hl.shop.svc.cluster.local."],
            ),
            (
                "_http._tcp.hl.shop.svc.cluster.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 80 10-1-0-7.hl.shop.svc.cluster.local.",
                    "@ SRV 0 100 80 10-1-0-8.hl.shop.svc.cluster.local.",
                    "@ SRV 0 100 80 10-1-0-9.hl.shop.svc.cluster.local.",
                    "@ SRV 0 100 80 two.hl.shop.svc.cluster.local.",
                    "@ SRV 0 100 80 fd00-1--7.hl.shop.svc.cluster.local.",
                    "@ SRV 0 100 80 fd00-1--8.hl.shop.svc.cluster.local.",
                ],
            ),
            // an address of the other family does not belong to this slice, in any spelling
            ("10-1-0-12.hl.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("12.0.1.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
            // a slice whose addresses cannot be read
            ("unread.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
        ],
    );
    check_additional(
        &cluster,
        &[(
            "_http._tcp.hl.shop.svc.cluster.local. SRV",
            &[
                "10-1-0-7.hl.shop.svc.cluster.local. A 10.1.0.7",
                "10-1-0-8.hl.shop.svc.cluster.local. A 10.1.0.8",
                "10-1-0-9.hl.shop.svc.cluster.local. A 10.1.0.9",
                "two.hl.shop.svc.cluster.local. A 10.1.0.10",
                "fd00-1--7.hl.shop.svc.cluster.local. AAAA fd00:1::7",
                "fd00-1--8.hl.shop.svc.cluster.local. AAAA fd00:1::8",
            ],
        )],
    );
}

#[test]
fn pods() {
    check(
        &cluster(),
        &[
            ("10-4-0-1.shop.pod.cluster.local. A", "NOERROR", &["@ A 10.4.0.1"]),
            ("fd00-4--1.shop.pod.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:4::1"]),
            ("10-4-0-2.shop.pod.cluster.local. A", "NOERROR", &["@ A 10.4.0.2"]),
            ("10-4-0-2.shop.pod.cluster.local. AAAA", "NODATA", &[]),
            ("0--ffff-a04-2.shop.pod.cluster.local. AAAA", "NXDOMAIN", &[]),
            ("10-4-0-3.shop.pod.cluster.local. A", "NOERROR", &["@ A 10.4.0.3"]),
            ("10-4-0-4.shop.pod.cluster.local. A", "NXDOMAIN", &[]),
        ],
    );
}

#[test]
fn clusterset_ips_and_imported_endpoints() {
    check(
        &cluster(),
        &[
            ("zeros.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.42.0.7"]),
            ("zeros.shop.svc.clusterset.local. AAAA", "NODATA", &[]),
            ("half.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.42.0.8"]),
            ("none.shop.svc.clusterset.local. A", "NXDOMAIN", &[]),
            ("far.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.3.0.1", "@ A 10.3.0.2"]),
            ("10-3-0-1.east.far.shop.svc.clusterset.local. A", "NOERROR", &["@ A 10.3.0.1"]),
            (
                "far.shop.svc.clusterset.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 80 10-3-0-1.east.far.shop.svc.clusterset.local.",
                    "@ SRV 0 100 80 10-3-0-2.east.far.shop.svc.clusterset.local.",
                ],
            ),
            (
                "1.0.3.10.in-addr.arpa. PTR",
                "NOERROR",
                &["@ PTR 10-3-0-1.east.far.shop.svc.clusterset.local."],
            ),
        ],
    );
}

/// Addresses in odd spellings, and texts that are not addresses.
const OBJECTS: &str = include_str!("addresses.yaml");
