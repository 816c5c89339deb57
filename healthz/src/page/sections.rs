//! The parts of the status page that tell about dnscache and kubedns.
//!
//! Core. The view in, markup out. A part whose program cannot be read is a sentence.

use std::fmt::Write;

use super::html::{bytes, encoded, escape, micros, number, per_second, percent, row};
use crate::figures::{Figures, Pages};
use crate::view::{Top, View, key};

/// What is wrong with the answers although every probe succeeds; empty if nothing is.
pub fn remarks(view: &View) -> String {
    let now = view.history.newest().unwrap_or_default();
    let mut remarks = String::new();
    if now.queries > 0.0 && now.errors > now.queries * ERRORS_MAX {
        let share = percent(now.errors.into(), now.queries.into());
        remarks += &format!(" But {share} of all answers are SERVFAIL or REFUSED.");
    }
    if let Ok(Pages { figures, .. }) = &view.dnscache {
        let down = figures.by("dnscache_upstream_up", "server").filter(|(_, up)| *up == 0.0);
        let down: Vec<String> = down.map(|(server, _)| escape(server)).collect();
        if !down.is_empty() {
            remarks += &format!(" Upstream {} does not answer.", down.join(", "));
        }
    }
    match remarks.is_empty() {
        true => remarks,
        false => format!(" <strong class=\"bad-text\">{}</strong>", remarks.trim_start()),
    }
}

/// The figures that an operator looks at first.
pub fn tiles(view: &View) -> String {
    let Ok(Pages { figures, .. }) = &view.dnscache else {
        let reason = view.dnscache.as_ref().err().map_or("", |reason| reason.as_str());
        return format!("<p class=\"none\">No figures of dnscache: {}</p>\n", escape(reason));
    };
    let now = view.history.newest().unwrap_or_default();
    let (queries, hits) = (f64::from(now.queries), f64::from(now.hits));
    let (errors, denied) = (f64::from(now.errors), f64::from(now.denied));
    let stale = view.trend.rate(&key("dnscache_queries_total", "stale")).unwrap_or(0.0);
    let tone = |share: f64| if queries > 0.0 && errors > queries * share { "bad" } else { "" };
    let memory = figures.value("dnscache_cache_bytes", &[]).unwrap_or(0.0);
    let tiles = [
        ("", "Queries", per_second(queries), format!("{} from the cache", per_second(hits))),
        ("", "Hit rate", percent(hits, queries), format!("{} stale", per_second(stale))),
        (
            "",
            "p50 of an answer",
            micros(now.p50_us.into()),
            format!("p99 {}", micros(now.p99_us.into())),
        ),
        (
            tone(f64::from(ERRORS_MAX)),
            "SERVFAIL, REFUSED",
            percent(errors, queries),
            per_second(errors),
        ),
        ("", "NXDOMAIN", percent(denied, queries), per_second(denied)),
        (
            "",
            "Entries in the cache",
            number(figures.value("dnscache_cache_entries", &[]).unwrap_or(0.0)),
            bytes(memory),
        ),
    ];
    let tile = |(tone, term, value, below): (&str, &str, String, String)| {
        format!(
            "<section class=\"card tile {tone}\"><p>{term}</p><p class=\"value\">{value}</p>\
             <p>{below}</p></section>\n"
        )
    };
    format!("<div class=\"tiles\">\n{}</div>\n", tiles.map(tile).concat())
}

/// What the programs warn about themselves.
pub fn alerts(view: &View) -> String {
    let mut items = String::new();
    for (program, pages) in [("dnscache", &view.dnscache), ("kubedns", &view.kubedns)] {
        let Ok(pages) = pages else { continue };
        for line in pages.checks.iter().filter(|line| line.mark != '+') {
            let class = if line.mark == '-' { "bad" } else { "" };
            let text = format!("{}: {}", line.name, line.reason);
            writeln!(
                items,
                "<li class=\"{class}\"><strong>{program}</strong>{}</li>",
                escape(&text)
            )
            .expect("a String takes all text");
        }
    }
    if items.is_empty() { items } else { format!("<ul class=\"alerts\">\n{items}</ul>\n") }
}

/// Each server that dnscache asks.
pub fn upstreams(view: &View) -> String {
    let Ok(Pages { figures, .. }) = &view.dnscache else { return String::new() };
    let mut rows = String::new();
    for (server, up) in figures.by("dnscache_upstream_up", "server") {
        let labels = [("server", server)];
        let round_trip =
            figures.value("dnscache_upstream_round_trip_seconds", &labels).unwrap_or(0.0);
        let sent = key("dnscache_upstream_queries_total", server);
        let failed = key("dnscache_upstream_failures_total", server);
        let (rate, grown) =
            (view.trend.rate(&sent).unwrap_or(0.0), view.trend.grown(&sent).unwrap_or(0.0));
        let lost = view.trend.grown(&failed).unwrap_or(0.0);
        let (class, state) = if up > 0.0 { ("up", "up") } else { ("down", "down") };
        let tone = if grown > 0.0 && lost > grown * 0.05 { " class=\"bad-text\"" } else { "" };
        writeln!(
            rows,
            "<tr><td>{}</td><td class=\"{class}\">{state}</td><td>{}</td><td>{}</td>\
             <td{tone}>{}</td></tr>",
            escape(server),
            micros(round_trip * 1e6),
            per_second(rate),
            percent(lost, grown)
        )
        .expect("a String takes all text");
    }
    let heads = ["Server", "State", "RTT", "Asked", "No reply"];
    card("Upstreams", "last minute", &table("Upstreams", &heads, &rows))
}

