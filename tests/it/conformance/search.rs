//! The names that resolvers try for a name with the search list of a pod. One candidate exists. The
//! others must not exist, or the search would end too early.
//!
//! Rows only. The parent module checks a row.

use super::{SHOP, check, zone};
use crate::fixture::cluster::Cluster;

/// `search shop.svc.cluster.local svc.cluster.local cluster.local`, `ndots:5`.
#[test]
fn candidates_of_a_search_list() {
    check(
        &Cluster::of(zone(), SHOP),
        &[
            // web
            ("web.shop.svc.cluster.local. A", "NOERROR", &["@ A 10.96.0.7"]),
            ("web.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("web.cluster.local. A", "NXDOMAIN", &[]),
            // web.shop
            ("web.shop.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("web.shop.shop.svc.cluster.local. AAAA", "NXDOMAIN", &[]),
            ("web.shop.cluster.local. A", "NXDOMAIN", &[]),
            // web.shop.svc
            ("web.shop.svc.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("web.shop.svc.svc.cluster.local. A", "NXDOMAIN", &[]),
            // web.shop.svc.cluster.local
            ("web.shop.svc.cluster.local.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("web.shop.svc.cluster.local.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("web.shop.svc.cluster.local.cluster.local. A", "NXDOMAIN", &[]),
            // kubernetes.default
            ("kubernetes.default.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("kubernetes.default.cluster.local. A", "NXDOMAIN", &[]),
            // example.com
            ("example.com.shop.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("example.com.svc.cluster.local. A", "NXDOMAIN", &[]),
            ("example.com.cluster.local. A", "NXDOMAIN", &[]),
            // _http._tcp.web
            (
                "_http._tcp.web.shop.svc.cluster.local. SRV",
                "NOERROR",
                &["@ SRV 0 100 80 web.shop.svc.cluster.local."],
            ),
            ("_http._tcp.web.svc.cluster.local. SRV", "NXDOMAIN", &[]),
            ("_http._tcp.web.cluster.local. SRV", "NXDOMAIN", &[]),
        ],
    );
}
