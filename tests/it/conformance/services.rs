//! Services of each shape, their ports and endpoints: addresses, SRV and CNAME.
//!
//! Rows only. The parent module checks a row.

use super::{SHOP, check, check_additional, zone};
use crate::fixture::cluster::Cluster;

#[test]
fn cluster_ip_services() {
    check(
        &Cluster::of(zone(), SHOP),
        &[
            ("web.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.7"]),
            ("web.shop.svc.cluster.local. AAAA", "NODATA", &[]),
            ("dual.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.8"]),
            ("dual.shop.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:96::8"]),
            ("six.shop.svc.cluster.local. A", "NODATA", &[]),
            ("six.shop.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:96::9"]),
            // a cluster IP answers even if it has no endpoints
            ("dual.shop.svc.cluster.local. TXT", "NODATA", &[]),
            ("web.shop.svc.cluster.local. CNAME", "NODATA", &[]),
            ("web.shop.svc.cluster.local. MX", "NODATA", &[]),
            ("web.shop.svc.cluster.local. HTTPS", "NODATA", &[]),
            ("web.shop.svc.cluster.local. SOA", "NODATA", &[]),
            ("web.shop.svc.cluster.local. NS", "NODATA", &[]),
            ("web.shop.svc.cluster.local. ANY", "NOERROR", &["@ A 10.96.0.7"]),
            ("six.shop.svc.cluster.local. ANY", "NOERROR", &["@ AAAA fd00:96::9"]),
            // compared without case, echoed as asked
            ("WeB.shOp.SVC.cluster.LOCAL. A", "NOERROR", &["@ A 10.96.0.7"]),
            // names that do not exist, for every type
            ("nope.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("nope.shop.svc.cluster.local. AAAA", "NXDOMAIN", &[]),
            ("nope.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("nope.shop.svc.cluster.local. TXT", "NXDOMAIN", &[]),
            ("nope.shop.svc.cluster.local. SOA", "NXDOMAIN", &[]),
            ("nope.shop.svc.cluster.local. ANY", "NXDOMAIN", &[]),
            ("web.nope.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("www.example.com.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("a.b.c.web.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("*.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("web.any.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("web.shop.pod.cluster.local. A", "NXDOMAIN", &[]),
            // a namespace's Services answer before its Namespace object arrives
            ("early.unlisted.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.20"]),
            ("unlisted.svc.cluster.local. A", "NODATA", &[]),
        ],
    );
}

#[test]
fn srv_of_cluster_ip_services() {
    let cluster = Cluster::of(zone(), SHOP);
    check(
        &cluster,
        &[
            (
                "_http._tcp.web.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 web.shop.svc.cluster.local."],
            ),
            (
                "web.shop.svc.cluster.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 80 web.shop.svc.cluster.local.",
                    "@ SRV 0 100 443 web.shop.svc.cluster.local.",
                ],
            ),
            // dual stack: once
            (
                "_http._tcp.dual.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 dual.shop.svc.cluster.local."],
            ),
            // IPv6 alone
            (
                "_http._tcp.six.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 six.shop.svc.cluster.local."],
            ),
            (
                "six.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 six.shop.svc.cluster.local."],
            ),
            // one number under two protocols is one record at the bare name
            (
                "names.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 53 names.shop.svc.cluster.local."],
            ),
            (
                "_dns._udp.names.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 53 names.shop.svc.cluster.local."],
            ),
            ("_dns._tcp.names.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            // unnamed ports do not have their own name
            (
                "unnamed.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 8080 unnamed.shop.svc.cluster.local."],
            ),
            ("_tcp.unnamed.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("_8080._tcp.unnamed.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("_._tcp.unnamed.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("_nope._tcp.web.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("_http._udp.web.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            // underscores are part of the name
            ("http.tcp.web.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("_http.tcp.web.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            (
                "_HTTP._TCP.web.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 web.shop.svc.cluster.local."],
            ),
            // the target is spelled as in the objects
            (
                "_HtTp._TcP.wEb.sHop.SvC.cLuStEr.LoCaL. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 web.shop.svc.cluster.local."],
            ),
            // the name exists only because of its SRV records
            ("_http._tcp.web.shop.svc.cluster.local. A", "NODATA", &[]),
            ("_http._tcp.web.shop.svc.cluster.local. TXT", "NODATA", &[]),
            ("_tcp.web.shop.svc.cluster.local. A", "NODATA", &[]),
            ("_tcp.web.shop.svc.cluster.local. SRV", "NODATA", &[]),
            ("_udp.web.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("_sctp.web.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
        ],
    );
    check_additional(
        &cluster,
        &[
            ("web.shop.svc.cluster.local. SRV", &["web.shop.svc.cluster.local. A 10.96.0.7"]),
            (
                "_http._tcp.dual.shop.svc.cluster.local. SRV",
                &[
                    "dual.shop.svc.cluster.local. A 10.96.0.8",
                    "dual.shop.svc.cluster.local. AAAA fd00:96::8",
                ],
            ),
            (
                "_http._tcp.six.shop.svc.cluster.local. SRV",
                &["six.shop.svc.cluster.local. AAAA fd00:96::9"],
            ),
            ("six.shop.svc.cluster.local. SRV", &["six.shop.svc.cluster.local. AAAA fd00:96::9"]),
        ],
    );
}

