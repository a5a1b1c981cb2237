//! The story as text, for a terminal.

use std::io::{self, IsTerminal, Write};
use std::{env, iter};

use crate::jwt::Jwt;
use crate::message::{Kind, Message, shortened};
use crate::recorder::Result;
use crate::story::{Mark, Step, Story};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    Short,
    /// With more header fields, and nothing shortened.
    Full,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    On,
    Off,
}

impl Colours {
    /// On, if the output is a terminal and the user has not said otherwise (<https://no-color.org>).
    pub(crate) fn of_terminal() -> Self {
        let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if io::stdout().is_terminal() && !is_unwanted {
            Self::On
        } else {
            Self::Off
        }
    }
}

pub(crate) fn print(story: &Story, length: Length, colours: Colours) -> Result<()> {
    let mut text = Text {
        story,
        length,
        colours,
        out: String::new(),
    };
    text.introduction();
    for chapter in &story.chapters {
        text.line("");
        text.heading(chapter.title);
        for step in &chapter.steps {
            text.step(step);
        }
    }
    if !story.rejections.is_empty() {
        text.rejections();
    }
    Ok(io::stdout().write_all(text.out.as_bytes())?)
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// The width of the column of names.
const NAMES: usize = 28;

struct Text<'s> {
    story: &'s Story,
    length: Length,
    colours: Colours,
    out: String,
}

impl Text<'_> {
    fn introduction(&mut self) {
        for (party, about) in &self.story.parties {
            self.line(&format!("{:<NAMES$}  {about}", party.name()));
        }
        self.line("");
        self.line("Values with the same mark must be equal; ≠ marks one that is not:");
        for mark in Mark::ALL {
            let (name, equal) = mark.meaning();
            let letter = self.painted(colour(mark), &format!("[{}]", mark.letter()));
            self.line(&format!("  {letter} {name}:"));
            self.line(&format!("      {equal}"));
        }
    }

    fn step(&mut self, step: &Step) {
        self.line("");
        self.line(&format!("{}. {}", step.number, step.title));
        for (name, value) in &step.facts {
            self.value(5, name, value);
        }
        for message in &step.messages {
            self.message(message);
        }
    }

    fn message(&mut self, message: &Message) {
        let code = match message.kind {
            Kind::Request => BOLD,
            Kind::Accepted => GREEN,
            Kind::Rejected => RED,
        };
        let (from, to) = (message.from.name(), message.to.name());
        let route = self.painted(DIM, &format!("{from} → {to}:"));
        let start = self.painted(code, &message.start);
        self.line("");
        self.line(&format!("   {route} {start}"));
        let other_fields = match self.length {
            Length::Short => &[][..],
            Length::Full => &message.other_fields,
        };
        for (name, value) in message.fields.iter().chain(other_fields) {
            self.value(5, &format!("{name}:"), value);
        }
        if !message.content.values.is_empty() {
            let place = format!("     {}:", message.content.place);
            self.line(&self.painted(DIM, &place));
        }
        for (name, value) in &message.content.values {
            self.value(7, name, value);
        }
        for jwt in &message.jwts {
            self.jwt(jwt);
        }
    }

    fn jwt(&mut self, jwt: &Jwt) {
        let heading = if jwt.is_first {
            format!("     {}:", jwt.name)
        } else {
            format!("     {} (as in step {}):", jwt.name, jwt.step)
        };
        self.line(&self.painted(DIM, &heading));
        if jwt.is_first {
            let members = jwt.header.members().iter().chain(jwt.claims.members());
            for (name, value) in members {
                self.value(7, name, &value.plain());
            }
        }
        let (name, value) = &jwt.computed;
        self.value(7, name, value);
        if let Some(mark) = self.story.differs_in(jwt) {
            let warning = format!("≠ [{}]: not {}", mark.letter(), mark.meaning().0);
            let warning = self.painted(RED, &warning);
            self.line(&format!("{:NAMES$}  {warning}", ""));
        }
    }

    /// A name and a value, in which marked values are marked.
    fn value(&mut self, indent: usize, name: &str, value: &str) {
        let value = match self.length {
            Length::Short => shortened(value),
            Length::Full => value.to_owned(),
        };
        let mut marked = String::new();
        for (piece, mark) in self.story.pieces(&value) {
            marked += &match mark {
                None => piece.to_owned(),
                Some(mark) => self.painted(colour(mark), &format!("{piece} [{}]", mark.letter())),
            };
        }
        let width = NAMES - indent;
        self.line(&format!("{:indent$}{name:<width$}  {marked}", ""));
    }

    fn rejections(&mut self) {
        let rows = &self.story.rejections;
        self.line("");
        self.heading("Every defect that a request can have, one at a time");
        let widest = rows
            .iter()
            .map(|row| row.defect.len())
            .max()
            .unwrap_or_default();
        let row = |defect: &str, status: &str, error: &str| {
            format!("   {defect:<widest$}  {status:<6}  {error}")
        };
        self.line("");
        self.line(&self.painted(BOLD, &row("defect", "status", "error")));
        for it in rows {
            self.line(&row(it.defect, &it.status.to_string(), &it.error));
        }
        self.line("");
        self.line(&format!(
            "   {} defects, {} rejections",
            rows.len(),
            rows.len()
        ));
    }

    fn heading(&mut self, text: &str) {
        let underline: String = iter::repeat_n('─', text.chars().count()).collect();
        self.line(&self.painted(BOLD, text));
        self.line(&self.painted(DIM, &underline));
    }

    fn painted(&self, code: &str, text: &str) -> String {
        match self.colours {
            Colours::On => format!("\x1b[{code}m{text}\x1b[0m"),
            Colours::Off => text.to_owned(),
        }
    }

    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }
}

const fn colour(mark: Mark) -> &'static str {
    match mark {
        Mark::Key => "1;36",
        Mark::Token => "1;33",
        Mark::IssuerNonce => "1;35",
        Mark::ApiNonce => "1;34",
    }
}
