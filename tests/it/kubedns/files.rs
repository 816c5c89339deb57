//! Objects from files: every way to write them, and every way to be wrong.

use std::path::{Path, PathBuf};

use crate::fixture::dns::eventually;
use crate::fixture::http;
use crate::fixture::kubedns::{Kubedns, start};
use tests::objects::{endpoint_slice, service};

const WEB: &str = "web.shop.svc.cluster.local. A";
const DB: &str = "db.shop.svc.cluster.local. A";

fn web(address: &str) -> String {
    service("shop", "web").cluster_ip(address).yaml()
}

fn db(address: &str) -> String {
    service("shop", "db").cluster_ip(address).yaml()
}

async fn reading(path: &Path) -> Kubedns {
    start(&["--objects", path.to_str().unwrap()]).await
}

async fn web_is(kubedns: &Kubedns, address: &str) {
    let answer = format!("web.shop.svc.cluster.local. 30 IN A {address}");
    eventually(kubedns.dns, WEB, "NOERROR", &[&answer]).await;
}

#[tokio::test]
async fn a_directory_is_followed_through_every_kind_of_edit() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("a.yaml"), web("10.0.0.1")).unwrap();
    std::fs::write(path("ignored.txt"), db("10.0.0.9")).unwrap();
    let kubedns = reading(directory.path()).await;
    web_is(&kubedns, "10.0.0.1").await;
    eventually(kubedns.dns, DB, "NXDOMAIN", &[]).await;
    eventually(kubedns.dns, "shop.svc.cluster.local. A", "NODATA", &[]).await;
    // Written over.
    std::fs::write(path("a.yaml"), web("10.0.0.2")).unwrap();
    web_is(&kubedns, "10.0.0.2").await;
    // Put in its place, as editors do.
    std::fs::write(path(".a.yaml.swp"), web("10.0.0.3")).unwrap();
    std::fs::rename(path(".a.yaml.swp"), path("a.yaml")).unwrap();
    web_is(&kubedns, "10.0.0.3").await;
    // A new file, as JSON.
    let list = format!(r#"{{"kind":"List","apiVersion":"v1","items":[{}]}}"#, &db("10.0.0.9")[4..]);
    std::fs::write(path("b.json"), list).unwrap();
    let answer = "db.shop.svc.cluster.local. 30 IN A 10.0.0.9";
    eventually(kubedns.dns, DB, "NOERROR", &[answer]).await;
    // A file that goes.
    std::fs::remove_file(path("b.json")).unwrap();
    eventually(kubedns.dns, DB, "NXDOMAIN", &[]).await;
    web_is(&kubedns, "10.0.0.3").await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_single_file_is_followed_when_it_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("all.yaml");
    std::fs::write(&file, web("10.0.0.1")).unwrap();
    let kubedns = reading(&file).await;
    web_is(&kubedns, "10.0.0.1").await;
    let other = directory.path().join("other");
    let slice = endpoint_slice("shop", "db").ready("10.1.0.1").yaml();
    let text = format!("{}{}{slice}", web("10.0.0.2"), service("shop", "db").yaml());
    std::fs::write(&other, text).unwrap();
    std::fs::rename(&other, &file).unwrap();
    web_is(&kubedns, "10.0.0.2").await;
    let answer = "db.shop.svc.cluster.local. 30 IN A 10.1.0.1";
    eventually(kubedns.dns, DB, "NOERROR", &[answer]).await;
    kubedns.end().await;
}

