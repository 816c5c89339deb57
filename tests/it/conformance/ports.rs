//! Ports: their protocols, and those of several slices.
//!
//! Rows only; how a row is checked stands in the parent.

use kubedns::project::{Kind, ObjectId};

use super::{check, zone};
use crate::fixture::cluster::Cluster;

#[test]
fn sctp_is_a_protocol() {
    check(
        &Cluster::of(zone(), OBJECTS),
        &[
            (
                "_diameter._sctp.sig.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 3868 sig.shop.svc.cluster.local."],
            ),
            (
                "sig.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 3868 sig.shop.svc.cluster.local."],
            ),
            ("_diameter._sctp.sig.shop.svc.cluster.local. A", "NODATA", &[]),
            ("_sctp.sig.shop.svc.cluster.local. A", "NODATA", &[]),
            ("_diameter._tcp.sig.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("_tcp.sig.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
        ],
    );
}

/// kube-dns's `dns_test.go`: two ports by two endpoints, one port by two others (DNS specification
/// section 2.4.2), until one of the slices goes.
#[test]
fn each_slice_has_ports_of_its_own() {
    const HTTP: [&str; 4] = [
        "@ SRV 0 100 80 10-1-0-1.cats.shop.svc.cluster.local.",
        "@ SRV 0 100 80 10-1-0-2.cats.shop.svc.cluster.local.",
        "@ SRV 0 100 81 10-1-0-1.cats.shop.svc.cluster.local.",
        "@ SRV 0 100 81 10-1-0-2.cats.shop.svc.cluster.local.",
    ];
    const HTTPS: [&str; 2] = [
        "@ SRV 0 100 443 10-1-0-3.cats.shop.svc.cluster.local.",
        "@ SRV 0 100 443 tom.cats.shop.svc.cluster.local.",
    ];
    const ALL: [&str; 6] = [HTTP[0], HTTP[1], HTTP[2], HTTP[3], HTTPS[0], HTTPS[1]];
    let mut cluster = Cluster::of(zone(), OBJECTS);
    check(
        &cluster,
        &[
            ("_http1._tcp.cats.shop.svc.cluster.local. SRV", "NOERROR", &[HTTP[0], HTTP[1]]),
            ("_http2._tcp.cats.shop.svc.cluster.local. SRV", "NOERROR", &[HTTP[2], HTTP[3]]),
            ("_https._tcp.cats.shop.svc.cluster.local. SRV", "NOERROR", &HTTPS),
            ("cats.shop.svc.cluster.local. SRV", "NOERROR", &ALL),
            ("_http3._tcp.cats.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
        ],
    );
    cluster.delete(ObjectId::new(Kind::EndpointSlice, "shop", "cats-b"));
    cluster.sync().expect("news");
    check(
        &cluster,
        &[
            ("_http1._tcp.cats.shop.svc.cluster.local. SRV", "NOERROR", &[HTTP[0], HTTP[1]]),
            ("_https._tcp.cats.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("cats.shop.svc.cluster.local. SRV", "NOERROR", &HTTP),
            ("tom.cats.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
        ],
    );
}

/// Services and slices with ports.
const OBJECTS: &str = include_str!("ports.yaml");
