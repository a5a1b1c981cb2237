//! The sequence diagram of a story, as SVG. It shows no values, so it is the same in every run.

use crate::html::Html;
use crate::message::{Kind, Message};
use crate::story::{Chapter, Mark, Party, Step, Story};

pub(crate) const CSS: &str = include_str!("diagram.css");

/// Where things are, in pixels.
pub(crate) struct Geometry {
    class: &'static str,
    width: i32,
    /// The lifelines of [`Party::ALL`].
    columns: [i32; 4],
    /// The width of the box around a party's name.
    party: i32,
}

/// For screens and paper.
pub(crate) const WIDE: Geometry = Geometry {
    class: "wide",
    width: 860,
    columns: [110, 335, 560, 785],
    party: 124,
};

/// For phones.
pub(crate) const NARROW: Geometry = Geometry {
    class: "narrow",
    width: 360,
    columns: [46, 136, 226, 316],
    party: 86,
};

/// The heights of a chapter's head and of a message, and what is left free below a step and a chapter.
const HEAD: i32 = 86;
const MESSAGE: i32 = 54;
const BELOW_STEP: i32 = 8;
const BELOW_CHAPTER: i32 = 6;
/// Where the numbers of the steps are.
const NUMBERS: i32 = 14;

/// The diagram as a file, with its own colours and background.
pub(crate) fn svg(story: &Story) -> String {
    let mut file = diagram(story, &story.chapters, &WIDE, CSS);
    file.add("\n", []);
    file.into_string()
}

/// The diagram of these chapters, with a style and a legend. In a page that has both, `css` is empty.
pub(crate) fn diagram(
    story: &Story,
    chapters: &[Chapter],
    geometry: &Geometry,
    css: &'static str,
) -> Html {
    let (mut body, mut y) = (Html::default(), 0);
    for chapter in chapters {
        chapter_head(&mut body, geometry, y, chapter);
        y += HEAD;
        for step in &chapter.steps {
            one_step(&mut body, geometry, story, y, step);
            y += height(step);
        }
        y += BELOW_CHAPTER;
    }
    if !css.is_empty() {
        y += legend(&mut body, y);
    }
    let (mut svg, width) = (Html::default(), geometry.width);
    svg.add(
        r#"<svg xmlns="http://www.w3.org/2000/svg" role="img" class="{}" width="{}" height="{}" viewBox="0 0 {} {}">"#,
        [&geometry.class, &width, &y, &width, &y],
    );
    let title = "The messages between client, authorization server, resource server and thief";
    svg.add("\n<title>{}</title>", [&title]);
    if !css.is_empty() {
        svg.add("\n<style>\n", []);
        svg.add(css, []);
        svg.add("</style>", []);
    }
    svg.add(
        "\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n",
        [],
    );
    svg.append(&body);
    svg.add("</svg>", []);
    svg
}

/// A step without a message has one row, for what a party has computed.
fn height(step: &Step) -> i32 {
    let rows = i32::try_from(step.messages.len().max(1)).unwrap_or_default();
    MESSAGE * rows + BELOW_STEP
}

/// The title, and the parties above their lifelines.
fn chapter_head(svg: &mut Html, geometry: &Geometry, y: i32, chapter: &Chapter) {
    svg.add(
        r#"<rect class="band" y="{}" width="100%" height="30"/><text class="chapter" x="12" y="{}">{}</text>"#,
        [&y, &(y + 20), &chapter.title],
    );
    let (top, width) = (y + 42, geometry.party);
    let bottom = y + HEAD + chapter.steps.iter().map(height).sum::<i32>();
    for (party, x) in Party::ALL.into_iter().zip(geometry.columns) {
        svg.add(
            "\n<line class=\"lifeline\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
            [&x, &top, &x, &bottom],
        );
        svg.add(
            r#"<rect class="party" rx="5" x="{}" y="{}" width="{}" height="38"/>"#,
            [&(x - width / 2), &top, &width],
        );
        match party.name().split_once(' ') {
            Some((first, second)) => {
                text(svg, "name", (x, top + 16), first);
                text(svg, "name", (x, top + 31), second);
            }
            None => text(svg, "name", (x, top + 24), party.name()),
        }
    }
    svg.add("\n", []);
}

