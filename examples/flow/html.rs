//! HTML and SVG in which every value is escaped.

use std::fmt::Display;

/// A document in the making. Markup is part of the program (`&'static str`), so a value of the story can only
/// be added as text, which is escaped. A message with `<script>` in it shows `<script>`.
#[derive(Default)]
pub(crate) struct Html(String);

impl Html {
    /// Adds markup, with a value for each `{}`: between tags, or in a quoted attribute.
    pub(crate) fn add<const N: usize>(&mut self, markup: &'static str, values: [&dyn Display; N]) {
        let mut parts = markup.split("{}");
        self.0.push_str(parts.next().unwrap_or_default());
        let mut values = values.into_iter();
        for part in parts {
            let value = values.next().expect("a value for each place");
            self.text(&value.to_string());
            self.0.push_str(part);
        }
        assert!(values.next().is_none(), "a place for each value: {markup}");
    }

    /// Adds what was made by the same rules.
    pub(crate) fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }

    fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // XML does not allow these, not even escaped.
                '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}' => {
                    self.0.push('\u{fffd}');
                }
                character => self.0.push(character),
            }
        }
    }
}