/// Answers by response code.
pub fn answers(view: &View) -> String {
    let Ok(Pages { figures, .. }) = &view.dnscache else { return String::new() };
    let mut codes: Vec<(&str, f64)> = Vec::new();
    for (code, count) in figures.by("dnscache_dns_replies_total", "rcode") {
        match codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, sum)) => *sum += count,
            None => codes.push((code, count)),
        }
    }
    let all: f64 = codes.iter().map(|(_, count)| count).sum();
    codes.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut rows = String::new();
    for (code, count) in codes.into_iter().take(CODES_MAX) {
        let rate = view.trend.rate(&key("dnscache_dns_replies_total", code)).unwrap_or(0.0);
        let width = 100.0 * count / all.max(1.0);
        let class = if matches!(code, "NOERROR" | "NXDOMAIN") { "" } else { "bad" };
        writeln!(
            rows,
            "<tr><td>{}</td><td><svg class=\"bar\" viewBox=\"0 0 100 8\" \
             preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"rest\" width=\"100\" \
             height=\"8\"/><rect class=\"{class}\" width=\"{width:.1}\" \
             height=\"8\"/></svg></td><td>{}</td><td>{}</td></tr>",
            escape(code),
            percent(count, all),
            per_second(rate)
        )
        .expect("a String takes all text");
    }
    if rows.is_empty() {
        return card("Answers", "", "<p class=\"none\">No query yet.</p>");
    }
    let heads = ["Code", "", "Since start", "Last minute"];
    card("Answers", &format!("{} since start", number(all)), &table("Answers", &heads, &rows))
}

/// The cache in figures.
pub fn cache(view: &View) -> String {
    let Ok(Pages { figures, .. }) = &view.dnscache else { return String::new() };
    let value = |name: &str| figures.value(name, &[]).unwrap_or(0.0);
    let rate =
        |change| view.trend.rate(&key("dnscache_cache_changes_total", change)).unwrap_or(0.0);
    let results = |result| figures.sum("dnscache_queries_total", &[("result", result)]);
    let (streams, up) = (value("dnscache_change_streams"), value("dnscache_change_streams_up"));
    let rows = [
        (
            "Entries",
            format!(
                "{} in {}",
                number(value("dnscache_cache_entries")),
                bytes(value("dnscache_cache_bytes"))
            ),
        ),
        ("Stored", per_second(rate("insertion"))),
        ("Evicted", format!("{} before their time", per_second(rate("eviction")))),
        ("Stale", format!("{} answers since start", number(results("stale")))),
        ("Changes", format!("{} of {} streams of kubedns up", number(up), number(streams))),
        ("Turned away", format!("{} queries since start", number(turned_away(figures)))),
        ("Configuration", configuration("dnscache", figures, view)),
    ];
    let rows = rows.map(|(term, text)| row(term, &text)).concat();
    card("Cache", "dnscache", &format!("<dl>\n{rows}</dl>"))
}

fn turned_away(figures: &Figures) -> f64 {
    let of = |event| figures.sum("dnscache_dns_events_total", &[("event", event)]);
    of("shed") + of("dropped") + figures.sum("dnscache_dns_overflow_total", &[])
}

/// What became of changes of the configuration.
fn configuration(program: &str, figures: &Figures, view: &View) -> String {
    let loads = |result: &str| {
        let labels = [("result", result)];
        figures.sum(&format!("{program}_config_loads_total"), &labels)
            + figures.sum(&format!("{program}_corefile_loads_total"), &labels)
    };
    let (applied, refused) = (loads("applied"), loads("refused"));
    let changed = view.changed(program).map(crate::report::duration);
    let when = changed.map_or_else(
        || "no change since healthz started".to_owned(),
        |age| format!("changed {age} ago"),
    );
    match (applied, refused) {
        (_, 0.0) => when,
        _ => format!("{when}; {} refused since start", number(refused)),
    }
}

