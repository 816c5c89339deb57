//! The status page for people: one HTML document with a style sheet and a script of its own.
//!
//! Core: status, view and time in, HTML out. Every text from outside is escaped; a server's own
//! words may come with a failure.

mod charts;
pub(crate) mod html;
mod sections;

use std::fmt::Write;
use std::time::Duration;

use shared::clock::Moment;

use crate::config::counted;
use crate::report::{duration, milliseconds, question};
use crate::status::{HISTORY_MAX, Record, State, overall};
use crate::view::View;
use html::{escape, row};

/// The style sheet.
pub const STYLE: &str = include_str!("page/page.css");
/// The script, which renews the page every two seconds. Without it, the page renews itself every
/// five.
pub const SCRIPT: &str = include_str!("page/page.js");
const PAGE: &str = include_str!("page/page.html");

/// The page on `records` and `view` at `now`. `may_see` if the client may know what others ask for.
pub fn page(records: &[Record], view: &View, may_see: bool, now: Moment) -> String {
    let state = overall(records, now);
    let title = match state {
        State::Healthy => "Healthy",
        State::Waiting => "Waiting",
        State::Unhealthy => "Unhealthy",
    };
    fill(|place| match place {
        "version" => env!("CARGO_PKG_VERSION").to_owned(),
        "title" => title.to_owned(),
        "state" => state.name().to_owned(),
        "lead" => lead(records, now) + &sections::remarks(view),
        "alerts" => sections::alerts(view),
        "tiles" => sections::tiles(view),
        "charts" => charts::charts(&view.history),
        "upstreams" => sections::upstreams(view),
        "answers" => sections::answers(view),
        "cache" => sections::cache(view),
        "cluster" => sections::cluster(view),
        "tops" => sections::tops(view, may_see),
        "cards" => records.iter().map(|record| card(record, now)).collect(),
        other => unreachable!("page.html has a place {other:?}"),
    })
}

/// The page with each `{{place}}` filled.
fn fill(value: impl Fn(&str) -> String) -> String {
    let mut parts = PAGE.split("{{");
    let mut page = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (place, rest) = part.split_once("}}").expect("every place of page.html is closed");
        page += &value(place);
        page += rest;
    }
    page
}

/// What to know before any detail.
fn lead(records: &[Record], now: Moment) -> String {
    let state = overall(records, now);
    let those = records.iter().filter(|record| record.health(now).state == state);
    let labels = those.map(|record| escape(&record.probe.label)).collect::<Vec<_>>().join(", ");
    match state {
        State::Healthy => "Every program that is probed answers.".to_owned(),
        State::Waiting => format!("No answer yet from: {labels}."),
        State::Unhealthy => format!("No good answer from: {labels}."),
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
         <h2 id=\"probe-{label}\">{label} <small class=\"pill\">{state}</small></h2>\n{chart}\
         <dl>\n{rows}</dl>\n</section>\n"
    )
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
        "<div class=\"spark\"><svg viewBox=\"0 0 {} 28\" preserveAspectRatio=\"none\" \
         role=\"img\" aria-label=\"Last {last}: {failures} failed, slowest answer \
         {slowest}\">{bars}</svg></div>\n<p class=\"scale\"><span>Last {last}, newest right, \
         {failures} failed</span> <span>{scale}</span></p>\n",
        HISTORY_MAX * 4
    )
}

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
        assert!(
            page(status.probes(), &View::default(), true, now)
                .contains("No answer yet from: kubedns, cache.")
        );
        let latency = Duration::from_micros(410);
        let ok = Outcome { latency, result: Ok(()), replied: true };
        for index in 0..2 {
            status.record(index, ok.clone(), now);
        }
        let html = page(status.probes(), &View::default(), true, now);
        assert!(html.contains("<title>Healthy") && html.contains("<dd>0.41 ms</dd>"), "{html}");
        assert!(!html.contains("Last error") && html.contains("Last 1 probe,"), "{html}");
        let error = Some("<script>alert('x')</script>".to_owned());
        let result = Err(Failure::Rcode { code: 2, error });
        for _ in 0..3 {
            let outcome = Outcome { latency, result: result.clone(), replied: true };
            status.record(1, outcome, now);
        }
        let html = page(status.probes(), &View::default(), true, now);
        assert!(html.contains("<title>Unhealthy") && html.contains("from: cache."), "{html}");
        let escaped = "SERVFAIL: &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;";
        assert!(html.contains(escaped), "{html}");
        assert!(html.contains("Last 4 probes: 3 failed, slowest answer 0.41 ms"));
        assert!(html.contains("Last 4 probes, newest right, 3 failed</span>"), "{html}");
        assert!(html.contains("<span>top 1.00 ms</span>"), "{html}");
        assert!(!html.contains("Last error") && !html.contains("Stuck"), "{html}");
        status.record(1, ok, now + Duration::from_secs(1));
        let html = page(status.probes(), &View::default(), true, now + Duration::from_secs(2));
        assert!(html.contains("<dt>Last error</dt><dd>SERVFAIL: "), "{html}");
        assert!(!html.contains("<script>"), "{html}");
    }

    #[test]
    fn the_page_needs_nothing_but_itself() {
        let status = Status::new([], Duration::ZERO, Moment::default());
        let html = page(status.probes(), &View::default(), true, Moment::default());
        for outside in ["http://", "https://", "@import", "url("] {
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
        let html = page(status.probes(), &View::default(), true, now);
        assert!(html.contains("<span>top 40.00 ms</span>"), "{html}");
        assert!(html.contains("<dt>Stuck</dt><dd>no reply at all to the last probes</dd>"));
        assert!(html.contains("<dt>Reason</dt><dd>no answer within 2.5 s</dd>"), "{html}");
    }
}
