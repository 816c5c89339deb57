//! `healthz ask` in a cluster in which all is well.
//!
//! Knows what a user reads; does not know how the walk is made.

use healthz::ask::{Options, run};
use serde_json::json;
use tests::objects::pod;

use super::world::World;

async fn ask(world: &World, arguments: &[&str]) -> (String, bool) {
    let (dns, pages) = (world.dnscache.dns.to_string(), world.dnscache.http.to_string());
    let kubedns = world.kubedns.http.to_string();
    let api = format!("http://{}", world.api.address);
    let mut fixed = vec!["ask", "--server", &dns, "--dnscache", &pages, "--kubedns", &kubedns];
    fixed.extend(["--api", &api]);
    let options: Options =
        shared::flags::parse_from(fixed.into_iter().chain(arguments.iter().copied())).unwrap();
    run(&options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lookup_is_walked_as_both_libraries_do_it() {
    let world = World::healthy().await;
    let mut tuned = pod("payments", "tuned", "10.244.1.80");
    tuned.0["spec"]["dnsConfig"] =
        json!({"searches": ["corp.example"], "options": [{"name": "ndots", "value": "1"}]});
    world.api.apply(tuned);
    let rows: [(&[&str], &[&str], bool); 6] = [
        (
            &["web.shop", "--from", "payments"],
            &[
                "1. web.shop.payments.svc.cluster.local\n   A    NXDOMAIN",
                "2. web.shop.svc.cluster.local\n   A    10.96.12.10",
                "from kubedns\n",
                "from Service shop/web",
                "glibc: 10.96.12.10, after 2 steps and 4 queries",
                "musl: 10.96.12.10, after 2 steps and 4 queries",
            ],
            true,
        ),
        (
            &["web.shop", "--from", "payments/gone"],
            &["dnsPolicy ClusterFirst is assumed: there is no Pod payments/gone\n"],
            true,
        ),
        (
            &["web.shop", "--from", "payments/tuned"],
            &[
                "ndots 1, search payments.svc.cluster.local svc.cluster.local cluster.local \
                 corp.example\n\n1. web.shop\n",
                "2. web.shop.payments.svc.cluster.local\n",
            ],
            true,
        ),
        (
            &["web", "--from", "shop"],
            &["1. web.shop.svc.cluster.local\n   A    10.96.12.10", "from the cache, ", "1 step "],
            true,
        ),
        (
            &["example.com", "--from", "shop"],
            &["4. example.com\n   A    192.0.2.80", "from upstream 127.0.0.2:", "after 4 steps"],
            true,
        ),
        (
            &["nope.example.", "--from", "shop"],
            &["glibc: the name does not exist, after 1 step and 2 queries"],
            false,
        ),
    ];
    for (arguments, parts, expected) in rows {
        let (text, is_found) = ask(&world, arguments).await;
        for part in parts {
            assert!(text.contains(part), "{arguments:?} lacks {part:?}:\n{text}");
        }
        assert_eq!(is_found, expected, "{text}");
    }
}