#[tokio::test]
async fn a_broken_document_is_named_and_the_others_live_on() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("all.yaml");
    let broken = "---\napiVersion: v1\nkind: Service\nmetadata: {name: db\n";
    std::fs::write(&file, format!("{}{broken}", web("10.0.0.1"))).unwrap();
    let kubedns = reading(directory.path()).await;
    web_is(&kubedns, "10.0.0.1").await;
    let body = http::eventually(kubedns.http, "/readyz?verbose", 200, "all.yaml:").await;
    let line = body.split("all.yaml:").nth(1).unwrap().split(':').next().unwrap();
    assert!((3..=7).contains(&line.parse().unwrap()), "{body}");
    http::eventually(kubedns.http, "/metrics", 200, "kubedns_objects_problems 1\n").await;
    std::fs::write(&file, format!("{}{}", web("10.0.0.2"), db("10.0.0.9"))).unwrap();
    web_is(&kubedns, "10.0.0.2").await;
    http::eventually(kubedns.http, "/readyz?verbose", 200, "[+]objects ok").await;
    // A directory that goes away changes nothing.
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_dir(directory.path()).unwrap();
    http::eventually(kubedns.http, "/readyz?verbose", 200, "nothing was changed").await;
    web_is(&kubedns, "10.0.0.2").await;
    kubedns.end().await;
}

#[tokio::test]
async fn readiness_counts_as_the_flags_say() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("all.yaml");
    let texts = [
        service("shop", "db").yaml(),
        endpoint_slice("shop", "db").draining("10.1.0.1").not_ready("10.1.0.2").yaml(),
        web("10.0.0.1"),
        endpoint_slice("shop", "web").draining("10.1.0.3").yaml(),
        service("shop", "ready").cluster_ip("10.0.0.2").yaml(),
        endpoint_slice("shop", "ready").ready("10.1.0.4").yaml(),
    ];
    std::fs::write(&file, texts.concat()).unwrap();
    let path = file.to_str().unwrap();
    let db = ("NOERROR", "db.shop.svc.cluster.local. 30 IN A 10.1.0.1");
    let web = ("NOERROR", "web.shop.svc.cluster.local. 30 IN A 10.0.0.1");
    let missing = ("NXDOMAIN", "");
    let rows: [(&[&str], _, _); 3] = [
        (&[], missing, web),
        (&["--terminating-fallback"], db, web),
        (&["--ignore-empty-service"], missing, missing),
    ];
    for (flags, db, web) in rows {
        let kubedns = start(&[&["--objects", path], flags].concat()).await;
        let ready = "ready.shop.svc.cluster.local. A";
        kubedns
            .answers(ready, "NOERROR", &["ready.shop.svc.cluster.local. 30 IN A 10.0.0.2"])
            .await;
        for (question, (status, record)) in [(DB, db), (WEB, web)] {
            let records: Vec<&str> =
                Some(record).filter(|text| !text.is_empty()).into_iter().collect();
            kubedns.answers(question, status, &records).await;
        }
        kubedns.end().await;
    }
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, "clusters: {{").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let here = directory.path().to_str().unwrap();
    let path = |name: &str| PathBuf::from(here).join(name).to_str().unwrap().to_owned();
    let (missing, garbage) = (path("missing"), path("garbage"));
    let rows: [(&[&str], &[&str]); 7] = [
        (&["--kubeconfig", &missing], &["cannot use kubeconfig", &missing, "No such file"]),
        (&["--kubeconfig", &garbage], &["cannot use kubeconfig", &garbage]),
        (&["--kubeconfig", here], &["cannot use kubeconfig", here, "directory"]),
        (&["--objects", &missing], &["cannot read objects from", &missing, "No such file"]),
        (&[], &["neither --kubeconfig nor --objects is given"]),
        (&["--objects", here, "--listen", &address], &["cannot listen on", &address, "in use"]),
        (
            &["--objects", here, "--http-listen", &address],
            &["cannot listen for HTTP on", &address, "in use"],
        ),
    ];
    for (flags, said) in rows {
        let mut all = vec!["kubedns"];
        for flag in ["--listen", "--http-listen"].into_iter().filter(|flag| !flags.contains(flag)) {
            all.extend([flag, "127.0.0.1:0"]);
        }
        let flags = all.iter().chain(flags).copied();
        let config: kubedns::Config = shared::flags::parse_from(flags).unwrap();
        let Err(error) = kubedns::Program::bind(config).await else {
            panic!("{said:?}: it starts")
        };
        let error = shared::flags::chain(&error);
        for part in said {
            assert!(error.contains(part), "{part:?} is missing in {error:?}");
        }
    }
}