/// What kubedns has and how old it is.
pub fn cluster(view: &View) -> String {
    let figures = match &view.kubedns {
        Ok(Pages { figures, .. }) => figures,
        Err(reason) => {
            let text = format!("<p class=\"none\">No figures of kubedns: {}</p>", escape(reason));
            return card("Cluster", "kubedns", &text);
        }
    };
    let list = |name: &str, label: &str| {
        let all = figures.by(name, label).filter(|(_, count)| *count > 0.0);
        let all = all.map(|(kind, count)| format!("{} {}", number(count), kind.replace('_', " ")));
        all.collect::<Vec<_>>().join(", ")
    };
    let mut rows = row("Records", &list("kubedns_records", "type"));
    rows += &row("Services", &list("kubedns_services", "kind"));
    let endpoints = figures.value("kubedns_objects", &[("kind", "endpoints")]).unwrap_or(0.0);
    rows += &row("Endpoints", &number(endpoints));
    rows += &row("Watches", &watches(figures));
    if let Some(age) = figures.value("kubedns_snapshot_age_seconds", &[]) {
        rows += &row("Snapshot", &format!("{} s old", number(age)));
    }
    let serial = figures.value("kubedns_soa_serial", &[]).unwrap_or(0.0);
    let published = figures.value("kubedns_publications_total", &[]).unwrap_or(0.0);
    rows += &row("Zone", &format!("serial {serial:.0}, published {} times", number(published)));
    rows += &row("Configuration", &configuration("kubedns", figures, view));
    card("Cluster", "kubedns", &format!("<dl>\n{rows}</dl>"))
}

/// How old the last sign of life on each watch is.
fn watches(figures: &Figures) -> String {
    let ages = figures.by("kubedns_watch_age_seconds", "kind").map(|(kind, age)| {
        let is_well = figures.value("kubedns_watch_ok", &[("kind", kind)]) == Some(1.0);
        let state = if is_well { "" } else { " (fails)" };
        format!("{kind} {} s ago{state}", number(age))
    });
    let ages: Vec<String> = ages.collect();
    if ages.is_empty() { "objects come from files".to_owned() } else { ages.join(", ") }
}

/// Who and what is asked most. `may_see` if this client may know what others ask for.
pub fn tops(view: &View, may_see: bool) -> String {
    let lists = [
        ("name", "Names asked most"),
        ("nxdomain", "Names that do not exist"),
        ("client", "Clients that ask most"),
    ];
    if !may_see {
        return "<p class=\"none\">Names and clients are shown to clients on this machine: use \
        kubectl port-forward, or allow your address with --inspect-allow.</p>\n"
            .to_owned();
    }
    let cards = lists.map(|(by, title)| {
        let top = view.tops.iter().find(|top| top.by == by);
        let items = top.map(|top| list(top, by)).unwrap_or_default();
        let items = match items.is_empty() {
            true => "<p class=\"none\">None in the last minute, or dnscache takes no samples.</p>"
                .to_owned(),
            false => format!("<ol>\n{items}</ol>"),
        };
        card(title, "last minute", &items)
    });
    format!("<div class=\"columns\">\n{}</div>\n", cards.concat())
}

fn list(top: &Top, by: &str) -> String {
    let mut items = String::new();
    let mut hints = 0;
    for item in top.items.iter().take(TOP_MAX) {
        let shown = escape(item.key.trim_end_matches('.'));
        let shown = shown.replace('.', ".<wbr>");
        let shown = match (by, &item.pod) {
            ("client", Some(pod)) => format!("{shown} {}", escape(pod.trim_end_matches('.'))),
            ("client", None) => shown,
            _ => format!("<a href=\"/explain?name={}\">{shown}</a>", encoded(&item.key)),
        };
        let hint = item.hint.as_ref().filter(|_| hints < HINTS_MAX);
        hints += usize::from(hint.is_some());
        let hint =
            hint.map_or_else(String::new, |hint| format!("<p class=\"hint\">{}</p>", escape(hint)));
        writeln!(
            items,
            "<li><span>{shown}</span> <span>{}</span>{hint}</li>",
            per_second(item.rate)
        )
        .expect("a String takes all text");
    }
    items
}

/// A table that scrolls by itself if it is too wide; `rows` is markup.
fn table(label: &str, heads: &[&str], rows: &str) -> String {
    let head = |head: &&str| match head.is_empty() {
        true => "<td></td>".to_owned(),
        false => format!("<th scope=\"col\">{head}</th>"),
    };
    let heads: String = heads.iter().map(head).collect();
    format!(
        "<div class=\"table\" role=\"region\" aria-label=\"{label}\" tabindex=\"0\"><table>\
         <thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>"
    )
}

fn card(title: &str, note: &str, content: &str) -> String {
    format!(
        "<section class=\"card\">\n<h2>{title} <small>{note}</small></h2>\n{content}\n</section>\n"
    )
}

/// The share of failed answers from which on they are a remark.
const ERRORS_MAX: f32 = 0.01;
/// Rows of the list of response codes.
const CODES_MAX: usize = 6;
/// Rows of each list of heavy hitters.
const TOP_MAX: usize = 10;
/// Hints of each list: those below repeat them.
const HINTS_MAX: usize = 3;
