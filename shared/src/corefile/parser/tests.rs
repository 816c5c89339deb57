//! Tests of the inputs that the parser accepts and refuses.

use std::collections::BTreeMap;

use super::*;

/// Files, the place of the error, and a part of its reason.
type Row<'r> = (&'r [(&'r str, &'r str)], &'r str, &'r str);

/// Files by their paths.
type Files = BTreeMap<String, String>;

fn files(rows: &[(&str, &str)]) -> Files {
    rows.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect()
}

/// Parses `Corefile` of `files`; `*` in the last part of a path matches any text.
fn parse_files(files: &Files) -> Result<Corefile, Error> {
    let mut read = |path: &str| match path.split_once('*') {
        None => match files.get(path) {
            Some(text) => Ok(vec![Text { path: path.to_owned(), text: text.clone() }]),
            None => Err("No such file".to_owned()),
        },
        Some((begin, end)) => {
            let fits = |path: &&String| path.starts_with(begin) && path.ends_with(end);
            let found = files.keys().filter(fits);
            Ok(found.map(|path| Text { path: path.clone(), text: files[path].clone() }).collect())
        }
    };
    let variable = |name: &str| match name {
        "ZONE" => Some("a.example".to_owned()),
        "NAME" => Some("cache".to_owned()),
        "TWO" => Some("a b".to_owned()),
        _ => None,
    };
    parse("Corefile", Outside { read: &mut read, variable: &variable })
}

/// Returns one line for each line of the configuration: `KEYS | DIRECTIVE ARGUMENT...`, options
/// after `>`.
fn shown(corefile: &Corefile) -> Vec<String> {
    let words = |tokens: &[Token]| {
        tokens.iter().map(|token| token.text.as_str()).collect::<Vec<_>>().join(",")
    };
    let line = |line: &Line| [&line.name.text, ":", &words(&line.arguments)].concat();
    let mut lines = Vec::new();
    for block in &corefile.blocks {
        lines.push(words(&block.keys));
        for directive in &block.directives {
            lines.push(format!("  {}", line(&directive.line)));
            lines.extend(directive.options.iter().map(|option| format!("    {}", line(option))));
        }
    }
    lines
}

#[track_caller]
fn check(rows: &[(&str, &str)], expected: &[&str]) {
    match parse_files(&files(rows)) {
        Ok(corefile) => assert_eq!(shown(&corefile), expected, "{rows:?}"),
        Err(error) => panic!("{rows:?}: {error}"),
    }
}

#[test]
fn blocks_directives_and_options() {
    check(&[("Corefile", "")], &[]);
    check(&[("Corefile", "# nothing\n")], &[]);
    check(
        &[("Corefile", ".:53 {\n errors\n cache 30 {\n  success 9984 30\n  prefetch 1\n }\n}\n")],
        &[".:53", "  errors:", "  cache:30", "    success:9984,30", "    prefetch:1"],
    );
    check(
        &[("Corefile", "a.example b.example,\nc.example {\n}\nd.example {\n whoami\n}")],
        &["a.example,b.example,c.example", "d.example", "  whoami:"],
    );
    check(&[("Corefile", "a.example\nerrors\ncache 5")], &["a.example", "  errors:", "  cache:5"]);
    check(&[("Corefile", "a.example")], &["a.example"]);
    check(&[("Corefile", ".\n{\n errors\n}")], &[".", "  errors:"]);
    check(&[("Corefile", ". {\n cache {\n }\n health\n}")], &[".", "  cache:", "  health:"]);
    check(&[("Corefile", ". {\n log \"a b\" c\n}")], &[".", "  log:a b,c"]);
    check(
        &[("Corefile", "{$ZONE}:53 {\n {%NAME%} {$UNSET} {$TWO}\n}")],
        &["a.example:53", "  cache:,a b"],
    );
}

#[test]
fn snippets_and_imports_stand_for_their_lines() {
    check(
        &[("Corefile", "(s) {\n errors\n cache 5 {\n  prefetch 1\n }\n}\n. {\n import s\n log\n}")],
        &[".", "  errors:", "  cache:5", "    prefetch:1", "  log:"],
    );
    check(
        &[("Corefile", "(o) {\n prefetch 1\n}\n. {\n cache {\n  import o\n  keepttl\n }\n}")],
        &[".", "  cache:", "    prefetch:1", "    keepttl:"],
    );
    check(
        &[("d/x", "whoami"), ("Corefile", ". {\n import d/x\n}\n"), ("x", "errors")],
        &[".", "  whoami:"],
    );
    check(
        &[
            ("Corefile", "import d/a.conf\n. {\n import in-b\n}"),
            ("d/a.conf", "import b.conf\na.example {\n errors\n}"),
            ("d/b.conf", "(in-b) {\n log\n import c.conf\n}"),
            ("d/c.conf", "loop"),
        ],
        &["a.example", "  errors:", ".", "  log:", "  loop:"],
    );
    check(
        &[("Corefile", ". {\n import *.on\n}"), ("b.on", "log"), ("a.on", "errors")],
        &[".", "  errors:", "  log:"],
    );
    check(&[("Corefile", ". {\n import *.none\n}")], &["."]);
    let unmatched = parse_files(&files(&[("Corefile", ". {\n import *.none\n}")])).unwrap();
    assert_eq!(unmatched.unmatched[0].text, "*.none");
    let twice = "(s) {\n log\n}\n. {\n import s\n import s\n}";
    check(&[("Corefile", twice)], &[".", "  log:", "  log:"]);
}

