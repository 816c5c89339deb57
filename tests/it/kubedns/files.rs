//! Objects from files: every way to write them, and every kind of error.

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
    // A file that is overwritten.
    std::fs::write(path("a.yaml"), web("10.0.0.2")).unwrap();
    web_is(&kubedns, "10.0.0.2").await;
    // A file that is replaced, as editors do.
    std::fs::write(path(".a.yaml.swp"), web("10.0.0.3")).unwrap();
    std::fs::rename(path(".a.yaml.swp"), path("a.yaml")).unwrap();
    web_is(&kubedns, "10.0.0.3").await;
    // A new file, as JSON.
    let list = format!(r#"{{"kind":"List","apiVersion":"v1","items":[{}]}}"#, &db("10.0.0.9")[4..]);
    std::fs::write(path("b.json"), list).unwrap();
    let answer = "db.shop.svc.cluster.local. 30 IN A 10.0.0.9";
    eventually(kubedns.dns, DB, "NOERROR", &[answer]).await;
    // A file that is removed.
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
    // If the directory is removed, the answers stay.
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_dir(directory.path()).unwrap();
    http::eventually(kubedns.http, "/readyz?verbose", 200, "nothing was changed").await;
    web_is(&kubedns, "10.0.0.2").await;
    kubedns.end().await;
}

#[tokio::test]
async fn what_is_no_plain_file_is_named_and_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("web.yaml"), web("10.0.0.1")).unwrap();
    std::fs::create_dir(path("directory.yaml")).unwrap();
    let links = [("circle.json", "circle.json"), ("device.yml", "/dev/zero"), ("lost.yaml", "x")];
    for (name, target) in links {
        std::os::unix::fs::symlink(target, path(name)).unwrap();
    }
    let fifo = path("fifo.yaml");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
    let kubedns = reading(directory.path()).await;
    web_is(&kubedns, "10.0.0.1").await;
    let named = [
        "fifo.yaml: not a plain file: passed over",
        "directory.yaml: not a plain file: passed over",
        "device.yml: not a plain file: passed over",
        "circle.json: Too many levels of symbolic links",
        "lost.yaml: No such file",
    ];
    for part in named {
        http::eventually(kubedns.http, "/readyz?verbose", 200, part).await;
    }
    http::eventually(kubedns.http, "/metrics", 200, "kubedns_objects_problems 5\n").await;
    std::fs::write(path("web.yaml"), web("10.0.0.2")).unwrap();
    web_is(&kubedns, "10.0.0.2").await;
    for name in ["fifo.yaml", "device.yml", "circle.json", "lost.yaml"] {
        std::fs::remove_file(path(name)).unwrap();
    }
    std::fs::remove_dir(path("directory.yaml")).unwrap();
    http::eventually(kubedns.http, "/readyz?verbose", 200, "[+]objects ok").await;
    kubedns.end().await;
    // If it is the path itself, kubedns cannot start.
    std::fs::remove_file(path("web.yaml")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
    let flags = ["kubedns", "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--objects"];
    let flags = flags.into_iter().chain(fifo.to_str());
    let config: kubedns::Config = shared::flags::parse_from(flags).unwrap();
    let Err(error) = kubedns::Program::bind(config).await else { panic!("it starts") };
    let error = shared::flags::chain(&error);
    assert!(error.contains("neither a plain file nor a directory"), "{error}");
}

/// Each way to break a correct file: its objects stay as they were, and others change.
#[tokio::test]
async fn a_broken_document_keeps_its_last_good_version() {
    let db_is = "db.shop.svc.cluster.local. 30 IN A 10.0.0.9";
    let bare = "---\napiVersion: v1\nkind: Service\n";
    let broken = [
        ("{", format!("{bare}metadata: {{name: db\n"), "objects_kept 1"),
        ("no kind", "---\nmetadata: {name: db, namespace: shop}\n".to_owned(), "objects_kept 1"),
        ("ports", format!("{bare}metadata: {{name: db}}\nspec: {{ports: 7}}\n"), "objects_kept 1"),
        ("address", db("10.0.0.300"), "objects_kept 1"),
        ("no YAML", "---\n@: [\n".to_owned(), "objects_kept 1"),
    ];
    for (what, text, kept) in broken {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("all.yaml");
        std::fs::write(&file, format!("{}{}", web("10.0.0.1"), db("10.0.0.9"))).unwrap();
        std::fs::write(directory.path().join("b.yaml"), service("mail", "smtp").yaml()).unwrap();
        let kubedns = reading(directory.path()).await;
        web_is(&kubedns, "10.0.0.1").await;
        eventually(kubedns.dns, DB, "NOERROR", &[db_is]).await;
        std::fs::write(&file, format!("{}{text}", web("10.0.0.2"))).unwrap();
        std::fs::remove_file(directory.path().join("b.yaml")).unwrap();
        web_is(&kubedns, "10.0.0.2").await;
        let body = http::eventually(
            kubedns.http,
            "/readyz?verbose",
            200,
            "; 1 object of these files stays",
        )
        .await;
        assert!(body.contains("all.yaml:"), "{what}: {body}");
        http::eventually(kubedns.http, "/metrics", 200, kept).await;
        kubedns.answers(DB, "NOERROR", &[db_is]).await;
        // An object that is removed from another file is removed, with its namespace.
        eventually(kubedns.dns, "smtp.mail.svc.cluster.local. A", "NXDOMAIN", &[]).await;
        eventually(kubedns.dns, "mail.svc.cluster.local. A", "NXDOMAIN", &[]).await;
        // After the repair, objects that are not in the file are removed.
        std::fs::write(&file, web("10.0.0.3")).unwrap();
        web_is(&kubedns, "10.0.0.3").await;
        eventually(kubedns.dns, DB, "NXDOMAIN", &[]).await;
        http::eventually(kubedns.http, "/readyz?verbose", 200, "[+]objects ok").await;
        kubedns.end().await;
    }
}

#[tokio::test]
async fn what_an_api_server_would_refuse_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yaml");
    let text = |address: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\n\
             spec: {{clusterIP: {address}, clusterIPs: [10.0.0.1]}}\n"
        )
    };
    std::fs::write(&file, text("10.0.0.1")).unwrap();
    let kubedns = reading(directory.path()).await;
    web_is(&kubedns, "10.0.0.1").await;
    http::eventually(kubedns.http, "/readyz?verbose", 200, "[+]objects ok").await;
    std::fs::write(&file, text("10.0.0.2")).unwrap();
    let named = "web.yaml:1: Service shop/web: an API server refuses this: spec.clusterIP is \
        \"10.0.0.2\", but the first of spec.clusterIPs, which holds here, is \"10.0.0.1\"";
    http::eventually(kubedns.http, "/readyz?verbose", 200, named).await;
    kubedns.end().await;
}

#[tokio::test]
async fn the_demo_is_as_an_api_server_takes_it() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/demo");
    let kubedns = reading(&demo).await;
    http::eventually(kubedns.http, "/readyz?verbose", 200, "[+]objects ok").await;
    http::eventually(kubedns.http, "/metrics", 200, "kubedns_objects_problems 0\n").await;
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