#[test]
fn headless_services() {
    check(
        &Cluster::of(zone(), SHOP),
        &[
            // every ready endpoint of every slice, each once; a missing `ready` means true
            (
                "db.shop.svc.cluster.local. A",
                "NOERROR",
                &["@ A 10.1.0.1", "@ A 10.1.0.2", "@ A 10.1.0.3", "@ A 10.1.0.5"],
            ),
            ("db.shop.svc.cluster.local. AAAA", "NODATA", &[]),
            ("db.shop.svc.cluster.local. CNAME", "NODATA", &[]),
            (
                "db6.shop.svc.cluster.local. AAAA",
                "NOERROR",
                &["@ AAAA fd00:1::1", "@ AAAA fd00:1::"],
            ),
            ("db6.shop.svc.cluster.local. A", "NODATA", &[]),
            // publishNotReadyAddresses
            ("peers.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.2.1", "@ A 10.1.2.2"]),
            ("peers.shop.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:2::1"]),
            ("tolerant.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.8.1"]),
            // no ready endpoint: the name does not exist, and neither does any name below it
            ("idle.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("idle.shop.svc.cluster.local. AAAA", "NXDOMAIN", &[]),
            ("idle.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("_http._tcp.idle.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("10-1-4-1.idle.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("none.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("leaving.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            // slices without a Service, or with names instead of addresses, have no records
            ("orphan.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("named.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            // no ports: it still has addresses
            ("portless.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.5.1"]),
            ("10-1-5-1.portless.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.5.1"]),
            ("portless.shop.svc.cluster.local. SRV", "NODATA", &[]),
            ("_tcp.portless.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("allports.shop.svc.cluster.local. SRV", "NODATA", &[]),
            // ports without a name do not have a name below _tcp
            ("_tcp.db6.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
        ],
    );
}

#[test]
fn endpoints() {
    check(
        &Cluster::of(zone(), SHOP),
        &[
            ("db-0.db.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.1"]),
            ("DB-0.db.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.1"]),
            ("db-0.db.shop.svc.cluster.local. AAAA", "NODATA", &[]),
            ("db-0.db.shop.svc.cluster.local. SRV", "NODATA", &[]),
            ("db-0.db.shop.svc.cluster.local. ANY", "NOERROR", &["@ A 10.1.0.1"]),
            // a generated label only if there is no hostname
            ("10-1-0-3.db.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.0.3"]),
            ("10-1-0-1.db.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("10-1-0-4.db.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("10-1-0-9.db.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("db-9.db.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("x.db-0.db.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("_mysql._tcp.db-0.db.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            // each IPv6 address has exactly one label
            ("fd00-1--1.db6.shop.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:1::1"]),
            ("fd00-1--1.db6.shop.svc.cluster.local. A", "NODATA", &[]),
            ("fd00-1--0.db6.shop.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:1::"]),
            ("fd00-1--.db6.shop.svc.cluster.local. AAAA", "NXDOMAIN", &[]),
            ("fd00-1-0-0-0-0-0-1.db6.shop.svc.cluster.local. AAAA", "NXDOMAIN", &[]),
            // one hostname, several addresses: of one slice, of both families
            ("twin.multi.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.6.1", "@ A 10.1.6.2"]),
            (
                "twin.multi.shop.svc.cluster.local. AAAA",
                "NOERROR",
                &["@ AAAA fd00:6::1", "@ AAAA fd00:6::2"],
            ),
            ("peer-0.peers.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.2.1"]),
            ("peer-0.peers.shop.svc.cluster.local. AAAA", "NOERROR", &["@ AAAA fd00:2::1"]),
            ("peer-1.peers.shop.svc.cluster.local. AAAA", "NODATA", &[]),
            // Services with a cluster IP name their endpoints too
            ("10-1-1-1.web.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.1.1"]),
            ("10-1-1-2.web.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("10-96-0-7.web.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("front-0.front.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.1.3.1"]),
            ("10-1-3-1.front.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("front.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.13"]),
            ("1.3.1.10.in-addr.arpa. PTR", "NXDOMAIN", &[]),
        ],
    );
}

