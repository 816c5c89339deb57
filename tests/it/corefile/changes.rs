//! Corefiles that change under running programs.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Pod, write};
use crate::fixture::http;
use crate::fixture::upstream::Upstream;

#[tokio::test(flavor = "multi_thread")]
async fn a_good_change_is_applied_and_a_bad_one_is_named() {
    let corefile = ".:53 {\n kubernetes cluster.local\n forward . UPSTREAM\n}\n";
    let pod = Pod::start(corefile, &[]).await;
    let other = Upstream::start(crate::fixture::dnscache::FARTHER).await;
    let who = "who.example. A";
    pod.upstream.answer(who, &["who.example. 300 A 192.0.2.1"]);
    other.answer(who, &["who.example. 300 A 192.0.2.2"]);
    pod.answers(who, "NOERROR", &["who.example. 300 IN A 192.0.2.1"]).await;

    // Another upstream and other lifetimes must apply at once, and the old entries must be removed.
    let text = format!(
        ".:53 {{\n kubernetes cluster.local\n forward . {}\n cache 60\n}}\n",
        other.address
    );
    write(&pod.path(), &text);
    pod.answers(who, "NOERROR", &["who.example. 60 IN A 192.0.2.2"]).await;
    http::eventually(pod.http, "/metrics", 200, "corefile_loads_total{result=\"applied\"} 2").await;

    // If a line is wrong, the page names it, and the old file stays.
    for (from, to, reason) in [
        ("cache 60", "hosst", "Corefile:4: hosst: there is no plugin \"hosst\""),
        ("cache 60", "cache 0", "Corefile:4: cache 0: \"0\" is not allowed"),
        ("\n}", "", "Corefile:4:8: the file ends inside a block"),
    ] {
        write(&pod.path(), &text.replacen(from, to, 1));
        for server in [pod.http, pod.kubedns_http] {
            let page = http::eventually(server, "/readyz?verbose", 200, reason).await;
            assert!(page.contains("[!]corefile warning"), "{page}");
            assert!(page.contains("the last good configuration stays in force"), "{page}");
            http::eventually(server, "/metrics", 200, "corefile_ok 0").await;
        }
        pod.answers(who, "NOERROR", &["who.example. 60 IN A 192.0.2.2"]).await;
    }

    // If a line needs a restart, the page of its program must name it.
    write(
        &pod.path(),
        &text
            .replace("cache 60", "cache 60\n bufsize 4096")
            .replace("kubernetes cluster.local", "kubernetes cluster.local {\n ttl 10\n }"),
    );
    let page =
        http::eventually(pod.http, "/readyz?verbose", 200, "Corefile:7: --udp-size=4096").await;
    assert!(page.contains("is applied by a restart of dnscache"), "{page}");
    let page =
        http::eventually(pod.kubedns_http, "/readyz?verbose", 200, "Corefile:3: --ttl=10").await;
    assert!(page.contains("is applied by a restart of kubedns"), "{page}");

    write(&pod.path(), &text);
    for server in [pod.http, pod.kubedns_http] {
        http::eventually(server, "/readyz?verbose", 200, "[+]corefile ok").await;
        http::eventually(server, "/metrics", 200, "corefile_ok 1").await;
    }
    pod.end().await;
}

/// Writes a version of a ConfigMap as the kubelet does: creates a directory, and then changes one
/// link.
fn mount(directory: &Path, version: u32, files: &[(&str, &str)]) {
    let data = directory.join(format!("..version-{version}"));
    std::fs::create_dir(&data).unwrap();
    for (name, text) in files {
        std::fs::write(data.join(name), text).unwrap();
        let link = directory.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link).unwrap();
        }
    }
    let new = directory.join("..new");
    symlink(data.file_name().unwrap(), &new).unwrap();
    std::fs::rename(new, directory.join("..data")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_of_a_config_map_are_followed() {
    let corefile = ".:53 {\n forward . UPSTREAM\n cache 30\n}\nimport custom/*.server\n";
    let pod = Pod::start(corefile, &[]).await;
    let stub = Upstream::start(crate::fixture::dnscache::FARTHER).await;
    let who = "who.stub.example. A";
    pod.upstream.answer(who, &["who.stub.example. 300 A 192.0.2.1"]);
    stub.answer(who, &["who.stub.example. 300 A 192.0.2.2"]);
    pod.answers(who, "NOERROR", &["who.stub.example. 30 IN A 192.0.2.1"]).await;

    let custom = pod.directory.path().join("custom");
    std::fs::create_dir(&custom).unwrap();
    let block =
        |ttl: u32| format!("stub.example {{\n forward . {}\n cache {ttl}\n}}\n", stub.address);
    mount(&custom, 1, &[("stub.server", &block(20))]);
    pod.answers(who, "NOERROR", &["who.stub.example. 20 IN A 192.0.2.2"]).await;
    mount(&custom, 2, &[("stub.server", &block(10))]);
    pod.answers(who, "NOERROR", &["who.stub.example. 10 IN A 192.0.2.2"]).await;
    mount(&custom, 3, &[("stub.server", "# nothing\n")]);
    pod.answers(who, "NOERROR", &["who.stub.example. 30 IN A 192.0.2.1"]).await;
    pod.end().await;
}
