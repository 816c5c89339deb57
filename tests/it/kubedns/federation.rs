//! Federations from the configuration directory. They are added and removed without a restart, and
//! Nodes are watched only if there is a federation.

use super::{shop, watching};
use crate::fixture::dns::eventually;
use crate::fixture::kubedns::start;
use tests::objects::{endpoint_slice, node};

const WEB: &str = "web.shop.fed.svc.cluster.local. A";

#[tokio::test]
async fn federations_apply_without_restart() {
    let api = shop().await;
    api.apply(node("n1", "z1", "r1"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    // A flag sets the cluster's addresses, so that Nodes are not needed for them.
    let flags = ["--config-dir", &path, "--cluster-cidr", "10.0.0.0/8"];
    let kubedns = watching(&api, &flags).await;
    eventually(kubedns.dns, WEB, "NXDOMAIN", &[]).await;
    let asked = || api.requests().iter().filter(|request| request.contains("nodes")).count();
    assert_eq!(asked(), 0, "nobody needs Nodes");

    std::fs::write(directory.path().join("federations"), "fed=fed.example").unwrap();
    let away = "web.shop.fed.svc.cluster.local. 30 IN CNAME web.shop.fed.svc.z1.r1.fed.example.";
    eventually(kubedns.dns, WEB, "NOERROR", &[away]).await;
    assert_eq!(asked(), 1);
    api.apply(node("n1", "z2", "r1"));
    let moved = away.replace("z1", "z2");
    eventually(kubedns.dns, WEB, "NOERROR", &[&moved]).await;
    api.apply(endpoint_slice("shop", "web").ready("10.1.0.1").port("http", 80));
    let here = [
        "web.shop.fed.svc.cluster.local. 30 IN CNAME web.shop.svc.cluster.local.",
        "web.shop.svc.cluster.local. 30 IN A 10.0.0.7",
    ];
    eventually(kubedns.dns, WEB, "NOERROR", &here).await;

    std::fs::remove_file(directory.path().join("federations")).unwrap();
    eventually(kubedns.dns, WEB, "NXDOMAIN", &[]).await;
    kubedns.end().await;
}

#[tokio::test]
async fn nodes_may_stand_in_files() {
    let (objects, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(objects.path().join("node.yaml"), node("n1", "z1", "r1").yaml()).unwrap();
    std::fs::write(keys.path().join("federations"), "fed=fed.example").unwrap();
    let [objects, keys] = [&objects, &keys].map(|path| path.path().to_str().unwrap().to_owned());
    let flags = ["--objects", &*objects, "--config-dir", &keys, "--namespace", "shop"];
    let kubedns = start(&flags).await;
    let away = "web.shop.fed.svc.cluster.local. 30 IN CNAME web.shop.fed.svc.z1.r1.fed.example.";
    eventually(kubedns.dns, WEB, "NOERROR", &[away]).await;
    eventually(kubedns.dns, "default.svc.cluster.local. A", "NXDOMAIN", &[]).await;
    kubedns.end().await;
}
