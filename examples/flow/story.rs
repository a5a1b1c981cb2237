//! What happened, for [`text`](crate::text), [`page`](crate::page) and [`diagram`](crate::diagram) to show.

use crate::jwt::Jwt;
use crate::message::Message;

#[derive(Default)]
pub(crate) struct Story {
    /// With a few words about each.
    pub(crate) parties: Vec<(Party, String)>,
    pub(crate) chapters: Vec<Chapter>,
    pub(crate) rejections: Vec<RejectedDefect>,
    marked: Vec<(Mark, String)>,
}

pub(crate) struct Chapter {
    pub(crate) title: &'static str,
    pub(crate) steps: Vec<Step>,
}

pub(crate) struct Step {
    pub(crate) number: usize,
    pub(crate) title: &'static str,
    /// What a party has computed: name and value.
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) messages: Vec<Message>,
}

/// A request with one defect, and the response to it.
pub(crate) struct RejectedDefect {
    pub(crate) defect: &'static str,
    pub(crate) status: u16,
    pub(crate) error: String,
    pub(crate) description: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    Client,
    AuthorizationServer,
    ResourceServer,
    Thief,
}

/// Who sends requests, and to whom.
#[derive(Clone, Copy)]
pub(crate) struct Route(pub(crate) Party, pub(crate) Party);

/// Values that must be equal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Key,
    Token,
    IssuerNonce,
    ApiNonce,
}

impl Story {
    pub(crate) fn chapter(&mut self, title: &'static str) {
        let steps = Vec::new();
        self.chapters.push(Chapter { title, steps });
    }

    pub(crate) fn step(&mut self, title: &'static str) {
        let number = self.steps().count() + 1;
        let chapter = self.chapters.last_mut().expect("a chapter has begun");
        chapter.steps.push(Step {
            number,
            title,
            facts: Vec::new(),
            messages: Vec::new(),
        });
    }

    pub(crate) fn fact(&mut self, name: &'static str, value: &str) {
        self.last_step().facts.push((name, value.to_owned()));
    }

    pub(crate) fn message(&mut self, mut message: Message) {
        let number = self.last_step().number;
        for jwt in &mut message.jwts {
            let messages = self.steps().flat_map(|step| &step.messages);
            let mut before = messages.flat_map(|message| &message.jwts);
            let first = before.find(|before| before.text == jwt.text);
            jwt.is_first = first.is_none();
            jwt.step = first.map_or(number, |first| first.step);
        }
        self.last_step().messages.push(message);
    }

    /// Every occurrence of this value has the mark, earlier ones too.
    pub(crate) fn mark(&mut self, mark: Mark, value: &str) {
        self.marked.push((mark, value.to_owned()));
    }

    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.chapters.iter().flat_map(|chapter| &chapter.steps)
    }

    fn last_step(&mut self) -> &mut Step {
        let chapter = self.chapters.last_mut();
        let step = chapter.and_then(|chapter| chapter.steps.last_mut());
        step.expect("a step has begun")
    }

    /// The text in pieces: marked values, in their quotes if they have any, and what is between them.
    pub(crate) fn pieces<'t>(&self, text: &'t str) -> Vec<(&'t str, Option<Mark>)> {
        let mut pieces = Vec::new();
        let mut rest = text;
        let first = |rest: &str| {
            let found = self.marked.iter().filter_map(|(mark, value)| {
                let (start, end) = (rest.find(value)?, rest.find(value)? + value.len());
                let is_quoted = rest[..start].ends_with('"') && rest[end..].starts_with('"');
                let quote = usize::from(is_quoted);
                Some((start - quote, end + quote, *mark))
            });
            found.min_by_key(|(start, _, _)| *start)
        };
        while let Some((start, end, mark)) = first(rest) {
            pieces.push((&rest[..start], None));
            pieces.push((&rest[start..end], Some(mark)));
            rest = &rest[end..];
        }
        pieces.push((rest, None));
        pieces.retain(|(text, _)| !text.is_empty());
        pieces
    }

    /// The mark that what is computed from this JWT ought to have, if it has none: a proof by another
    /// key.
    pub(crate) fn differs_in(&self, jwt: &Jwt) -> Option<Mark> {
        let expected = if jwt.name == "proof" {
            Mark::Key
        } else {
            Mark::Token
        };
        let pieces = self.pieces(&jwt.computed.1);
        let is_equal = pieces.iter().any(|(_, mark)| *mark == Some(expected));
        (!is_equal).then_some(expected)
    }

    /// The marks of the values in a message, in the order of [`Mark::ALL`].
    pub(crate) fn marks_in(&self, message: &Message) -> Vec<Mark> {
        let mut texts: Vec<String> = Vec::new();
        for (_, value) in message.fields.iter().chain(&message.content.values) {
            texts.push(value.clone());
        }
        for jwt in &message.jwts {
            // A token that was sent before stands for itself, not for the key in it.
            if jwt.is_first || jwt.name == "proof" {
                texts.push(jwt.claims.to_string());
            }
            texts.push(jwt.computed.1.clone());
        }
        let found: Vec<_> = texts.iter().flat_map(|text| self.pieces(text)).collect();
        let is_found = |mark: &Mark| found.iter().any(|(_, it)| *it == Some(*mark));
        Mark::ALL.into_iter().filter(is_found).collect()
    }
}

impl Party {
    pub(crate) const ALL: [Self; 4] = [
        Self::Client,
        Self::AuthorizationServer,
        Self::ResourceServer,
        Self::Thief,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::AuthorizationServer => "authorization server",
            Self::ResourceServer => "resource server",
            Self::Thief => "thief",
        }
    }
}

impl Mark {
    pub(crate) const ALL: [Self; 4] = [Self::Key, Self::Token, Self::IssuerNonce, Self::ApiNonce];

    pub(crate) const fn letter(self) -> &'static str {
        match self {
            Self::Key => "K",
            Self::Token => "T",
            Self::IssuerNonce => "A",
            Self::ApiNonce => "R",
        }
    }

    /// What is marked, and which values must be equal.
    pub(crate) const fn meaning(self) -> (&'static str, &'static str) {
        match self {
            Self::Key => (
                "the client's key",
                "thumbprint of the jwk in each proof = dpop_jkt = cnf.jkt in the token",
            ),
            Self::Token => (
                "the token",
                "base64url(SHA-256(token)) = ath in each proof for the resource server",
            ),
            Self::IssuerNonce => (
                "nonce of the authorization server",
                "DPoP-Nonce in a response = nonce in the proof after it",
            ),
            Self::ApiNonce => (
                "nonce of the resource server",
                "DPoP-Nonce in a response = nonce in the proof after it",
            ),
        }
    }
}
