//! Parses tokens into server blocks. Snippets and imports are replaced by their lines.
//!
//! Core. Independent of plugins; a function reads the imported files. The rules are those of
//! CoreDNS's parser, except for a few inputs that it accepts by accident: they are errors here.
//!
//! ```text
//! Corefile ─▶ Block { keys, directives } ─▶ Directive { line, options } ─▶ Line { name, words }
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::lexer::{Place, Token, printable, tokens};
use super::variables::{self, Variable};

/// A parsed Corefile: imports, snippets and variables are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corefile {
    /// The server blocks, in the order of the file.
    pub blocks: Vec<Block>,
    /// Patterns of `import` that no file matches, which is allowed.
    pub unmatched: Vec<Token>,
}

/// A server block: the configuration for its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Zones with scheme and port, as written.
    pub keys: Vec<Token>,
    /// Its place among the lines: see [`Line::index`].
    pub index: usize,
    /// The plugins, in the order of the file.
    pub directives: Vec<Directive>,
}

/// A plugin with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// Its name and arguments.
    pub line: Line,
    /// The lines between its braces; empty without braces.
    pub options: Vec<Line>,
}

/// A name and its arguments on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The first word.
    pub name: Token,
    /// The other words.
    pub arguments: Vec<Token>,
    /// Counts the lines of the whole configuration in the order of reading.
    pub index: usize,
}

/// Why a file is not a Corefile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {}", printable(reason))]
pub struct Error {
    /// The place.
    pub place: Place,
    /// The text that was found, and the allowed ones.
    pub reason: String,
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its path.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// The functions that a Corefile needs from outside.
pub struct Outside<'o> {
    /// Reads the file at a path. With `*` or `?` in the last part, reads all files that match, in
    /// lexical order. Fails with the reason.
    pub read: &'o mut dyn FnMut(&str) -> Result<Vec<Text>, String>,
    /// Returns a variable of the environment.
    pub variable: Variable<'o>,
}

impl fmt::Debug for Outside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outside")
    }
}

/// Parses the Corefile at `path`.
///
/// Fails with the first error in the language. The meaning of directives is not checked.
pub fn parse(path: &str, outside: Outside<'_>) -> Result<Corefile, Error> {
    let begin = Place { file: path.into(), line: 1, column: 1 };
    let error = |reason: String| Error { place: begin.clone(), reason };
    let texts =
        (outside.read)(path).map_err(|reason| error(format!("cannot be read: {reason}")))?;
    let mut parser = Parser {
        outside,
        rest: Vec::new(),
        last: begin.clone(),
        files: Vec::new(),
        snippets: HashMap::new(),
        imports: 0,
        words: 0,
        index: 0,
        corefile: Corefile::default(),
    };
    for Text { text, .. } in texts {
        let path: Arc<str> = path.into();
        let origin = parser.open(Origin { name: Arc::clone(&path), is_file: true, parent: None });
        parser.push(tokens(&path, &text), origin)?;
    }
    while parser.peek().is_some() {
        parser.block()?;
    }
    Ok(parser.corefile)
}

/// An import, and the import that contains it.
struct Origin {
    name: Arc<str>,
    is_file: bool,
    parent: Option<usize>,
}

struct Parser<'o> {
    outside: Outside<'o>,
    /// The tokens to be read, the next one last, each with its index into `files`.
    rest: Vec<(Token, usize)>,
    /// The place of the last token that was read.
    last: Place,
    files: Vec<Origin>,
    snippets: HashMap<String, Vec<Token>>,
    /// The number of imports so far.
    imports: usize,
    /// The number of words so far, including those of imports.
    words: usize,
    index: usize,
    corefile: Corefile,
}