#[test]
fn srv_of_headless_services() {
    let cluster = Cluster::of(zone(), SHOP);
    check(
        &cluster,
        &[
            // ports differ from slice to slice, and 10.1.0.3 is in both
            (
                "_mysql._tcp.db.shop.svc.cluster.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 3306 db-0.db.shop.svc.cluster.local.",
                    "@ SRV 0 100 3306 db-1.db.shop.svc.cluster.local.",
                    "@ SRV 0 100 3306 10-1-0-3.db.shop.svc.cluster.local.",
                    "@ SRV 0 100 3307 10-1-0-3.db.shop.svc.cluster.local.",
                    "@ SRV 0 100 3307 10-1-0-5.db.shop.svc.cluster.local.",
                ],
            ),
            ("_mysql._tcp.db.shop.svc.cluster.local. A", "NODATA", &[]),
            ("_tcp.db.shop.svc.cluster.local. A", "NODATA", &[]),
            ("_udp.db.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("_nope._tcp.db.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            // one record for a hostname with any number of addresses
            (
                "_http._tcp.multi.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 twin.multi.shop.svc.cluster.local."],
            ),
            (
                "_http._tcp.peers.shop.svc.cluster.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 80 peer-0.peers.shop.svc.cluster.local.",
                    "@ SRV 0 100 80 peer-1.peers.shop.svc.cluster.local.",
                ],
            ),
            (
                "db6.shop.svc.cluster.local. SRV",
                "NOERROR",
                &[
                    "@ SRV 0 100 5432 fd00-1--0.db6.shop.svc.cluster.local.",
                    "@ SRV 0 100 5432 fd00-1--1.db6.shop.svc.cluster.local.",
                ],
            ),
        ],
    );
    check_additional(
        &cluster,
        &[
            (
                "_http._tcp.peers.shop.svc.cluster.local. SRV",
                &[
                    "peer-0.peers.shop.svc.cluster.local. A 10.1.2.1",
                    "peer-0.peers.shop.svc.cluster.local. AAAA fd00:2::1",
                    "peer-1.peers.shop.svc.cluster.local. A 10.1.2.2",
                ],
            ),
            (
                "_http._tcp.multi.shop.svc.cluster.local. SRV",
                &[
                    "twin.multi.shop.svc.cluster.local. A 10.1.6.1",
                    "twin.multi.shop.svc.cluster.local. A 10.1.6.2",
                    "twin.multi.shop.svc.cluster.local. AAAA fd00:6::1",
                    "twin.multi.shop.svc.cluster.local. AAAA fd00:6::2",
                ],
            ),
            (
                "_mysql._tcp.db.shop.svc.cluster.local. SRV",
                &[
                    "db-0.db.shop.svc.cluster.local. A 10.1.0.1",
                    "db-1.db.shop.svc.cluster.local. A 10.1.0.2",
                    "10-1-0-3.db.shop.svc.cluster.local. A 10.1.0.3",
                    "10-1-0-5.db.shop.svc.cluster.local. A 10.1.0.5",
                ],
            ),
        ],
    );
}

