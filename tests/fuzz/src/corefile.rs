//! Parses any bytes as a Corefile. The result must be an error with its place, or blocks that stay
//! the same if they are written and parsed again. Each of their lines must have a result.

use shared::corefile::plan::{Surroundings, plan};
use shared::corefile::{Corefile, Error, Line, Outside, Text, Token, parse};

/// Parses `bytes`. The text after the first NUL is the imported file.
pub fn corefile(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (main, other) = text.split_once('\0').unwrap_or((&text, ""));
    let parsed = match read(main, other) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error:?}");
            let Error { place, reason } = error;
            let lines = main.lines().count().max(other.lines().count()).max(1);
            assert!((1..=lines).contains(&(place.line as usize)), "{place}: {reason}");
            assert!(place.column > 0 && !reason.is_empty());
            return;
        }
    };
    let planned = plan(&parsed, Surroundings::default());
    for row in &planned.rows {
        let texts = [&row.rules, &row.built_in, &row.refused];
        let is_settled = !row.settings.is_empty() || texts.iter().any(|it| !it.is_empty());
        assert!(is_settled, "nothing becomes of {:?}", row.text);
    }
    for refusal in planned.refusals() {
        assert!(!refusal.contains('\n'), "{refusal:?}");
    }
    if let Some(written) = written(&parsed) {
        let again = read(&written, "").unwrap_or_else(|error| panic!("{error} in {written:?}"));
        assert_eq!(words(&again), words(&parsed), "{written:?}");
    }
}

fn read(main: &str, other: &str) -> Result<Corefile, Error> {
    let mut read = |path: &str| {
        let text = if path == "Corefile" { main } else { other };
        let is_absent = path.starts_with("absent");
        let text = Text { path: path.to_owned(), text: text.to_owned() };
        if is_absent { Err("No such file".to_owned()) } else { Ok(vec![text]) }
    };
    let variable = |name: &str| (name == "A").then(|| "a.example".to_owned());
    parse("Corefile", Outside { read: &mut read, variable: &variable })
}

/// Returns all words, block by block and line by line.
fn words(corefile: &Corefile) -> Vec<Vec<&str>> {
    let mut all = Vec::new();
    for block in &corefile.blocks {
        all.push(block.keys.iter().map(|token| token.text.as_str()).collect());
        for directive in &block.directives {
            for line in std::iter::once(&directive.line).chain(&directive.options) {
                let words = std::iter::once(&line.name).chain(&line.arguments);
                all.push(words.map(|token| token.text.as_str()).collect());
            }
        }
    }
    all
}

/// Returns the blocks as text, with all words in quotes, or `None` if quotes would change the
/// meaning of a word.
fn written(corefile: &Corefile) -> Option<String> {
    let mut text = String::new();
    for block in &corefile.blocks {
        let is_snippet = |key: &Token| key.text.starts_with('(') && key.text.ends_with(')');
        let is_odd = |key: &Token| key.text.ends_with(',') || is_snippet(key);
        if block.keys.iter().any(is_odd) {
            return None;
        }
        line(&mut text, &block.keys.iter().collect::<Vec<_>>())?;
        text += " {\n";
        for directive in &block.directives {
            line(&mut text, &tokens(&directive.line))?;
            text += " {\n";
            for option in &directive.options {
                line(&mut text, &tokens(option))?;
                text.push('\n');
            }
            text += "}\n";
        }
        text += "}\n";
    }
    Some(text)
}

fn tokens(line: &Line) -> Vec<&Token> {
    std::iter::once(&line.name).chain(&line.arguments).collect()
}

fn line(text: &mut String, tokens: &[&Token]) -> Option<()> {
    for (at, token) in tokens.iter().enumerate() {
        let word = &token.text;
        let means_more = word.contains("{$") || word.contains("{%") || word.ends_with('\\');
        let is_brace = ["{", "}"].contains(&word.as_str()) || at == 0 && word == "import";
        // A backslash before a quote cannot be written.
        if means_more || is_brace || word.contains("\\\"") {
            return None;
        }
        *text += &format!("\"{}\" ", word.replace('"', "\\\""));
    }
    Some(())
}
