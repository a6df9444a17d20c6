//! Names as they stand in SQL and in messages, and how to tell that a text is one.
//!
//! Invariant: what comes from outside stands in SQL quoted; types, collations and operators, which cannot be
//! quoted whole, only where they are such names and nothing else.

/// An identifier, always quoted: reserved words need no list of their own then.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub fn quote_literal(text: &str) -> String {
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

/// A qualified name as people write it: quoted only where it must be. For messages and `status`.
pub fn display(schema: &str, name: &str) -> String {
    format!("{}.{}", display_identifier(schema), display_identifier(name))
}

pub fn display_identifier(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { quote_identifier(name) }
}

/// What puts a comparison under a collation; of none, nothing.
pub fn collate(collation: &str) -> String {
    if collation.is_empty() { String::new() } else { format!(" COLLATE {collation}") }
}

/// What is left of `text` behind an identifier, quoted or not.
fn behind_identifier(text: &str) -> Option<&str> {
    let Some(quoted) = text.strip_prefix('"') else {
        let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
        let end = text.find(|c| !word(c)).unwrap_or(text.len());
        return (end > 0).then(|| &text[end..]);
    };
    let mut from = 0;
    loop {
        let end = from + quoted[from..].find('"')?;
        if !quoted[end + 1..].starts_with('"') {
            return (end > 0).then(|| &quoted[end + 1..]);
        }
        from = end + 2;
    }
}

/// Whether a text is a qualified name.
pub(super) fn is_qualified(text: &str) -> bool {
    let name = || behind_identifier(behind_identifier(text)?.strip_prefix('.')?);
    name() == Some("")
}

/// Whether a text is a type as `format_type` prints it without a length.
pub(super) fn is_type(text: &str) -> bool {
    const WORDS: [&str; 7] = [
        "timestamp with time zone",
        "timestamp without time zone",
        "time with time zone",
        "time without time zone",
        "character varying",
        "double precision",
        "bit varying",
    ];
    let text = text.strip_suffix("[]").unwrap_or(text);
    let qualified = || {
        let rest = behind_identifier(text)?;
        match rest.strip_prefix('.') {
            Some(name) => behind_identifier(name),
            None => Some(rest),
        }
    };
    WORDS.contains(&text) || qualified() == Some("")
}

/// Whether a text is `OPERATOR(schema.operator)`.
pub(super) fn is_operator(text: &str) -> bool {
    let inside = || text.strip_prefix("OPERATOR(")?.strip_suffix(')');
    let name = || behind_identifier(inside()?)?.strip_prefix('.');
    name().is_some_and(|name| {
        // `--` and `/*` begin a comment, and no operator's name has them.
        let comment = name.contains("--") || name.contains("/*");
        !name.is_empty() && !comment && name.chars().all(|c| "+-*/<>=~!@#%^&|`?".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_literals_are_quoted() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\b"), "E'a\\\\b'");
    }

    #[test]
    fn names_are_shown_quoted_only_where_they_must_be() {
        for plain in ["role", "_x1", "a_2"] {
            assert_eq!(display_identifier(plain), plain);
        }
        for other in ["Role", "1a", "a b", "größe", "", "a-b", "a$"] {
            assert_eq!(display_identifier(other), format!("\"{other}\""));
        }
        assert_eq!(display("crm", "User Role"), "crm.\"User Role\"");
    }

    #[test]
    fn what_stands_unquoted_is_a_name_and_nothing_else() {
        for good in [
            "integer",
            "uuid[]",
            "s.t",
            "\"S\".\"a\"\"b\"",
            "timestamp with time zone",
            "\"char\"",
            "größe",
        ] {
            assert!(is_type(good), "{good}");
        }
        for bad in [
            "",
            "a b",
            "int; DROP",
            "a.b.c",
            "\"a",
            "\"\"",
            "int)",
            "x[]::y",
            "double  precision",
            "a-b",
        ] {
            assert!(!is_type(bad), "{bad}");
        }
        for good in ["pg_catalog.\"C\"", "s.c"] {
            assert!(is_qualified(good), "{good}");
        }
        for bad in ["", "\"C\"", "s.c OR true", "s.c.d", "s."] {
            assert!(!is_qualified(bad), "{bad}");
        }
        for good in ["OPERATOR(pg_catalog.=)", "OPERATOR(\"A b\".<=>)"] {
            assert!(is_operator(good), "{good}");
        }
        for bad in [
            "=",
            "OPERATOR(=)",
            "OPERATOR(a.=) OR true",
            "OPERATOR(a.--)",
            "OPERATOR(a.b)",
            "OPERATOR(a.)",
        ] {
            assert!(!is_operator(bad), "{bad}");
        }
    }
}
