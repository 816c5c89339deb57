//! References to environment variables in a word: `{$NAME}` and `{%NAME%}`.
//!
//! Core. A function returns the variables.

/// Returns the value of an environment variable.
pub type Variable<'v> = &'v dyn Fn(&str) -> Option<String>;

/// Why references cannot be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the environment variables in this word make it longer than {WORD_LEN_MAX} bytes, or contain \
     themselves; expected values without references to themselves"
)]
pub struct Endless;

/// Returns `word` with every reference replaced. A variable that is not set is empty.
///
/// Values can contain references, which are also replaced. `{$}` stops the replacement in a word,
/// and a reference without end is not a reference.
pub fn replace(word: &str, variable: Variable<'_>) -> Result<String, Endless> {
    let mut word = word.to_owned();
    let mut left = REPLACEMENTS_MAX;
    for (begin, end) in FORMS {
        while let Some(at) = word.find(begin) {
            let after = at + begin.len();
            let Some(len) = word[at..].find(end) else { break };
            if at + len <= after {
                break;
            }
            let reference = word[at..at + len + end.len()].to_owned();
            let value = variable(&word[after..at + len]).unwrap_or_default();
            let count = word.matches(&reference).count();
            let grown = word.len().saturating_add(count.saturating_mul(value.len()));
            left -= 1;
            if grown > WORD_LEN_MAX || left == 0 {
                return Err(Endless);
            }
            word = word.replace(&reference, &value);
        }
    }
    Ok(word)
}

/// The forms of references, in the order in which they are replaced.
const FORMS: [(&str, &str); 2] = [("{%", "%}"), ("{$", "}")];
/// The maximum of replacements, far more than a word needs: a variable can contain itself.
const REPLACEMENTS_MAX: usize = 100;
/// The maximum of bytes, as large as a ConfigMap.
const WORD_LEN_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_in_coredns() {
        let environment = |name: &str| {
            let value = match name {
                "A" => "one",
                "B" => "{$A}",
                "BLANK" => "a b",
                "LOOP" => "{$LOOP}",
                "GROWS" => "{$GROWS}{$GROWS}x",
                "OTHER" => "{$LOOP}",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let rows: [(&str, Option<&str>); 14] = [
            ("plain", Some("plain")),
            ("{$A}", Some("one")),
            ("{%A%}:{$A}", Some("one:one")),
            ("x{$A}y{$A}", Some("xoneyone")),
            ("{$UNSET}", Some("")),
            ("{$B}", Some("one")),
            ("{$BLANK}", Some("a b")),
            ("{$}{$A}", Some("{$}{$A}")),
            ("{$A", Some("{$A")),
            ("{{$x}}", Some("{}")),
            ("{{ $x }}", Some("{{ $x }}")),
            ("{$LOOP}", None),
            ("{$GROWS}", None),
            ("{$OTHER}", None),
        ];
        for (word, expected) in rows {
            assert_eq!(replace(word, &environment).ok().as_deref(), expected, "{word}");
        }
    }
}
