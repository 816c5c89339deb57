//! Text that is safe in HTML, and numbers as people read them.
//!
//! Core. Knows no status and no figure.

/// Text that is safe between tags and in attributes.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A term and its text; the text is escaped.
pub fn row(term: &str, text: &str) -> String {
    format!("<div><dt>{term}</dt><dd>{}</dd></div>\n", breakable(&escape(text)))
}

/// HTML in which a long name stays on one line if it fits there. If not, it breaks behind dots, and
/// nowhere else inside it.
pub fn breakable(html: &str) -> String {
    let words = html.split(' ').map(|word| {
        let parts = parts(word);
        match parts.len() {
            1 => word.to_owned(),
            _ => format!("<span class=\"name\">{}</span>", parts.join("<wbr>")),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A word cut behind the dots between two labels of a name.
fn parts(word: &str) -> Vec<&str> {
    let bytes = word.as_bytes();
    let is_cut = |at: usize| {
        let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        bytes[at] == b'.'
            && at.checked_sub(1).is_some_and(|before| is_label(bytes[before]))
            && bytes.get(at + 1).is_some_and(|next| next.is_ascii_alphabetic() || *next == b'_')
    };
    let cuts = (0..word.len()).filter(|&at| is_cut(at)).map(|at| at + 1);
    let ends: Vec<usize> = cuts.chain([word.len()]).collect();
    let starts = [0].into_iter().chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, &end)| &word[start..end]).collect()
}

/// `12,345`, `9.5`, `0`: one digit behind the point below ten, none above.
pub fn number(value: f64) -> String {
    let text = match value {
        value if value < 0.005 => return "0".to_owned(),
        value if value.fract() == 0.0 => format!("{value:.0}"),
        value if value < 0.1 => return format!("{value:.2}"),
        value if value < 9.95 => return format!("{value:.1}"),
        value => format!("{value:.0}"),
    };
    grouped(text)
}

/// `12,345`: the digits of a whole number, with a comma before each group of three.
pub fn grouped(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `12,345/s`.
pub fn per_second(value: f64) -> String {
    format!("{}/s", number(value))
}

/// `92.4 %`; `–` if there is nothing to divide.
pub fn percent(part: f64, all: f64) -> String {
    match all > 0.0 {
        true => format!("{:.1} %", 100.0 * part / all),
        false => "–".to_owned(),
    }
}

/// A time in microseconds: `35 µs`, `1.2 ms`, `2.5 s`; `–` for zero.
pub fn micros(value: f64) -> String {
    match value {
        value if value <= 0.0 => "–".to_owned(),
        value if value < 1_000.0 => format!("{value:.0} µs"),
        value if value < 1_000_000.0 => format!("{} ms", number(value / 1e3)),
        value => format!("{:.1} s", value / 1e6),
    }
}

/// `64 MiB`.
pub fn bytes(value: f64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = units.into_iter().find(|(_, shift)| value >= f64::from(1_u32 << shift));
    match unit {
        Some((unit, shift)) => format!("{:.1} {unit}", value / f64::from(1_u32 << shift)),
        None => format!("{value:.0} B"),
    }
}

/// A text as part of the query of a URL.
pub fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_people_read() {
        let rows = [
            (0.0, "0"),
            (0.04, "0.04"),
            (3.0, "3"),
            (9.46, "9.5"),
            (10.4, "10"),
            (12_345.0, "12,345"),
        ];
        for (value, text) in rows {
            assert_eq!(number(value), text);
        }
        let rows = [(0, "0"), (999, "999"), (1_000, "1,000"), (262_144, "262,144")];
        for (whole, text) in rows {
            assert_eq!(grouped(whole), text);
        }
        assert_eq!(percent(1.0, 0.0), "–");
        assert_eq!(percent(924.0, 1_000.0), "92.4 %");
        let rows = [(0.0, "–"), (35.2, "35 µs"), (1_234.0, "1.2 ms"), (2_500_000.0, "2.5 s")];
        for (value, text) in rows {
            assert_eq!(micros(value), text);
        }
        assert_eq!(bytes(64.0 * 1_048_576.0), "64.0 MiB");
        assert_eq!(bytes(17.0), "17 B");
        assert_eq!(encoded("a b&c."), "a%20b%26c.");
    }

    #[test]
    fn names_break_behind_dots_and_numbers_do_not() {
        let rows = [
            (
                "127.0.0.1:53 web.shop.svc A",
                "127.0.0.1:53 <span class=\"name\">web.<wbr>shop.<wbr>svc</span> A",
            ),
            ("0.41 ms", "0.41 ms"),
            ("ends.", "ends."),
            (".x", ".x"),
            ("*.a.b &lt;b&gt;", "<span class=\"name\">*.a.<wbr>b</span> &lt;b&gt;"),
            ("_http._tcp.x", "<span class=\"name\">_http.<wbr>_tcp.<wbr>x</span>"),
            ("", ""),
        ];
        for (text, html) in rows {
            assert_eq!(breakable(text), html);
        }
    }
}