impl Parser<'_> {
    fn open(&mut self, origin: Origin) -> usize {
        self.files.push(origin);
        self.files.len() - 1
    }

    /// Adds `tokens` before those to be read.
    fn push(&mut self, tokens: Vec<Token>, origin: usize) -> Result<(), Error> {
        self.words += tokens.len();
        if self.words > TOKENS_MAX {
            return Err(self.error_here(format!(
                "the configuration has more than {TOKENS_MAX} words with its imports; expected \
                 fewer"
            )));
        }
        self.rest.extend(tokens.into_iter().rev().map(|token| (token, origin)));
        Ok(())
    }

    fn peek(&self) -> Option<&Token> {
        self.rest.last().map(|(token, _)| token)
    }

    fn next(&mut self) -> Option<Token> {
        self.next_with_origin().map(|(token, _)| token)
    }

    fn next_with_origin(&mut self) -> Option<(Token, usize)> {
        let (token, origin) = self.rest.pop()?;
        self.last = token.place.clone();
        Some((token, origin))
    }

    /// Returns the next token if it is on the line of the one before.
    fn next_on_line(&mut self) -> Option<Token> {
        if self.peek()?.begins_line { None } else { self.next() }
    }

    fn error_here(&self, reason: impl Into<String>) -> Error {
        Error { place: self.last.clone(), reason: reason.into() }
    }

    /// Returns `token` with its variables replaced.
    fn replaced(&self, token: Token) -> Result<Token, Error> {
        match variables::replace(&token.text, self.outside.variable) {
            Ok(text) => Ok(Token { text, ..token }),
            Err(error) => Err(Error { place: token.place, reason: error.to_string() }),
        }
    }

    /// Parses a server block or the definition of a snippet.
    fn block(&mut self) -> Result<(), Error> {
        let keys = self.keys()?;
        let has_braces = self.peek().is_some_and(|token| token.text == "{");
        if has_braces {
            self.next();
        }
        if let [key] = &keys[..]
            && let Some(name) = snippet(&key.text)
        {
            return self.snippet(key, name.to_owned(), has_braces);
        }
        if keys.is_empty() && (has_braces || self.peek().is_some()) {
            return Err(self.error_here("a block without a zone; expected a zone, such as .:53"));
        }
        let index = self.index;
        self.index += 1;
        let directives = self.directives(has_braces)?;
        if !keys.is_empty() {
            self.corefile.blocks.push(Block { keys, index, directives });
        }
        Ok(())
    }

    /// Returns the keys of a block: up to `{`, or to the end of the line unless that is a comma.
    fn keys(&mut self) -> Result<Vec<Token>, Error> {
        let mut keys = Vec::new();
        let mut expects_another = false;
        let mut begins = true;
        while let Some(token) = self.peek() {
            if token.begins_line && !begins && !expects_another {
                break;
            }
            if token.begins_line && token.text == "import" {
                self.import()?;
                continue;
            }
            if token.text == "{" {
                if expects_another {
                    self.next();
                    return Err(self.error_here("'{' after a comma; expected another zone"));
                }
                break;
            }
            if token.text == "}" && begins {
                self.next();
                return Err(self.error_here("'}' without a '{' before it; expected a zone"));
            }
            begins = false;
            let Some(token) = self.next() else { break };
            let mut token = self.replaced(token)?;
            expects_another = token.text.ends_with(',');
            if expects_another {
                token.text.pop();
            }
            if !token.text.is_empty() {
                keys.push(token);
            }
        }
        if expects_another {
            return Err(self.error_here("the file ends after a comma; expected another zone"));
        }
        Ok(keys)
    }

    /// Reads up to the brace that closes the snippet `name`, whose definition began at `key`.
    fn snippet(&mut self, key: &Token, name: String, has_braces: bool) -> Result<(), Error> {
        let error = |reason: String| Error { place: key.place.clone(), reason };
        if !has_braces {
            return Err(error(format!("the snippet ({name}) has no braces; expected ({name}) {{")));
        }
        let mut tokens = Vec::new();
        let mut depth = 1;
        while let Some(token) = self.next() {
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return match self.snippets.insert(name.clone(), tokens) {
                    None => Ok(()),
                    Some(_) => Err(error(format!(
                        "the snippet ({name}) is defined twice; expected another name"
                    ))),
                };
            }
            tokens.push(token);
        }
        Err(error(format!("the snippet ({name}) is not closed; expected a '}}' at its end")))
    }

    /// Returns the directives of a block, up to its `}` or, without braces, to the end of the file.
    fn directives(&mut self, has_braces: bool) -> Result<Vec<Directive>, Error> {
        let mut directives = Vec::new();
        while let Some(token) = self.peek() {
            match token.text.as_str() {
                "}" if has_braces => {
                    self.next();
                    return Ok(directives);
                }
                "import" => self.import()?,
                "}" => {
                    self.next();
                    return Err(self.error_here(
                        "'}' without a '{' before it; a '{' must be a word of its own",
                    ));
                }
                "{" => {
                    self.next();
                    return Err(self.error_here("'{' without a directive before it on its line"));
                }
                _ => directives.push(self.directive()?),
            }
        }
        match has_braces {
            true => Err(self.error_here("the file ends inside a block; expected a '}'")),
            false => Ok(directives),
        }
    }

    fn directive(&mut self) -> Result<Directive, Error> {
        let line = self.line()?;
        let mut options = Vec::new();
        if self.peek().is_none_or(|token| token.begins_line || token.text != "{") {
            return Ok(Directive { line, options });
        }
        self.next();
        loop {
            match self.peek().map(|token| (token.text.as_str(), token.begins_line)) {
                None => {
                    let name = &line.name.text;
                    let reason =
                        format!("the file ends inside the block of {name}; expected a '}}'");
                    return Err(self.error_here(reason));
                }
                Some(("}", _)) => break,
                Some(("import", true)) => self.import()?,
                Some(("{", _)) => {
                    self.next();
                    return Err(self.error_here("an option cannot have a block of its own"));
                }
                Some(_) => options.push(self.line()?),
            }
        }
        self.next();
        match self.next_on_line() {
            None => Ok(Directive { line, options }),
            Some(token) => {
                let reason =
                    format!("{:?} follows a '}}' on its line; expected a new line", token.text);
                Err(Error { place: token.place, reason })
            }
        }
    }

    /// Returns a name and its arguments, up to the end of the line or to `{`.
    fn line(&mut self) -> Result<Line, Error> {
        let name = self.next().expect("the caller has seen it");
        let name = self.replaced(name)?;
        let mut arguments = Vec::new();
        while self.peek().is_some_and(|token| !token.begins_line && token.text != "{") {
            let token = self.next().expect("it was seen");
            if token.text == "}" {
                return Err(self.error_here("'}' must be on a line of its own"));
            }
            arguments.push(self.replaced(token)?);
        }
        self.index += 1;
        Ok(Line { name, arguments, index: self.index - 1 })
    }

    /// Replaces an `import` by its snippet, or by its files.
    fn import(&mut self) -> Result<(), Error> {
        let (import, origin) = self.next_with_origin().expect("the caller has seen it");
        let Some(pattern) = self.next_on_line() else {
            return Err(self.error_here("import without a name; expected a snippet or a file"));
        };
        let pattern = self.replaced(pattern)?;
        let error = |reason: String| Error { place: pattern.place.clone(), reason };
        if pattern.text.is_empty() {
            return Err(error("import of an empty name; expected a snippet or a file".to_owned()));
        }
        if let Some(extra) = self.next_on_line() {
            let reason = format!("{:?} is too much; import takes one snippet or file", extra.text);
            return Err(Error { place: extra.place, reason });
        }
        self.imports += 1;
        if self.imports > IMPORTS_MAX {
            return Err(error(format!("more than {IMPORTS_MAX} imports; expected fewer")));
        }
        if let Some(tokens) = self.snippets.get(&pattern.text).cloned() {
            let name: Arc<str> = pattern.text.as_str().into();
            let origin = self.enter(&pattern, name, (false, origin))?;
            return self.insert(tokens, origin);
        }
        let path = relative(&import.place.file, &pattern.text);
        if !is_simple(&pattern.text) {
            let reason = "expected at most one *, one ? and no [...] in the name of an import";
            return Err(error(format!("{:?}: {reason}", pattern.text)));
        }
        let texts = (self.outside.read)(&path)
            .map_err(|reason| error(format!("cannot import {path}: {reason}")))?;
        if texts.is_empty() {
            self.corefile.unmatched.push(pattern);
            return Ok(());
        }
        // The tokens that are pushed last are read first.
        for Text { path, text } in texts.into_iter().rev() {
            let path: Arc<str> = path.into();
            let origin = self.enter(&pattern, Arc::clone(&path), (true, origin))?;
            self.insert(tokens(&path, &text), origin)?;
        }
        Ok(())
    }

    /// Records that `name`, a file or a snippet, is imported within `(_, parent)`.
    ///
    /// Fails if it is imported by itself.
    fn enter(
        &mut self,
        pattern: &Token,
        name: Arc<str>,
        (is_file, parent): (bool, usize),
    ) -> Result<usize, Error> {
        let mut above = Some(parent);
        for _ in 0..DEPTH_MAX {
            let Some(origin) = above.map(|at| &self.files[at]) else {
                return Ok(self.open(Origin { name, is_file, parent: Some(parent) }));
            };
            if origin.is_file == is_file && origin.name == name {
                break;
            }
            above = origin.parent;
        }
        let reason = match above {
            Some(at) if self.files[at].name == name => format!("{name} imports itself"),
            _ => format!("imports within imports, more than {DEPTH_MAX} deep"),
        };
        Err(Error { place: pattern.place.clone(), reason })
    }

    /// Replaces an import by tokens. Both they and the following token begin a line.
    fn insert(&mut self, mut tokens: Vec<Token>, origin: usize) -> Result<(), Error> {
        if let Some(first) = tokens.first_mut() {
            first.begins_line = true;
        }
        if let Some((next, _)) = self.rest.last_mut() {
            next.begins_line = true;
        }
        self.push(tokens, origin)
    }
}

/// Returns the name in the key of a snippet: `(name)`.
fn snippet(key: &str) -> Option<&str> {
    key.strip_prefix('(')?.strip_suffix(')')
}

/// Returns the path of an import, relative to the directory of the file that contains it.
fn relative(file: &str, path: &str) -> String {
    match file.rsplit_once('/') {
        Some((directory, _)) if !path.starts_with('/') => format!("{directory}/{path}"),
        _ => path.to_owned(),
    }
}

/// Returns whether a pattern can be matched without backtracking.
fn is_simple(pattern: &str) -> bool {
    let count = |wildcard: char| pattern.matches(wildcard).count();
    count('*') <= 1 && count('?') <= 1 && !(pattern.contains('[') && pattern.contains(']'))
}

/// The maximum of words of a configuration with all its imports; each needs memory.
const TOKENS_MAX: usize = 500_000;
/// The maximum of imports of one configuration, of files and snippets together.
const IMPORTS_MAX: usize = 10_000;
/// The maximum depth of imports within imports.
const DEPTH_MAX: usize = 100;

#[cfg(test)]
mod tests;
