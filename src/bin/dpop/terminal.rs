//! What is written to a terminal: text of strangers without control characters, and colours.

use std::fmt::Write as _;

use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Effects, Style};

/// Longer values are cut: a claim may have thousands of characters.
const MAX_SHOWN: usize = 200;

pub(crate) const BOLD: Style = Style::new().effects(Effects::BOLD);
pub(crate) const DIM: Style = Style::new().effects(Effects::DIMMED);
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
pub(crate) const RED: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);

/// A stranger's text for one line: without characters that a terminal would obey, or that would change the order of what is
/// read, and not too long.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == MAX_SHOWN {
            return format!("{shown}… ({} bytes)", text.len());
        }
        push_shown(&mut shown, c);
    }
    shown
}

/// The same for several lines, of any length.
pub(crate) fn lines(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        if c == '\n' {
            shown.push(c);
        } else {
            push_shown(&mut shown, c);
        }
    }
    shown
}

/// JSON that is ASCII: what is outside of ASCII stands in strings only, where an escape means the same.
pub(crate) fn ascii_json(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\x7f' {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

/// Quotes stay as they are; other characters that are not printable become escapes.
fn push_shown(shown: &mut String, c: char) {
    if matches!(c, '\'' | '"' | '\\') {
        shown.push(c);
    } else {
        shown.extend(c.escape_debug());
    }
}

/// Whether colours are written, for standard output.
pub(crate) const fn stream_choice(choice: ColorChoice) -> anstream::ColorChoice {
    match choice {
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
        ColorChoice::Auto => anstream::ColorChoice::Auto,
    }
}
