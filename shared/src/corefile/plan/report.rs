//! Reports of a plan: a table, and JSON.
//!
//! Core.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Plan, Program, Row, Setting, is_live};

/// Returns the plan as a table: file and line, the words, and their meaning.
pub fn table(plan: &Plan) -> String {
    let place = |row: &Row| row.place.in_file();
    let words = |row: &Row| format!("{}{}", if row.is_option { "  " } else { "" }, row.text);
    let width = |text: &dyn Fn(&Row) -> String, max: usize| {
        plan.rows.iter().map(|row| text(row).chars().count()).max().unwrap_or(0).min(max)
    };
    let widths = [width(&place, PLACE_WIDTH_MAX), width(&words, WORDS_WIDTH_MAX)];
    let mut table = String::new();
    let mut line = |place: &str, words: &str, said: &str| {
        let [first, second] = widths;
        writeln!(table, "{place:first$}  {words:second$}  {said}")
            .expect("a String takes all text");
    };
    line("LINE", "DIRECTIVE", "RESULT");
    for row in &plan.rows {
        line(&place(row), &words(row), &result(row));
    }
    let refused = plan.rows.iter().filter(|row| !row.refused.is_empty()).count();
    let needs_restart = plan.rows.iter().any(|row| row.settings().any(|it| !live(it)));
    if needs_restart {
        table += "(*) a change of this flag is applied by a restart of the program\n";
    }
    match refused {
        0 => table += "nothing is refused\n",
        1 => table += "1 line is refused\n",
        count => writeln!(table, "{count} lines are refused").expect("a String takes all text"),
    }
    table
}

/// Returns the plan as JSON: `{"refused": COUNT, "lines": [{...}]}`.
pub fn json(plan: &Plan) -> Value {
    let row = |row: &Row| {
        let setting = |setting: &Setting| {
            json!({
                "program": setting.program.name(),
                "flag": setting.argument(),
                "change_needs_restart": !live(setting),
            })
        };
        json!({
            "file": &*row.place.file,
            "line": row.place.line,
            "column": row.place.column,
            "directive": row.text,
            "option": row.is_option,
            "result": state(row),
            "flags": row.settings().map(setting).collect::<Vec<_>>(),
            "rules": row.rules,
            "built_in": row.built_in,
            "reasons": row.refused,
        })
    };
    let refused = plan.rows.iter().filter(|row| !row.refused.is_empty()).count();
    json!({ "refused": refused, "lines": plan.rows.iter().map(row).collect::<Vec<_>>() })
}

fn live(setting: &Setting) -> bool {
    is_live(setting.program, setting.flag)
}

fn state(row: &Row) -> &'static str {
    match row {
        row if !row.refused.is_empty() => "refused",
        row if !row.settings.is_empty() || !row.rules.is_empty() => "mapped",
        _ => "built in",
    }
}

fn result(row: &Row) -> String {
    if !row.refused.is_empty() {
        return format!("refused: {}", row.refused.join("; "));
    }
    let mut parts = Vec::new();
    for program in [Program::Kubedns, Program::Dnscache] {
        let settings = row.settings().filter(|setting| setting.program == program);
        let flags: Vec<String> = settings
            .map(|setting| {
                let mark = if live(setting) { "" } else { " (*)" };
                format!("{}{mark}", setting.argument())
            })
            .collect();
        if !flags.is_empty() {
            parts.push(format!("mapped to {} {}", program.name(), flags.join(" ")));
        }
    }
    if !row.rules.is_empty() {
        parts.push(format!("mapped to dnscache's {}", row.rules.join(", ")));
    }
    if !row.built_in.is_empty() {
        parts.push(format!("built in: {}", row.built_in.join("; ")));
    }
    parts.join("; ")
}

/// Longer texts do not widen their column.
const PLACE_WIDTH_MAX: usize = 40;
/// Longer texts do not widen their column.
const WORDS_WIDTH_MAX: usize = 56;
