//! Splits text into tokens: words, quoted texts and braces, each with its place.
//!
//! Core. The rules are those of CoreDNS's lexer, including its oddities: a quote opens only at the
//! beginning of a word, and a `#` inside a word hides the rest of that word.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A word of a Corefile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The word, without its quotes.
    pub text: String,
    /// The place at which it begins.
    pub place: Place,
    /// Whether it is the first of its line.
    pub begins_line: bool,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file's name, as on the command line or in the `import`.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.in_file(), self.column)
    }
}

impl Place {
    /// Returns the file and the line.
    pub fn in_file(&self) -> String {
        format!("{}:{}", printable(&self.file), self.line)
    }
}

/// Returns `text` in one line: control characters, which names of files can also contain, become
/// blanks.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        text.replace(char::is_control, " ").into()
    } else {
        text.into()
    }
}

/// Returns the tokens of `text`, which is the content of `file`.
///
/// An open quote ends at the end of the file.
pub fn tokens(file: &Arc<str>, text: &str) -> Vec<Token> {
    Lexer { file, line: 1, column: 0, line_of_last: 0, tokens: Vec::new() }.run(text)
}

struct Lexer<'f> {
    file: &'f Arc<str>,
    /// The line of the last character that was read.
    line: u32,
    column: u32,
    /// The line on which the last token ended.
    line_of_last: u32,
    tokens: Vec<Token>,
}

/// The token of the next character.
enum Inside {
    /// White space.
    Nothing,
    /// A comment up to the end of the line.
    Comment,
    Word(Word),
    /// The part of a word after a `#`, which is ignored.
    Hidden(Word),
    /// A quoted text, and whether the last character was a backslash.
    Quoted(Word, bool),
}

/// A token that has begun.
struct Word {
    text: String,
    place: Place,
}

impl Lexer<'_> {
    fn run(mut self, text: &str) -> Vec<Token> {
        let mut inside = Inside::Nothing;
        for character in text.strip_prefix('\u{feff}').unwrap_or(text).chars() {
            self.column += 1;
            inside = self.step(inside, character);
            if character == '\n' {
                self.line += 1;
                self.column = 0;
            }
        }
        match inside {
            Inside::Word(word) | Inside::Hidden(word) => self.push(word),
            Inside::Quoted(word, _) if !word.text.is_empty() => self.push(word),
            Inside::Quoted(..) | Inside::Nothing | Inside::Comment => {}
        }
        self.tokens
    }

    fn step(&mut self, inside: Inside, character: char) -> Inside {
        match (inside, character) {
            (Inside::Quoted(word, false), '"') => {
                self.push(word);
                Inside::Nothing
            }
            (Inside::Quoted(word, false), '\\') => Inside::Quoted(word, true),
            (Inside::Quoted(mut word, escaped), character) => {
                if escaped && character != '"' {
                    word.text.push('\\');
                }
                word.text.push(character);
                Inside::Quoted(word, false)
            }
            (inside, '\r') => inside,
            (Inside::Word(word) | Inside::Hidden(word), character) if character.is_whitespace() => {
                self.push(word);
                Inside::Nothing
            }
            (Inside::Comment, '\n') => Inside::Nothing,
            (inside @ (Inside::Comment | Inside::Hidden(_)), _) => inside,
            (Inside::Word(word), '#') => Inside::Hidden(word),
            (Inside::Word(mut word), character) => {
                word.text.push(character);
                Inside::Word(word)
            }
            (Inside::Nothing, '#') => Inside::Comment,
            (Inside::Nothing, character) if character.is_whitespace() => Inside::Nothing,
            (Inside::Nothing, '"') => Inside::Quoted(self.word(), false),
            (Inside::Nothing, character) => {
                let mut word = self.word();
                word.text.push(character);
                Inside::Word(word)
            }
        }
    }

    fn word(&self) -> Word {
        let (file, line, column) = (Arc::clone(self.file), self.line, self.column);
        Word { text: String::new(), place: Place { file, line, column } }
    }

    fn push(&mut self, Word { text, place }: Word) {
        let begins_line = place.line > self.line_of_last;
        self.line_of_last = self.line;
        self.tokens.push(Token { text, place, begins_line });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the words of `text` with their lines and columns; `|` is before the first of a line.
    fn read(text: &str) -> Vec<String> {
        let show = |token: &Token| {
            let mark = if token.begins_line { "|" } else { "" };
            format!("{mark}{} {}:{}", token.text, token.place.line, token.place.column)
        };
        tokens(&"Corefile".into(), text).iter().map(show).collect()
    }

    #[test]
    fn words_quotes_comments_and_lines() {
        let rows: [(&str, &[&str]); 20] = [
            ("", &[]),
            ("a  b\n\tc", &["|a 1:1", "b 1:4", "|c 2:2"]),
            ("\u{feff}a", &["|a 1:1"]),
            ("a\r\nb", &["|a 1:1", "|b 2:1"]),
            ("a\rb", &["|ab 1:1"]),
            ("# a\nb # c\nd", &["|b 2:1", "|d 3:1"]),
            ("errors#foo bar", &["|errors 1:1", "bar 1:12"]),
            ("\"a b\" c", &["|a b 1:1", "c 1:7"]),
            ("a\"b c\"", &["|a\"b 1:1", "c\" 1:5"]),
            ("\"a\"b", &["|a 1:1", "b 1:4"]),
            ("x \"\" y", &["|x 1:1", " 1:3", "y 1:6"]),
            ("\"a\\\"b\"", &["|a\"b 1:1"]),
            ("\"a\\nb\\\\\"", &["|a\\nb\\\\ 1:1"]),
            ("\"a # b\" c", &["|a # b 1:1", "c 1:9"]),
            ("\"a\nb\" c\nd", &["|a\nb 1:1", "c 2:4", "|d 3:1"]),
            ("'a b'", &["|'a 1:1", "b' 1:4"]),
            ("a \"open", &["|a 1:1", "open 1:3"]),
            ("a \"", &["|a 1:1"]),
            ("cache 30{", &["|cache 1:1", "30{ 1:7"]),
            ("é ü", &["|é 1:1", "ü 1:3"]),
        ];
        for (text, expected) in rows {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }
}
