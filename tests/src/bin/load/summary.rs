//! The output of the load test: a line a second while it runs, and a summary at the end.
//!
//! Core, except for the line a second.

use std::fmt::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use shared::mnemonics::{rcode_name, type_name};
use shared::name::bare;
use shared::wire::name_end;
use std::borrow::Cow;

use crate::counters::Cache;
use crate::generator::{Tally, is_failure};

/// Returns the sum of all `stretches`, of any number of threads. Calls `show` for each second since
/// `start`, with the results of that second and the time so far.
pub fn gather(
    stretches: &Receiver<Tally>,
    start: Instant,
    mut show: impl FnMut(&Tally, Duration),
) -> Tally {
    let (mut total, mut second) = (Tally::new(), Tally::new());
    let mut elapsed = EVERY;
    loop {
        match stretches.recv_timeout((elapsed + GRACE).saturating_sub(start.elapsed())) {
            Ok(stretch) => {
                total.add(&stretch);
                second.add(&stretch);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => show(&second, elapsed),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        second = Tally::new();
        elapsed += EVERY;
    }
    if second.sent + second.answered + second.lost > 0 {
        show(&second, start.elapsed());
    }
    total
}

/// Prints one stretch to standard error, with its hit rate if the server counts hits.
pub fn progress(stretch: &Tally, elapsed: Duration, cache: Option<Cache>) {
    let rate = cache.and_then(Cache::hit_rate);
    let rate = rate.map_or_else(String::new, |rate| format!("  hit rate {:.2} %", 100.0 * rate));
    eprintln!(
        "{:>4.0} s  {:>9} answers  p50 {:>6} us  p99 {:>6} us  lost {}{rate}",
        elapsed.as_secs_f64(),
        stretch.answered,
        stretch.latency.value_at_quantile(0.5),
        stretch.latency.value_at_quantile(0.99),
        stretch.lost,
    );
}

/// Returns the summary as text.
///
/// `upstream` is the hit rate that the upstream has measured.
pub fn text(total: &Tally, took: Duration, cache: Option<Cache>, upstream: Option<f64>) -> String {
    let rate = total.answered as f64 / took.as_secs_f64();
    let percent = |part: u64| 100.0 * part as f64 / total.sent.max(1) as f64;
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        writeln!(text, "{label:<12}{value}").expect("a string takes all text");
    };
    line("asked", format!("{} in {:.1} s", total.sent, took.as_secs_f64()));
    line("answered", format!("{} ({:.0} per second)", total.answered, rate));
    line("lost", format!("{} ({:.3} %)", total.lost, percent(total.lost)));
    if total.strange > 0 {
        line("strange", format!("{} messages that answer no question", total.strange));
    }
    if total.different > 0 {
        let what = "answers that differ from the first to their question";
        line("different", format!("{} {what}", total.different));
    }
    line(
        "codes",
        codes(total).map(|(code, n)| format!("{code} {n}")).collect::<Vec<_>>().join(", "),
    );
    failures(total).for_each(|failure| line("failed", failure));
    let at = |quantile| total.latency.value_at_quantile(quantile);
    line(
        "latency us",
        format!(
            "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            total.latency.max()
        ),
    );
    match cache.and_then(|cache| cache.hit_rate().map(|rate| (cache, rate))) {
        Some((cache, rate)) => line(
            "hit rate",
            format!("{:.2} % ({} hits, {} misses)", 100.0 * rate, cache.hits, cache.misses),
        ),
        None => line("hit rate", "the server does not tell".to_owned()),
    }
    if let Some(rate) = upstream {
        line("", format!("{:.2} % by what its upstream saw", 100.0 * rate));
    }
    text
}

/// Returns a line for each response code that is a failure: its share, an example, and what to
/// check.
fn failures(total: &Tally) -> impl Iterator<Item = String> {
    let codes = (0..total.rcodes.len()).filter(|&code| is_failure(code) && total.rcodes[code] > 0);
    codes.map(|code| {
        let percent = 100.0 * total.rcodes[code] as f64 / total.answered.max(1) as f64;
        let example = total.failed[code].as_deref().and_then(written);
        let example = example.map_or_else(String::new, |text| format!(", such as {text}"));
        let name = rcode_name(code as u16);
        let hint = match &*name {
            "SERVFAIL" => {
                "the server got no answer from its upstream, or has none (`cargo pod -- --server \
                 ADDR` gives one to names outside the cluster)"
            }
            "REFUSED" => "the server does not serve these names, or not to this client",
            "FORMERR" => "the server cannot read these questions",
            "NOTIMP" => "the server does not know this kind of question",
            _ => "the server did not answer these questions",
        };
        format!("{name} {percent:.1} %{example}: {hint}")
    })
}

/// Returns a question in wire form as `name TYPE`.
fn written(question: &[u8]) -> Option<String> {
    let end = name_end(question, 0)?;
    let qtype = u16::from_be_bytes(*question.get(end..)?.first_chunk()?);
    Some(format!("{} {}", bare(&question[..end]), type_name(qtype)))
}

/// Returns the summary as JSON.
pub fn json(
    total: &Tally,
    took: Duration,
    cache: Option<Cache>,
    upstream: Option<f64>,
) -> serde_json::Value {
    let at = |quantile| total.latency.value_at_quantile(quantile);
    serde_json::json!({
        "seconds": took.as_secs_f64(),
        "sent": total.sent,
        "answered": total.answered,
        "lost": total.lost,
        "strange": total.strange,
        "different": total.different,
        "answers_per_second": total.answered as f64 / took.as_secs_f64(),
        "rcodes": codes(total).collect::<std::collections::BTreeMap<_, _>>(),
        "latency_us": {
            "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999),
            "max": total.latency.max(),
        },
        "hits": cache.map(|cache| cache.hits),
        "misses": cache.map(|cache| cache.misses),
        "hit_rate": cache.and_then(Cache::hit_rate),
        "hit_rate_by_upstream": upstream,
    })
}

fn codes(total: &Tally) -> impl Iterator<Item = (Cow<'static, str>, u64)> {
    (0..).map(rcode_name).zip(total.rcodes).filter(|(_, count)| *count > 0)
}

/// How often a line is printed.
const EVERY: Duration = Duration::from_secs(1);
/// How much later than its second a stretch may arrive.
const GRACE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_say_of_a_second_is_one_line() {
        let (sender, stretches) = std::sync::mpsc::channel();
        for _ in 0..8 {
            let mut stretch = Tally::new();
            (stretch.sent, stretch.answered) = (3, 2);
            sender.send(stretch).unwrap();
        }
        drop(sender);
        let mut lines = Vec::new();
        let total = gather(&stretches, Instant::now(), |second, _| lines.push(second.answered));
        assert_eq!((total.sent, total.answered, lines), (24, 16, vec![16]));
    }

    #[test]
    fn the_summary_says_what_happened() {
        let mut total = Tally::new();
        total.sent = 10;
        total.answered = 9;
        total.lost = 1;
        total.rcodes[0] = 6;
        total.rcodes[3] = 3;
        (1..=9).for_each(|us| total.latency.record(us * 10).unwrap());
        let cache = Some(Cache { hits: 3, misses: 6 });
        let text = text(&total, Duration::from_secs(3), cache, Some(0.3333));
        for part in
            ["answered    9 (3 per second)", "10.000 %", "NOERROR 6, NXDOMAIN 3", "33.33 % by"]
        {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("failed"), "{text}");
        let json = json(&total, Duration::from_secs(3), cache, None);
        assert_eq!(json["latency_us"]["p50"], 50);
        assert_eq!(json["rcodes"]["NXDOMAIN"], 3);
    }

    #[test]
    fn failures_are_named_with_their_share_an_example_and_a_hint() {
        let mut total = Tally::new();
        (total.sent, total.answered) = (100, 100);
        (total.rcodes[0], total.rcodes[2], total.rcodes[3], total.rcodes[5]) = (60, 10, 25, 5);
        let question = crate::workload::question("www.example.com", 28);
        total.failed[2] = Some(question[12..].into());
        let text = text(&total, Duration::from_secs(1), None, None);
        let servfail = "failed      SERVFAIL 10.0 %, such as www.example.com AAAA: the server got \
            no answer from its upstream, or has none (`cargo pod -- --server ADDR`";
        for part in [servfail, "failed      REFUSED 5.0 %: the server does not serve these names"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(!text.contains("failed      NXDOMAIN"), "a denial is an answer: {text}");
        assert_eq!(written(b"\x01a\0\xff\x01\0\x01").as_deref(), Some("a TYPE65281"));
        assert_eq!(written(b"\x01"), None);
    }
}