#[test]
fn places_are_those_of_the_file_that_has_the_word() {
    let rows = [("Corefile", ". {\n import d/x\n errors\n}"), ("d/x", "\n  cache 5\n")];
    let corefile = parse_files(&files(&rows)).unwrap();
    let lines: Vec<_> = corefile.blocks[0].directives.iter().map(|it| &it.line).collect();
    let places: Vec<_> = lines.iter().map(|line| line.name.place.to_string()).collect();
    assert_eq!(places, ["d/x:2:3", "Corefile:3:2"]);
    assert_eq!(lines.iter().map(|line| line.index).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn errors_have_the_place_and_what_is_allowed() {
    let rows: [Row; 24] = [
        (&[], "Corefile:1:1: ", "No such file"),
        (&[("Corefile", ". {\n errors\n")], "Corefile:2:2: ", "expected a '}'"),
        (&[("Corefile", ". {\n cache {\n a\n")], "Corefile:3:2: ", "inside the block of cache"),
        (&[("Corefile", "}\n")], "Corefile:1:1: ", "'}' without"),
        (&[("Corefile", ". {\n}\n}\n")], "Corefile:3:1: ", "'}' without"),
        (&[("Corefile", ". {\n cache 30{\n }\n}\n")], "Corefile:4:1: ", "'}' without"),
        (&[("Corefile", "{\n errors\n}\n")], "Corefile:1:1: ", "without a zone"),
        (&[("Corefile", "a, {\n}\n")], "Corefile:1:4: ", "expected another zone"),
        (&[("Corefile", "a,\n")], "Corefile:1:1: ", "expected another zone"),
        (&[("Corefile", ". {\n cache { success 1 }\n}")], "Corefile:2:20: ", "line of its own"),
        (&[("Corefile", ". {\n cache { }\n}\n. {\n cache { } }")], "Corefile:5:12: ", "new line"),
        (&[("Corefile", ". {\n cache {\n a {\n }\n}")], "Corefile:3:4: ", "block of its own"),
        (&[("Corefile", ". {\n {\n }\n}")], "Corefile:2:2: ", "without a directive"),
        (&[("Corefile", ". {\n import\n}")], "Corefile:2:2: ", "without a name"),
        (&[("Corefile", ". {\n import a b\n}")], "Corefile:2:11: ", "too much"),
        (&[("Corefile", ". {\n import \"\"\n}")], "Corefile:2:9: ", "empty name"),
        (&[("Corefile", ". {\n import a\n}")], "Corefile:2:9: ", "cannot import a: No such file"),
        (&[("Corefile", ". {\n import a*b*\n}")], "Corefile:2:9: ", "at most one *"),
        (&[("Corefile", "import Corefile")], "Corefile:1:8: ", "imports itself"),
        (&[("Corefile", "import a"), ("a", "import b"), ("b", "import a")], "b:1:8: ", "itself"),
        (&[("Corefile", "(s) {\n import s\n}\n. {\n import s\n}")], "Corefile:2:9: ", "s imports"),
        (&[("Corefile", "(s)\nlog")], "Corefile:1:1: ", "no braces"),
        (&[("Corefile", "(s) {\n")], "Corefile:1:1: ", "not closed"),
        (&[("Corefile", "(s) {\n}\n(s) {\n}")], "Corefile:3:1: ", "defined twice"),
    ];
    for (rows, place, reason) in rows {
        let error = parse_files(&files(rows)).expect_err(&format!("{rows:?}")).to_string();
        assert!(error.starts_with(place) && error.contains(reason), "{rows:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn large_configurations_end_with_one_error() {
    let braces = "{ ".repeat(5 << 20);
    let words = "a ".repeat(TOKENS_MAX + 1);
    let snippet =
        format!("(s) {{\n{}}}\n. {{\n{}}}", "a\n".repeat(2_000), "import s\n".repeat(2_000));
    let imports = format!("(s) {{\n}}\n. {{\n{}}}", "import s\n".repeat(IMPORTS_MAX + 1));
    let deep: String =
        (0..200).map(|at| format!("(s{}) {{\n import s{at}\n}}\n", at + 1)).collect();
    let deep = format!("(s0) {{\n}}\n{deep}\n. {{\n import s200\n}}");
    for (text, reason) in [
        (braces, "more than 500000 words"),
        (words, "more than 500000 words"),
        (snippet, "more than 500000 words"),
        (imports, "more than 10000 imports"),
        (deep, "more than 100 deep"),
    ] {
        let parsed = parse_files(&files(&[("Corefile", &text)]));
        let error = parsed.map(|_| ()).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// Words in lines: a directive with its options.
type Lines = Vec<Vec<String>>;

/// The intended configuration: words in lines.
struct Model {
    /// Keys, and directives with their options.
    blocks: Vec<(Vec<String>, Vec<Lines>)>,
}

/// xorshift64: the same configurations each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }

    fn is_one_of(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn word(&mut self) -> String {
        let words = [
            "a",
            "cache",
            "30",
            ".",
            "10.0.0.0/8",
            "with blank",
            "",
            "#",
            "a\"b",
            "\"",
            "é",
            "a\\n",
            "line\nbreak",
            "*",
            "a}",
            "{b",
            "(c)",
            "x,",
        ];
        words[self.below(words.len() as u64) as usize].to_owned()
    }

    fn words(&mut self) -> Vec<String> {
        let names = ["errors", "forward", "log", "é", "x.y", "(z"];
        let name = names[self.below(names.len() as u64) as usize].to_owned();
        let count = self.below(4);
        std::iter::once(name).chain((0..count).map(|_| self.word())).collect()
    }

    fn model(&mut self) -> Model {
        let key = |random: &mut Self| format!("z{}.example:53", random.below(9));
        let directive = |random: &mut Self| {
            let count = random.below(3) + 1;
            (0..count).map(|_| random.words()).collect()
        };
        let block = |random: &mut Self| {
            let (keys, directives) = (random.below(3) + 1, random.below(4));
            let keys = (0..keys).map(|_| key(random)).collect();
            (keys, (0..directives).map(|_| directive(random)).collect())
        };
        let count = self.below(4);
        Model { blocks: (0..count).map(|_| block(self)).collect() }
    }

    /// Returns a word as text: in quotes if it needs them, or at random.
    fn written(&mut self, word: &str) -> String {
        let is_plain = !word.is_empty()
            && !word.starts_with('"')
            && !word.contains(|c: char| c.is_whitespace() || c == '#');
        if is_plain && !self.is_one_of(4) && !word.ends_with('\\') {
            return word.to_owned();
        }
        format!("\"{}\"", word.replace('"', "\\\""))
    }

    fn line(&mut self, words: &[String]) -> String {
        let words: Vec<String> = words.iter().map(|word| self.written(word)).collect();
        words.join([" ", "\t", "   "][self.below(3) as usize])
    }

    /// Returns blank lines and comments.
    fn gap(&mut self) -> &'static str {
        ["\n", "\r\n", "\n\n", " # a comment { \"\n", "\n# } another\n"][self.below(5) as usize]
    }

    /// Returns `model` as files: parts of it are snippets and imported files.
    fn files(&mut self, model: &Model) -> Files {
        let (mut files, mut text, mut snippets) = (Files::new(), String::new(), String::new());
        for (keys, directives) in &model.blocks {
            let comma = [" ", ", ", ",\n"][self.below(3) as usize];
            text += &format!("{} {{{}", keys.join(comma), self.gap());
            for lines in directives {
                let mut part = format!("  {}", self.line(&lines[0]));
                if lines.len() > 1 || self.is_one_of(3) {
                    let gap = self.gap();
                    part += &format!(" {{{gap}");
                    for option in &lines[1..] {
                        part += &format!("    {}{}", self.line(option), self.gap());
                    }
                    part += "  }";
                }
                part += self.gap();
                match self.below(4) {
                    0 => {
                        let name = format!("s{}", snippets.len());
                        snippets += &format!("({name}) {{\n{part}}}\n");
                        text += &format!("import {name}{}", self.gap());
                    }
                    1 => {
                        let name = format!("f{}", files.len());
                        files.insert(name.clone(), part);
                        text += &format!("import {name}{}", self.gap());
                    }
                    _ => text += &part,
                }
            }
            text += &format!("}}{}", self.gap());
        }
        files.insert("Corefile".to_owned(), snippets + &text);
        files
    }
}

#[test]
fn generated_configurations_are_read_as_they_are_meant() {
    let mut random = Random(0x5eed_f00d);
    for round in 0..3_000 {
        let model = random.model();
        let files = random.files(&model);
        let parsed =
            parse_files(&files).unwrap_or_else(|error| panic!("{round}: {error} {files:?}"));
        let texts = |tokens: &[Token]| -> Vec<String> {
            tokens.iter().map(|token| token.text.clone()).collect()
        };
        let words = |line: &Line| [vec![line.name.text.clone()], texts(&line.arguments)].concat();
        let lines =
            |it: &Directive| std::iter::once(&it.line).chain(&it.options).map(words).collect();
        let blocks = parsed.blocks.iter();
        let blocks: Vec<(Vec<String>, Vec<Lines>)> = blocks
            .map(|block| (texts(&block.keys), block.directives.iter().map(lines).collect()))
            .collect();
        assert_eq!(blocks, model.blocks, "{round}: {files:?}");
    }
}
