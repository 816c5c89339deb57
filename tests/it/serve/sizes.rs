//! Sizes of output: the largest reply over UDP, and the rows of a page.

use super::*;
use crate::fixture::dns::{query as question, read};
use crate::fixture::{dnscache::Running, http, kubedns};
use tests::objects::{endpoint_slice, service};

const LIST: &str = "list.shop.svc.cluster.local. A";

/// Returns a directory of objects: a headless Service of `count` endpoints in slices of 500. Each
/// slice repeats the first endpoint.
fn headless(count: usize) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: String, text: String| {
        std::fs::write(directory.path().join(name), text).unwrap();
    };
    write("service.yaml".to_owned(), service("shop", "list").yaml());
    let addresses: Vec<String> =
        (0..count).map(|at| format!("10.1.{}.{}", at / 250, at % 250)).collect();
    for (number, part) in addresses.chunks(500).enumerate() {
        let slice = endpoint_slice("shop", "list").named(&format!("list-{number}"));
        let slice = part.iter().fold(slice.ready(&addresses[0]), |slice, address| {
            if *address == addresses[0] { slice } else { slice.ready(address) }
        });
        write(format!("slice-{number}.yaml"), slice.yaml());
    }
    directory
}

/// Asks over UDP as a client that accepts `size` bytes. Returns the length of the reply, whether it
/// is truncated, how many answers it has, and the size in its OPT.
fn ask(server: SocketAddr, size: u16) -> (usize, bool, usize, u16) {
    let socket = UdpSocket::bind(SocketAddr::new(server.ip(), 0)).unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send(&question(LIST, Some(size))).unwrap();
    let mut buffer = vec![0; 65_535];
    let len = socket.recv(&mut buffer).unwrap();
    let reply = &buffer[..len];
    let opt = &reply[len - 11..];
    assert_eq!(opt[..3], [0, 0, 41], "OPT is the last record");
    let advertised = u16::from_be_bytes([opt[3], opt[4]]);
    (len, reply[2] & 2 != 0, read(reply).answers.len(), advertised)
}

#[tokio::test]
async fn the_largest_reply_over_udp_is_a_flag_of_both_programs() {
    const COUNT: usize = 150; // 2.4 kB
    let directory = headless(COUNT);
    let objects = directory.path().to_str().unwrap().to_owned();
    for (flag, most) in
        [(None, 1_232), (Some("4096"), 4_096), (Some("2000"), 2_000), (Some("512"), 512)]
    {
        let mut flags = vec!["--objects", &*objects];
        flags.extend(flag.into_iter().flat_map(|size| ["--udp-size", size]));
        let kubedns = kubedns::start(&flags).await;
        http::eventually(kubedns.http, "/readyz", 200, "").await;
        let mut flags = vec![format!("--server=/cluster.local/{}", kubedns.dns).replace(":", "#")];
        flags.extend(flag.map(|size| format!("--udp-size={size}")));
        let dnscache = Running::start(&flags).await;
        // dnscache answers from its cache the second and the third time.
        for server in [kubedns.dns, dnscache.dns, dnscache.dns, dnscache.dns] {
            for size in [512, 1_232, 1_500, 4_096, 65_535] {
                let (len, cut, answers, advertised) = blocking(move || ask(server, size)).await;
                let allowed = usize::from(size.clamp(512, most));
                let what = format!("{flag:?} {server} {size}: {len} bytes, {answers} answers");
                assert!(len <= allowed && advertised == most, "{what}");
                if allowed < 16 * COUNT {
                    assert!(cut && answers < COUNT, "{what}");
                } else {
                    assert!(!cut && answers == COUNT, "{what}");
                }
            }
        }
        dnscache.stop().await;
        kubedns.end().await;
    }
}

#[tokio::test]
async fn a_page_stops_at_two_hundred_rows_and_one_is_made_at_a_time() {
    const COUNT: usize = 2_000;
    let directory = headless(COUNT);
    let kubedns = kubedns::start(&["--objects", directory.path().to_str().unwrap()]).await;
    http::eventually(kubedns.http, "/readyz", 200, "").await;
    let path = "/explain?name=list.shop.svc.cluster.local&format=json&type=";
    let page = format!("{path}A");
    let pages = (0..15).map(|_| http::get(kubedns.http, &page));
    for (status, text) in futures_util::future::join_all(pages).await {
        assert_eq!(status, 200, "{text}");
        let page: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(page["records"].as_array().map(Vec::len), Some(200));
        assert_eq!(page["omitted"], COUNT - 200, "{}", page["reason"]);
    }
    let (status, text) = http::get(kubedns.http, &path.replace("&format=json", "")).await;
    assert_eq!(status, 400, "{text}");
    let text = http::get(kubedns.http, &format!("{path}A").replace("&format=json", "")).await.1;
    assert!(text.contains("1800 more records are not shown"), "{text}");
    let aaaa = http::get(kubedns.http, &format!("{path}AAAA")).await.1;
    assert!(aaaa.contains("NODATA") && aaaa.contains("\"omitted\":0"), "{aaaa}");
    // Simultaneous scrapes must all get the same tally.
    let scrapes = (0..12).map(|_| http::get(kubedns.http, "/metrics"));
    for (status, text) in futures_util::future::join_all(scrapes).await {
        let line = format!("kubedns_records{{type=\"A\"}} {}\n", 2 * COUNT);
        assert!(status == 200 && text.contains(&line), "{line} is missing in {text}");
    }
    kubedns.end().await;
}
