//! The laws of prose: words that plain English does without, in comments, help texts and Markdown.
//!
//! CONTRIBUTING.md, "Prose", has the rules. This file must not judge whole sentences: it refuses
//! words that hide the actor or the condition.

use super::Breach;
use super::tree::File;

/// Returns where `files` use a banned word more often than [`EXCEPTIONS`] allows, and the
/// exceptions that are too high: the list must only shrink.
pub fn breaches(files: &[File]) -> Vec<Breach> {
    files.iter().flat_map(|file| of_file(&file.path, &file.text)).collect()
}

/// The breaches of one file.
fn of_file(path: &str, text: &str) -> Vec<Breach> {
    let allowed = EXCEPTIONS.iter().find(|(file, _)| *file == path).map_or(0, |&(_, lines)| lines);
    let found = found(path, text);
    if found.len() < allowed {
        let law = format!("has {} lines with banned words: lower its exception", found.len());
        return vec![Breach::new(path, 1, law)];
    }
    let breach = |(line, word): (usize, &str)| {
        Breach::new(path, line, format!("\"{word}\": name the actor or the condition"))
    };
    let is_over = found.len() > allowed;
    found.into_iter().filter(|_| is_over).map(breach).collect()
}

/// The lines of prose in `text` that have a banned word, and the word.
fn found<'t>(path: &str, text: &'t str) -> Vec<(usize, &'static str)> {
    let is_prose: fn(&'t str) -> Option<&'t str> = match path.rsplit('.').next() {
        Some("rs") => |line| line.trim_start().strip_prefix("//"),
        Some("md") => Some,
        _ => return Vec::new(),
    };
    let lines = (1..).zip(text.lines().map(is_prose));
    lines.filter_map(|(line, prose)| Some((line, banned(prose?)?))).collect()
}

/// The first banned word or phrase in `prose`, outside code.
fn banned(prose: &str) -> Option<&'static str> {
    let text: String = prose.split('`').step_by(2).collect::<Vec<_>>().join(" code ");
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '\'');
    let words: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    BANNED.into_iter().find(|phrase| {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        words.windows(phrase.len()).any(|window| window == phrase)
    })
}

/// Words that hide the actor, data that speaks, and negations that plain English writes otherwise.
const BANNED: [&str; 12] = [
    "whoever",
    "whomever",
    "nobody",
    "somebody",
    "anybody",
    "yields",
    "tells",
    "hears",
    "nothing where",
    "none where",
    "where there is no",
    "is no name",
];

/// Files with lines that still have such a word, and how many. Shorten this list; never add to it.
const EXCEPTIONS: [(&str, usize); 0] = [];

#[test]
fn a_banned_word_is_found_and_an_exception_must_not_be_too_high() {
    assert_eq!(found("a.rs", "/// If nobody asks.\nlet nobody = 1;\n"), [(1, "nobody")]);
    assert_eq!(
        found("a.md", "A\nNothing, where\nhe tells.\n"),
        [(2, "nothing where"), (3, "tells")]
    );
    assert_eq!(found("a.yaml", "# nobody\n"), []);
    assert_eq!(found("a.md", "Set it to `nobody`.\n"), []);
    assert_eq!(of_file("a.md", "The client asks.\n"), []);
    assert_eq!(of_file("a.md", "Whoever asks.\n").len(), 1);
}