#[test]
fn external_names() {
    let cluster = Cluster::of(zone(), SHOP);
    check(
        &cluster,
        &[
            ("mail.shop.svc.cluster.local. A", "NOERROR", &["@ CNAME mail.example.com."]),
            ("mail.shop.svc.cluster.local. AAAA", "NOERROR", &["@ CNAME mail.example.com."]),
            ("mail.shop.svc.cluster.local. CNAME", "NOERROR", &["@ CNAME mail.example.com."]),
            ("mail.shop.svc.cluster.local. SRV", "NOERROR", &["@ CNAME mail.example.com."]),
            ("mail.shop.svc.cluster.local. TXT", "NOERROR", &["@ CNAME mail.example.com."]),
            ("mail.shop.svc.cluster.local. ANY", "NOERROR", &["@ CNAME mail.example.com."]),
            ("x.mail.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("_http._tcp.mail.shop.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            // digits and dots are a valid name
            ("digits.shop.svc.cluster.local. A", "NOERROR", &["@ CNAME 10.0.0.1."]),
            // one label is a valid name
            ("single.shop.svc.cluster.local. A", "NOERROR", &["@ CNAME intranet."]),
            // inside the zone, the answer includes the target's records
            (
                "alias.shop.svc.cluster.local. A",
                "NOERROR",
                &["@ CNAME web.shop.svc.cluster.local.", "web.shop.svc.cluster.local. A 10.96.0.7"],
            ),
            (
                "alias.shop.svc.cluster.local. CNAME",
                "NOERROR",
                &["@ CNAME web.shop.svc.cluster.local."],
            ),
            (
                "chain.shop.svc.cluster.local. A",
                "NOERROR",
                &[
                    "@ CNAME alias.shop.svc.cluster.local.",
                    "alias.shop.svc.cluster.local. CNAME web.shop.svc.cluster.local.",
                    "web.shop.svc.cluster.local. A 10.96.0.7",
                ],
            ),
            (
                "alias.shop.svc.cluster.local. SRV",
                "NOERROR",
                &[
                    "@ CNAME web.shop.svc.cluster.local.",
                    "web.shop.svc.cluster.local. SRV 0 100 80 web.shop.svc.cluster.local.",
                    "web.shop.svc.cluster.local. SRV 0 100 443 web.shop.svc.cluster.local.",
                ],
            ),
            (
                "todb.shop.svc.cluster.local. A",
                "NOERROR",
                &[
                    "@ CNAME db.shop.svc.cluster.local.",
                    "db.shop.svc.cluster.local. A 10.1.0.1",
                    "db.shop.svc.cluster.local. A 10.1.0.2",
                    "db.shop.svc.cluster.local. A 10.1.0.3",
                    "db.shop.svc.cluster.local. A 10.1.0.5",
                ],
            ),
            (
                "todb.shop.svc.cluster.local. AAAA",
                "NOERROR",
                &["@ CNAME db.shop.svc.cluster.local."],
            ),
            // the last name of the chain decides about the code (RFC 6604)
            (
                "lost.shop.svc.cluster.local. A",
                "NXDOMAIN",
                &["@ CNAME nope.shop.svc.cluster.local."],
            ),
            ("circle.shop.svc.cluster.local. A", "SERVFAIL", &[]),
        ],
    );
    let soa = "cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. \
               1 7200 1800 86400 30";
    for alias in ["alias", "todb"] {
        let nodata = cluster.ask(&format!("{alias}.shop.svc.cluster.local. AAAA"));
        assert_eq!(nodata.status, "NOERROR");
        assert_eq!(nodata.answers.len(), 1, "{nodata:#?}");
        assert_eq!(nodata.authorities, [soa]);
    }
    let lost = cluster.ask("lost.shop.svc.cluster.local. A");
    assert_eq!((lost.status.as_str(), lost.answers.len()), ("NXDOMAIN", 1));
    assert_eq!(lost.authorities, [soa]);
    let circle = cluster.ask("circle.shop.svc.cluster.local. A");
    assert_eq!((circle.status.as_str(), circle.answers.len()), ("SERVFAIL", 0));
    assert!(circle.error.is_some());
}
