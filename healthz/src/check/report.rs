//! The report: one line for each check, or JSON for programs.
//!
//! Core. Findings in, text out.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::facts::Facts;
use super::judge::{CHECKS, Check, Finding, Judged};

/// What became of every check that was asked for.
#[derive(Debug)]
pub struct Report {
    rows: Vec<(&'static Check, Judged)>,
    took: Duration,
}

impl Report {
    /// Judges `facts` by the checks of `categories`, or by all if there is none.
    pub fn of(facts: &Facts, categories: &[String], took: Duration) -> Self {
        let is_wanted = |check: &&Check| {
            categories.is_empty() || categories.iter().any(|name| name == check.category)
        };
        let rows = CHECKS.iter().filter(is_wanted).map(|check| (check, (check.judge)(facts)));
        Self { rows: rows.collect(), took }
    }

    /// Whether no check found a fault; warnings are not faults.
    pub fn is_success(&self) -> bool {
        !self.rows.iter().any(|(_, judged)| matches!(judged, Ok(Finding::Wrong { .. })))
    }

    /// Every sentence that says what is wrong, faults first.
    pub fn advice(&self) -> Vec<&str> {
        let mut wrong = Vec::new();
        let mut warnings = Vec::new();
        for (_, judged) in &self.rows {
            match judged {
                Ok(Finding::Wrong { advice, .. }) => wrong.push(advice.as_str()),
                Ok(Finding::Warning { advice, .. }) => warnings.push(advice.as_str()),
                _ => {}
            }
        }
        wrong.extend(warnings);
        wrong
    }

    /// The report as text: headings, one line for each check, and an indented sentence below those
    /// that found something. If `is_short`, only those. Neighbours that were not made for the same
    /// reason are one line.
    pub fn text(&self, is_short: bool) -> String {
        let mut text = String::new();
        let mut heading = "";
        let has_advice = |judged: &Judged| parts(judged).2.is_some();
        let rows = self.rows.iter().filter(|(_, judged)| !is_short || has_advice(judged));
        let mut rows = rows.peekable();
        while let Some((check, judged)) = rows.next() {
            if heading != check.category {
                heading = check.category;
                let gap = if text.is_empty() { "" } else { "\n" };
                let line = "-".repeat(heading.len());
                writeln!(text, "{gap}{heading}\n{line}").expect("a String takes all text");
            }
            let is_same = |(next, other): &&(&Check, Judged)| {
                judged.is_err() && judged == other && next.category == heading
            };
            let mut names = check.name.to_owned();
            while let Some((next, _)) = rows.next_if(is_same) {
                names = format!("{names}, {}", next.name);
            }
            text += &line(&names, judged);
        }
        let gap = if text.is_empty() { "" } else { "\n" };
        text + gap + &self.summary()
    }

    /// The last line.
    fn summary(&self) -> String {
        let (mut right, mut warnings, mut wrong, mut skipped) = (0, 0, 0, 0);
        for (_, judged) in &self.rows {
            match judged {
                Ok(Finding::Right(_)) => right += 1,
                Ok(Finding::Warning { .. }) => warnings += 1,
                Ok(Finding::Wrong { .. }) => wrong += 1,
                Err(_) => skipped += 1,
            }
        }
        let mark = if wrong > 0 { '×' } else { '√' };
        let secs = self.took.as_secs_f64();
        format!(
            "{mark} {right} right, {warnings} to look at, {wrong} wrong, {skipped} not checked, in \
             {secs:.1} s\n"
        )
    }

    /// The report for programs.
    pub fn json(&self) -> String {
        let checks = self.rows.iter().map(|(check, judged)| {
            let (result, seen, advice) = parts(judged);
            Row { category: check.category, name: check.name, result, seen, advice }
        });
        let report = Json {
            success: self.is_success(),
            seconds: (self.took.as_secs_f64() * 1e3).round() / 1e3,
            checks: checks.collect(),
        };
        serde_json::to_string_pretty(&report).expect("texts and numbers are JSON") + "\n"
    }
}

/// Every check with what it needs, without making any.
pub fn list() -> String {
    let mut text = String::new();
    for Check { category, name, needs, .. } in CHECKS {
        let needs = if needs.is_empty() { String::new() } else { format!(" (needs {needs})") };
        writeln!(text, "{category}: {name}{needs}").expect("a String takes all text");
    }
    text
}

fn line(names: &str, judged: &Judged) -> String {
    let (result, seen, advice) = parts(judged);
    let mark = match result {
        "success" => '√',
        "warning" => '‼',
        "error" => '×',
        _ => '–',
    };
    let reason = if result == "skipped" { "not checked: " } else { "" };
    let advice = advice.map_or_else(String::new, |advice| format!("    {}\n", clean(advice)));
    format!("{mark} {names}: {reason}{}\n{advice}", clean(seen))
}

/// One line without control characters: servers and API objects write parts of it.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The result as linkerd's check names it, what was seen, and the sentence.
fn parts(judged: &Judged) -> (&'static str, &str, Option<&str>) {
    match judged {
        Ok(Finding::Right(seen)) => ("success", seen, None),
        Ok(Finding::Warning { seen, advice }) => ("warning", seen, Some(advice)),
        Ok(Finding::Wrong { seen, advice }) => ("error", seen, Some(advice)),
        Err(reason) => ("skipped", reason, None),
    }
}

#[derive(Debug, Serialize)]
struct Json<'a> {
    success: bool,
    seconds: f64,
    checks: Vec<Row<'a>>,
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    category: &'a str,
    name: &'a str,
    result: &'a str,
    seen: &'a str,
    advice: Option<&'a str>,
}
