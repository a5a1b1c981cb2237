//! The story as one HTML page, which loads nothing and has no script.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::diagram::{NARROW, WIDE, class, diagram};
use crate::html::Html;
use crate::jwt::Jwt;
use crate::message::{Kind, Message, shortened};
use crate::story::{Mark, Step, Story};

const STYLE: &str = concat!("\n", include_str!("diagram.css"), include_str!("page.css"));

/// Nothing is loaded and nothing runs. The only style is the one with this hash. The page is well-formed
/// XML, too.
const HEAD: &str = r#"<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="en">
<head>
<meta charset="utf-8"/>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>DPoP: a stolen token is useless without the key</title>
<style>"#;

const INTRODUCTION: &str = r#"</style>
</head>
<body>
<h1>DPoP: a stolen token is useless without the key</h1>
<p>A client gets an access token that is bound to its key, and uses it. A thief who has read the request with the
token is rejected. Everything below was sent over HTTP between these parties. DPoP is
<a href="https://www.rfc-editor.org/rfc/rfc9449">RFC 9449</a>.</p>
"#;

const MARKS: &str = r#"</dl>
<p>Values with the same mark must be equal; ≠ marks one that is not:</p>
<dl class="marks">
"#;

const FIELDS_IN_FULL: &str = r"</div>
<details><summary>header fields in full</summary>
<pre>";

const REJECTIONS: &str = r#"<h2>Every defect that a request can have, one at a time</h2>
<p>Each of these requests has one defect and is otherwise valid. The resource server rejected each for the reason shown.
Some defects are in tokens, which only an issuer can sign: here the issuer is the test kit's.</p>
<table id="rejections">
<thead><tr><th>defect</th><th>status</th><th>error</th><th class="description">description</th></tr></thead>
<tbody>
"#;

const FOOT: &str = r"</tbody>
</table>
<footer><p>Written by <code>cargo run --example flow -- --html FILE</code> of tower-dpop. The servers of that run have
ended and their keys are gone, so no value on this page can be used again.</p></footer>
</body>
</html>
";

pub(crate) fn html(story: &Story) -> String {
    let html = Html::default();
    let mut page = Page { story, html };
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    page.html.add(HEAD, [&hash]);
    page.html.add(STYLE, []);
    page.html.add(INTRODUCTION, []);
    page.overview();
    for chapter in &story.chapters {
        page.html.add("<h2>{}</h2>\n", [&chapter.title]);
        for step in &chapter.steps {
            page.step(step);
        }
    }
    page.html.add(REJECTIONS, []);
    for row in &story.rejections {
        page.html.add(
            "<tr><td>{}</td><td>{}</td><td class=\"error\">{}</td><td class=\"description\">{}</td></tr>\n",
            [&row.defect, &row.status, &row.error, &row.description],
        );
    }
    page.html.add(FOOT, []);
    page.html.into_string()
}

struct Page<'s> {
    story: &'s Story,
    html: Html,
}

impl Page<'_> {
    /// The parties, the marks, and the diagram.
    fn overview(&mut self) {
        self.html.add("<dl class=\"parties\">\n", []);
        for (party, about) in &self.story.parties {
            let name = party.name();
            self.html.add("<dt>{}</dt><dd>{}</dd>\n", [&name, about]);
        }
        self.html.add(MARKS, []);
        for mark in Mark::ALL {
            let (name, equal) = mark.meaning();
            self.html.add(
                "<dt><mark class=\"{}\">{}</mark></dt><dd>{}<br/><code>{}</code></dd>\n",
                [&class(mark), &mark.letter(), &name, &equal],
            );
        }
        self.html.add("</dl>\n<figure>\n", []);
        // One picture per chapter, so that paper is cut between them.
        for chapter in self.story.chapters.chunks(1) {
            for geometry in [&WIDE, &NARROW] {
                self.html
                    .append(&diagram(self.story, chapter, geometry, ""));
            }
        }
        self.html.add("</figure>\n", []);
    }

    fn step(&mut self, step: &Step) {
        self.html.add(
            "<section>\n<h3><span class=\"number\">{}</span>{}</h3>\n",
            [&step.number, &step.title],
        );
        self.list(&step.facts);
        for message in &step.messages {
            self.message(message);
        }
        self.html.add("</section>\n", []);
    }

    /// On the left the message, and on the right the JWTs in it.
    fn message(&mut self, message: &Message) {
        let kind = match message.kind {
            Kind::Request => "message",
            Kind::Accepted => "message ok",
            Kind::Rejected => "message bad",
        };
        self.html.add(
            "<article class=\"{}\">\n<header>{} → {}</header>\n<div class=\"columns\">\n",
            [&kind, &message.from.name(), &message.to.name()],
        );
        let start = &message.start;
        self.html.add("<div>\n<p class=\"start\">{}</p>\n", [start]);
        self.list(&message.fields);
        if !message.content.values.is_empty() {
            let place = message.content.place;
            self.html.add("<h4>{}</h4>\n", [&place]);
            self.list(&message.content.values);
        }
        self.html.add("</div>\n", []);
        if !message.jwts.is_empty() {
            self.html.add("<div class=\"jwts\">\n", []);
            for jwt in &message.jwts {
                self.jwt(jwt);
            }
            self.html.add("</div>\n", []);
        }
        self.html.add(FIELDS_IN_FULL, []);
        for (name, value) in message.fields.iter().chain(&message.other_fields) {
            self.html.add("{}: {}\n", [name, value]);
        }
        self.html.add("</pre></details>\n</article>\n", []);
    }

    fn jwt(&mut self, jwt: &Jwt) {
        if jwt.is_first {
            for (part, json) in [("header", &jwt.header), ("claims", &jwt.claims)] {
                self.html.add("<h4>{}: {}</h4>\n<pre>", [&jwt.name, &part]);
                self.marked(&format!("{json:#}"));
                self.html.add("</pre>\n", []);
            }
        } else {
            let heading = "<h4>{} (as in step {})</h4>\n";
            self.html.add(heading, [&jwt.name, &jwt.step]);
        }
        let (name, value) = &jwt.computed;
        self.list(&[(*name, value.clone())]);
        if let Some(mark) = self.story.differs_in(jwt) {
            let warning = "<p class=\"differs\">≠ {}: not {}</p>\n";
            self.html.add(warning, [&mark.letter(), &mark.meaning().0]);
        }
    }

    fn list(&mut self, values: &[(impl AsRef<str>, String)]) {
        if values.is_empty() {
            return;
        }
        self.html.add("<dl class=\"values\">\n", []);
        for (name, value) in values {
            self.html.add("<dt>{}</dt><dd>", [&name.as_ref()]);
            self.marked(&shortened(value));
            self.html.add("</dd>\n", []);
        }
        self.html.add("</dl>\n", []);
    }

    /// Text, in which marked values are marked.
    fn marked(&mut self, text: &str) {
        for (piece, mark) in self.story.pieces(text) {
            match mark {
                None => self.html.add("{}", [&piece]),
                Some(mark) => self.html.add(
                    "<mark class=\"{}\">{}<b>{}</b></mark>",
                    [&class(mark), &piece, &mark.letter()],
                ),
            }
        }
    }
}