/// What the marks mean. Returns the height.
fn legend(svg: &mut Html, y: i32) -> i32 {
    let (mut x, middle) = (NUMBERS, y + 22);
    let mut add = |mark, meaning| {
        on_line(svg, (x, middle), &[mark]);
        x += 14;
        text(svg, "meaning", (x, middle + 4), meaning);
        x += 2 * half_width(meaning) + 20;
    };
    for mark in Mark::ALL {
        add(shown(mark), mark.meaning().0);
    }
    add(DIFFERS, "not equal");
    44
}

fn one_step(svg: &mut Html, geometry: &Geometry, story: &Story, y: i32, step: &Step) {
    let middle = y + 28;
    svg.add(
        r#"<circle class="number" r="9" cx="{}" cy="{}"/>"#,
        [&NUMBERS, &middle],
    );
    text(
        svg,
        "in-number",
        (NUMBERS, middle + 4),
        &step.number.to_string(),
    );
    for (name, value) in &step.facts {
        let client = geometry.columns[0];
        let marks = story.pieces(value).into_iter().filter_map(|(_, mark)| mark);
        let marks: Vec<_> = marks.map(shown).collect();
        on_line(svg, (client, middle), &marks);
        text(svg, "meaning", (client + 14, middle + 4), name);
    }
    for (row, message) in (0..).zip(&step.messages) {
        arrow(svg, geometry, story, middle + row * MESSAGE, message);
    }
    svg.add("\n", []);
}

fn arrow(svg: &mut Html, geometry: &Geometry, story: &Story, y: i32, message: &Message) {
    let (from, to) = (column(geometry, message.from), column(geometry, message.to));
    let back = if to > from { -9 } else { 9 };
    let kind = match message.kind {
        Kind::Request => "request",
        Kind::Accepted => "response ok",
        Kind::Rejected => "response bad",
    };
    svg.add("\n<g class=\"{}\">", [&kind]);
    svg.add(
        r#"<line class="arrow" x1="{}" y1="{}" x2="{}" y2="{}"/><path class="head" d="M{} {}l{} -4v8z"/>"#,
        [&from, &y, &(to + back), &y, &to, &y, &back],
    );
    let middle = i32::midpoint(from, to);
    let fitted = |text| {
        let half = half_width(text);
        middle
            .min(geometry.width - 4 - half)
            .max(NUMBERS + 13 + half)
    };
    text(
        svg,
        "label",
        (fitted(&message.label), y - 11),
        &message.label,
    );
    text(svg, "about", (fitted(message.about), y + 19), message.about);
    let mut marks: Vec<_> = story.marks_in(message).into_iter().map(shown).collect();
    let differs = message.jwts.iter().filter_map(|jwt| story.differs_in(jwt));
    marks.splice(..0, differs.map(|_| DIFFERS));
    on_line(svg, (middle, y), &marks);
    svg.add("</g>", []);
}

fn column(geometry: &Geometry, party: Party) -> i32 {
    let [client, authorization_server, resource_server, thief] = geometry.columns;
    match party {
        Party::Client => client,
        Party::AuthorizationServer => authorization_server,
        Party::ResourceServer => resource_server,
        Party::Thief => thief,
    }
}

/// As [`shown`]: where a value is not equal, as it must be.
const DIFFERS: (&str, &str) = ("differs", "≠");

/// The class and the letter of a mark.
const fn shown(mark: Mark) -> (&'static str, &'static str) {
    (class(mark), mark.letter())
}

/// The marks of a message, on its arrow.
fn on_line(svg: &mut Html, (x, y): (i32, i32), marks: &[(&'static str, &'static str)]) {
    const APART: i32 = 19;
    let others = i32::try_from(marks.len()).unwrap_or_default() - 1;
    for (at, (class, letter)) in (0..).zip(marks) {
        let x = x + at * APART - others * APART / 2;
        svg.add(
            r#"<g class="{}"><circle r="8" cx="{}" cy="{}"/>"#,
            [class, &x, &y],
        );
        text(svg, "letter", (x, y + 4), letter);
        svg.add("</g>", []);
    }
}

fn text(svg: &mut Html, class: &'static str, (x, y): (i32, i32), text: &str) {
    svg.add(
        r#"<text class="{}" x="{}" y="{}">{}</text>"#,
        [&class, &x, &y, &text],
    );
}

/// Half the width of a text, about: no font is known here.
fn half_width(text: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or_default() * 13 / 4
}

/// The class of a mark, in both style sheets.
pub(crate) const fn class(mark: Mark) -> &'static str {
    match mark {
        Mark::Key => "k",
        Mark::Token => "t",
        Mark::IssuerNonce => "a",
        Mark::ApiNonce => "r",
    }
}
