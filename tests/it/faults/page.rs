//! The status page as a browser shows it: no overflow at any width, and text that can be read.
//!
//! Knows the page as text and what a browser makes of it. Needs Chromium on the PATH; else the test
//! reports that it was skipped.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use super::world::World;
use crate::fixture::{dns, http};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_page_fits_every_width_and_can_be_read() {
    let Some(browser) = browser().await else {
        println!("skipped: there is no Chromium");
        return;
    };
    let world = World::healthy().await;
    let healthz = healthz(&world).await;
    for name in ["web.shop", "nope.shop", "kubernetes.default"] {
        dns::ask(world.dnscache.dns, &format!("{name}.svc.cluster.local. A")).await;
    }
    let part = "<td class=\"up\">up</td>";
    http::eventually(healthz, "/", 200, part).await;
    let (_, page) = http::get(healthz, "/").await;
    for part in ["Upstreams", "Answers", "Cluster", "Names asked most", "Probes", "<figure"] {
        assert!(page.contains(part), "{part} is missing in {page}");
    }
    for outside in ["http://", "https://", "style=", "onclick", "<script>"] {
        assert!(!page.contains(outside), "{outside} is in {page}");
    }
    let (_, style) = http::get(healthz, "/page.css").await;
    let address = measured(&page, &style).await;
    for scheme in ["1", "0"] {
        let found = dump(browser, address, scheme).await;
        assert!(found.contains("<title>fits</title>"), "scheme {scheme}: {found}");
    }
}

/// The HTTP address of a healthz that looks at `world`.
async fn healthz(world: &World) -> SocketAddr {
    let (dns, pages) = (world.dnscache.dns, world.dnscache.http);
    let kubedns = world.kubedns.http;
    let flags = [
        "healthz".to_owned(),
        "--http-listen=127.0.0.1:0".to_owned(),
        format!("--probe=dnscache,{dns},kubernetes.default.svc.cluster.local,1"),
        format!("--dnscache-http={pages}"),
        format!("--kubedns-http={kubedns}"),
    ];
    let config = shared::flags::parse_from(flags).unwrap();
    let program = healthz::Program::bind(config).await.unwrap();
    let address = program.http_address();
    tokio::spawn(program.run(std::future::pending()));
    address
}

async fn browser() -> Option<&'static str> {
    for name in ["chromium", "chromium-browser", "google-chrome"] {
        let mut command = Command::new(name);
        let run = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if run.await.is_ok_and(|status| status.success()) {
            return Some(name);
        }
    }
    None
}

/// Serves a page that shows `page` in frames of each width and names in its title what is wrong.
async fn measured(page: &str, style: &str) -> SocketAddr {
    let style = format!("<style>{style}</style>");
    let page = page.replace("<head>", &format!("<head>{style}"));
    let page = page.replace("<script", "<template").replace("</script>", "</template>");
    let router = Router::new()
        .route("/", get(async || Html(MEASURE)))
        .route("/page", get(async move || Html(page)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

/// The document after its scripts ran; `scheme` is 0 for dark and 1 for light.
async fn dump(browser: &str, address: SocketAddr, scheme: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .args(["--dump-dom", &format!("http://{address}/")])
        .kill_on_drop(true)
        .output();
    let output = timeout(Duration::from_secs(120), output).await.unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Widths of a phone, a tablet and a desk. Contrast is that of WCAG 2 between the colour of a text
/// and the ground behind it.
const MEASURE: &str = r#"<!doctype html><title>wait</title><body></body><script>
const wrong = [];
const rgb = text => text.match(/[\d.]+/g).map(Number);
const linear = part => (part /= 255) <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4;
const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
const ground = node => {
  for (; node; node = node.parentElement) {
    const colour = rgb(getComputedStyle(node).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
const judge = (document, width) => {
  const root = document.documentElement;
  if (root.scrollWidth > width) wrong.push(`${root.scrollWidth} wide at ${width}`);
  let texts = 0;
  for (const node of document.body.querySelectorAll('*')) {
    const own = [...node.childNodes].some(it => it.nodeType === 3 && it.data.trim());
    if (!own || node.closest('template') || !node.getClientRects().length) continue;
    texts += 1;
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(ground(node))];
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (contrast < 4.5) wrong.push(`${contrast.toFixed(2)}: ${node.textContent.slice(0, 40)}`);
  }
  if (texts < 50) wrong.push(`only ${texts} texts at ${width}`);
};
const widths = [360, 768, 1440];
let left = widths.length;
for (const width of widths) {
  const frame = document.createElement('iframe');
  frame.width = width;
  frame.height = 900;
  frame.onload = () => {
    judge(frame.contentDocument, frame.contentDocument.documentElement.clientWidth);
    if (--left === 0) document.title = wrong.length ? wrong.join('; ') : 'fits';
  };
  frame.src = '/page';
  document.body.append(frame);
}
</script>"#;
