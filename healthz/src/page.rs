//! The status page for people: one HTML document that needs nothing but itself.
//!
//! Core: status and time in, HTML out. Every text from outside is escaped; a server's own words
//! may come with a failure.

use std::fmt::Write;
use std::time::Duration;

use shared::clock::Moment;

use crate::config::counted;
use crate::report::{duration, milliseconds, question};
use crate::status::{HISTORY_MAX, Record, State, overall};

/// The page on `records` at `now`. It renews itself every two seconds, without a script every five.
pub fn page(records: &[Record], now: Moment) -> String {
    let state = overall(records, now);
    let (name, title) = match state {
        State::Healthy => ("healthy", "Healthy"),
        State::Waiting => ("waiting", "Waiting"),
        State::Unhealthy => ("unhealthy", "Unhealthy"),
    };
    let cards = records.iter().map(|record| card(record, now)).collect::<String>();
    let lead = lead(records, now);
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>{title} · cluster DNS</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<p class=\"over\">Cluster DNS</p>\n\
         <h1 id=\"state\" class=\"{name}\" aria-live=\"polite\">{title}</h1>\n</header>\n\
         <main id=\"main\">\n<p class=\"lead\">{lead}</p>\n<div class=\"cards\">\n{cards}</div>\n\
         </main>\n<footer>\n<nav aria-label=\"Other forms\">\
         <a href=\"/healthz\">text</a> <a href=\"/healthz?format=json\">JSON</a> \
         <a href=\"/readyz?verbose\">readiness</a> <a href=\"/metrics\">metrics</a></nav>\n\
         <p><button id=\"pause\" type=\"button\" aria-pressed=\"false\" hidden>Pause</button> \
         healthz {version}</p>\n</footer>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

/// What to know before any detail.
fn lead(records: &[Record], now: Moment) -> String {
    let not = |state| {
        let those = records.iter().filter(|record| record.health(now).state == state);
        those.map(|record| escape(&record.probe.label)).collect::<Vec<_>>().join(", ")
    };
    match overall(records, now) {
        State::Healthy => "Every program that is probed answers.".to_owned(),
        State::Waiting => format!("No answer yet from: {}.", not(State::Waiting)),
        State::Unhealthy => format!("No good answer from: {}.", not(State::Unhealthy)),
    }
}

fn card(record: &Record, now: Moment) -> String {
    let health = record.health(now);
    let (label, state) = (escape(&record.probe.label), health.state.name());
    let mut rows = row("Since", &format!("{} ago", duration(now.since(health.since))));
    if let Some(reason) = &health.reason {
        rows += &row("Reason", reason);
    }
    if record.is_stuck(now) {
        rows += &row("Stuck", "no reply at all to the last probes");
    }
    let latency = record.last.as_ref().filter(|(outcome, _)| outcome.result.is_ok());
    if let Some((outcome, _)) = latency {
        rows += &row("Latency", &milliseconds(outcome.latency));
    }
    rows += &row("Asks", &question(&record.probe));
    rows += &row("Every", &duration(record.probe.interval));
    // While it is unhealthy, the reason is the last error.
    let past = record.last_error(now).filter(|_| health.reason.is_none());
    if let Some((failure, at)) = past {
        let age = duration(now.since(at));
        rows += &row("Last error", &format!("{failure}, {age} ago"));
    }
    let chart = chart(record);
    format!(
        "<section class=\"card {state}\" aria-labelledby=\"probe-{label}\">\n\
         <h2 id=\"probe-{label}\">{label} <span class=\"pill\">{state}</span></h2>\n{chart}\
         <dl>\n{rows}</dl>\n</section>\n"
    )
}

fn row(term: &str, text: &str) -> String {
    format!("<div><dt>{term}</dt><dd>{}</dd></div>\n", breakable(&escape(text)))
}

/// HTML in which a long name stays on one line if it fits there. If not, it breaks behind dots, and
/// nowhere else inside it.
fn breakable(html: &str) -> String {
    let words = html.split(' ').map(|word| {
        let parts = parts(word);
        match parts.len() {
            1 => word.to_owned(),
            _ => format!("<span class=\"name\">{}</span>", parts.join("<wbr>")),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A word cut behind the dots between two labels of a name.
fn parts(word: &str) -> Vec<&str> {
    let bytes = word.as_bytes();
    let is_cut = |at: usize| {
        let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        bytes[at] == b'.'
            && at.checked_sub(1).is_some_and(|before| is_label(bytes[before]))
            && bytes.get(at + 1).is_some_and(|next| next.is_ascii_alphabetic() || *next == b'_')
    };
    let cuts = (0..word.len()).filter(|&at| is_cut(at)).map(|at| at + 1);
    let ends: Vec<usize> = cuts.chain([word.len()]).collect();
    let starts = [0].into_iter().chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, &end)| &word[start..end]).collect()
}

/// The last outcomes as bars, with their scale: taller is slower, a failure is a full bar in
/// another colour.
fn chart(record: &Record) -> String {
    let answers = record.history.iter().flatten();
    let slowest = answers.clone().max().copied().unwrap_or_default();
    let top = slowest.max(Duration::from_millis(1));
    let failures = record.history.len() - answers.count();
    let mut bars = String::new();
    let first = HISTORY_MAX - record.history.len();
    for (at, outcome) in record.history.iter().enumerate() {
        let share = |latency: &Duration| latency.as_secs_f64() / top.as_secs_f64();
        let (class, height) = match outcome {
            Some(latency) => ("ok", 3.0 + 25.0 * share(latency)),
            None => ("bad", 28.0),
        };
        let (x, y) = ((first + at) * 4, 28.0 - height);
        write!(
            bars,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y:.1}\" width=\"3\" height=\"{height:.1}\"/>"
        )
        .expect("a String takes all text");
    }
    let last = counted(record.history.len(), "probe");
    let scale = match failures == record.history.len() {
        true => "no answer".to_owned(),
        false => format!("top {}", milliseconds(top)),
    };
    let slowest = milliseconds(slowest);
    format!(
        "<svg viewBox=\"0 0 {} 28\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"\
         Last {last}: {failures} failed, slowest answer {slowest}\">{bars}</svg>\n\
         <p class=\"scale\"><span>Last {last}, newest right, {failures} failed</span> \
         <span>{scale}</span></p>\n",
        HISTORY_MAX * 4
    )
}

/// Text that is safe between tags and in attributes.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Contrast is at least 4.5 to 1 in both schemes; no state is told by colour alone.
const STYLE: &str = "\
:root{--ground:#f6f7f9;--card:#fff;--text:#1a1f27;--dim:#56606e;--line:#dde1e7;\
--ok:#0d7a43;--bad:#c02626;--wait:#8a5a00}\
@media(prefers-color-scheme:dark){:root{--ground:#12151a;--card:#1b2027;--text:#e8ebef;\
--dim:#9aa5b3;--line:#2d343e;--ok:#4cc38a;--bad:#ff8080;--wait:#f0b429}}\
*{box-sizing:border-box}\
body{margin:0 auto;padding:2.5rem 1.25rem;max-width:60rem;background:var(--ground);\
color:var(--text);font:16px/1.5 system-ui,sans-serif}\
.over{margin:0;color:var(--dim);font-weight:600}\
h1{margin:0;font-size:clamp(2.2rem,7vw,3.4rem);line-height:1.1;letter-spacing:-.02em}\
h1::before{content:\"\";display:inline-block;width:.5em;height:.5em;margin-right:.3em;\
border-radius:50%;background:currentColor;vertical-align:.08em}\
h1.healthy,.healthy .pill{color:var(--ok)}h1.unhealthy,.unhealthy .pill{color:var(--bad)}\
h1.waiting,.waiting .pill{color:var(--wait)}\
.lead{margin:.75rem 0 1.75rem;font-size:1.15rem}\
.cards{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr))}\
.card{padding:1.1rem 1.25rem;background:var(--card);border:1px solid var(--line);\
border-radius:.75rem}\
.card.unhealthy{border-color:var(--bad)}\
h2{display:flex;justify-content:space-between;align-items:baseline;margin:0 0 .75rem;\
font-size:1.2rem}\
.pill{font-size:.9rem;font-weight:600}\
svg{display:block;width:100%;height:2.4rem;border:solid var(--line);border-width:1px 0}\
.scale{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1rem;\
margin:.15rem 0 .75rem;color:var(--dim);font-size:.85rem;font-variant-numeric:tabular-nums}\
rect.ok{fill:var(--ok)}rect.bad{fill:var(--bad)}\
dl{margin:0}dl div{display:flex;gap:1rem;padding:.2rem 0}\
dt{flex:0 0 5.5rem;color:var(--dim)}\
dd{margin:0;min-width:0;overflow-wrap:break-word;font-variant-numeric:tabular-nums}\
.name{display:inline-block;max-width:100%}\
footer{display:flex;flex-wrap:wrap;gap:.5rem 2rem;justify-content:space-between;\
margin-top:2rem;color:var(--dim)}\
footer p,nav{margin:0}nav a{margin-right:1rem}a{color:inherit}\
button{font:inherit;color:inherit;background:none;border:1px solid var(--line);\
border-radius:.4rem;padding:.05rem .7rem;margin-right:.7rem;cursor:pointer}\
:focus-visible{outline:2px solid currentColor;outline-offset:2px}";

/// Fetches the page again and swaps in what changed; says so when healthz itself is gone.
const SCRIPT: &str = "\
const state=document.getElementById('state'),main=document.getElementById('main'),\
pause=document.getElementById('pause');\
pause.hidden=false;\
pause.onclick=()=>{const on=pause.getAttribute('aria-pressed')==='false';\
pause.setAttribute('aria-pressed',on);pause.textContent=on?'Go on':'Pause'};\
const show=(name,text,title)=>{if(state.textContent!==text){state.className=name;\
state.textContent=text}document.title=title};\
const renew=async()=>{if(pause.getAttribute('aria-pressed')==='true'||document.hidden)return;\
try{const answer=await fetch('/',{cache:'no-store',signal:AbortSignal.timeout(1900)});\
const page=new DOMParser().parseFromString(await answer.text(),'text/html');\
const next=page.getElementById('state');\
show(next.className,next.textContent,page.title);\
main.replaceChildren(...page.getElementById('main').childNodes)}\
catch{show('unhealthy','No answer from healthz','No answer · cluster DNS')}};\
setInterval(renew,2000);";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Failure, Outcome, Status};

    #[test]
    fn the_page_tells_each_state_and_escapes_what_servers_say() {
        let probes = ["kubedns,127.0.0.1:10053,x.y", "cache,::1,x.y"];
        let now = Moment::default();
        let probes = probes.map(|text| text.parse().unwrap());
        let mut status = Status::new(probes, Duration::ZERO, now);
        assert!(page(status.probes(), now).contains("No answer yet from: kubedns, cache."));
        let latency = Duration::from_micros(410);
        let ok = Outcome { latency, result: Ok(()), replied: true };
        for index in 0..2 {
            status.record(index, ok.clone(), now);
        }
        let html = page(status.probes(), now);
        assert!(html.contains("<title>Healthy") && html.contains("<dd>0.41 ms</dd>"), "{html}");
        assert!(!html.contains("Last error") && html.contains("Last 1 probe,"), "{html}");
        let error = Some("<script>alert('x')</script>".to_owned());
        let result = Err(Failure::Rcode { code: 2, error });
        for _ in 0..3 {
            let outcome = Outcome { latency, result: result.clone(), replied: true };
            status.record(1, outcome, now);
        }
        let html = page(status.probes(), now);
        assert!(html.contains("<title>Unhealthy") && html.contains("from: cache."), "{html}");
        let escaped = "SERVFAIL: &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;";
        assert!(html.contains(escaped), "{html}");
        assert!(html.contains("Last 4 probes: 3 failed, slowest answer 0.41 ms"));
        assert!(html.contains("Last 4 probes, newest right, 3 failed</span>"), "{html}");
        assert!(html.contains("<span>top 1.00 ms</span>"), "{html}");
        assert!(!html.contains("Last error") && !html.contains("Stuck"), "{html}");
        status.record(1, ok, now + Duration::from_secs(1));
        let html = page(status.probes(), now + Duration::from_secs(2));
        assert!(html.contains("<dt>Last error</dt><dd>SERVFAIL: "), "{html}");
        assert_eq!(html.matches("<script>").count(), 1);
    }

    #[test]
    fn the_page_needs_nothing_but_itself() {
        let status = Status::new([], Duration::ZERO, Moment::default());
        let html = page(status.probes(), Moment::default());
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn a_program_that_is_stuck_is_named_and_a_slow_one_sets_the_scale() {
        let now = Moment::default();
        let probe = "cache,::1,x.y".parse().unwrap();
        let mut status = Status::new([probe], Duration::ZERO, now);
        let latency = Duration::from_millis(40);
        status.record(0, Outcome { latency, result: Ok(()), replied: true }, now);
        let result = Err(Failure::Timeout { after: Duration::from_millis(2_500) });
        for _ in 0..3 {
            let outcome = Outcome { latency, result: result.clone(), replied: false };
            status.record(0, outcome, now);
        }
        let html = page(status.probes(), now);
        assert!(html.contains("<span>top 40.00 ms</span>"), "{html}");
        assert!(html.contains("<dt>Stuck</dt><dd>no reply at all to the last probes</dd>"));
        assert!(html.contains("<dt>Reason</dt><dd>no answer within 2.5 s</dd>"), "{html}");
    }

    #[test]
    fn names_break_behind_dots_and_numbers_do_not() {
        let rows = [
            (
                "127.0.0.1:53 web.shop.svc A",
                "127.0.0.1:53 <span class=\"name\">web.<wbr>shop.<wbr>svc</span> A",
            ),
            ("0.41 ms", "0.41 ms"),
            ("ends.", "ends."),
            (".x", ".x"),
            ("*.a.b &lt;b&gt;", "<span class=\"name\">*.a.<wbr>b</span> &lt;b&gt;"),
            ("_http._tcp.x", "<span class=\"name\">_http.<wbr>_tcp.<wbr>x</span>"),
            ("", ""),
        ];
        for (text, html) in rows {
            assert_eq!(breakable(text), html);
        }
    }
}
