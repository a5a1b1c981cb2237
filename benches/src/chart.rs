//! The ratios as bars, in plain SVG that is read in light and in dark.

use std::fmt::Write as _;

use crate::markdown::number;
use crate::results::{Label, Party, Results, Rows, Time};

const WIDTH: f64 = 860.0;
/// Where bars begin: names stand on the left.
const LEFT: f64 = 290.0;
/// Figures stand behind the bars.
const RIGHT: f64 = 60.0;
const TOP: f64 = 62.0;
const LINE: f64 = 24.0;
const BAR: f64 = 14.0;

const LEGEND: &str =
    "dashed: one raw verification by aws-lc-rs; red: the target; grey: other crates";

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #1f2328 } \
.title { font-weight: 600; font-size: 15px } \
.group { font-weight: 600 } \
.quiet { fill: #59636e } \
.ours { fill: #2f6fde } \
.others { fill: #8c959f } \
.yardstick { stroke: #59636e; stroke-dasharray: 3 3 } \
.target { stroke: #cf222e; stroke-width: 2 } \
.ground { fill: #ffffff } \
@media (prefers-color-scheme: dark) { \
text { fill: #e6edf3 } \
.quiet { fill: #9198a1 } \
.ours { fill: #5b9bff } \
.others { fill: #6e7681 } \
.yardstick { stroke: #9198a1 } \
.target { stroke: #ff7b72 } \
.ground { fill: #0d1117 } \
}";

/// The rows that ask for a bar, below the titles of their tables.
pub fn svg(results: &Results) -> String {
    let groups: Vec<(&str, Vec<(&Time, Party)>)> = results
        .sections
        .iter()
        .map(|section| (section.title.as_str(), charted(&section.rows)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let longest = groups
        .iter()
        .flat_map(|(_, bars)| bars)
        .map(|(time, _)| time.ratio.median)
        .fold(1.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / longest;

    let mut y = TOP;
    let mut drawn = String::new();
    for (title, bars) in groups {
        let baseline = y + BAR;
        let _ = writeln!(
            drawn,
            r#"<text class="group" x="16" y="{baseline}">{}</text>"#,
            escaped(title)
        );
        y += LINE;
        for (time, party) in bars {
            drawn += &bar(time, party, scale, y);
            y += LINE;
        }
    }
    let (height, one) = (y + 12.0, LEFT + scale);
    let mut svg = String::from(r#"<svg xmlns="http://www.w3.org/2000/svg" role="img""#);
    let _ = write!(
        svg,
        r#" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">
<title>What a request costs, as a ratio to one raw verification</title>
<style>{STYLE}</style>
<rect class="ground" width="100%" height="100%" rx="6"/>
<text class="title" x="16" y="26">What a request costs, in raw verifications of its signature</text>
<text class="quiet" x="16" y="46">{LEGEND}</text>
<line class="yardstick" x1="{one:.1}" x2="{one:.1}" y1="{TOP}" y2="{y}"/>
{drawn}</svg>
"#
    );
    svg
}

fn charted(rows: &Rows) -> Vec<(&Time, Party)> {
    match rows {
        Rows::Micros(times) => times
            .iter()
            .filter_map(|time| Some((time, time.label.charted?)))
            .collect(),
        Rows::Nanos(_) | Rows::Allocations(_) | Rows::Bytes(_) => Vec::new(),
    }
}

fn bar(time: &Time, party: Party, scale: f64, y: f64) -> String {
    let Label { name, target, .. } = &time.label;
    let class = match party {
        Party::Ours => "ours",
        Party::Others => "others",
    };
    let ratio = time.ratio.median;
    // The thinnest bar is still one.
    let width = (ratio * scale).max(1.0);
    let (end, baseline) = (LEFT + width, y + BAR - 2.0);
    let mut drawn = format!(
        r#"<text x="{:.1}" y="{baseline:.1}" text-anchor="end">{}</text>
<rect class="{class}" x="{LEFT}" y="{y:.1}" width="{width:.1}" height="{BAR}" rx="2"/>
"#,
        LEFT - 10.0,
        escaped(name),
    );
    let mut figure = end;
    if let Some(target) = target {
        let x = LEFT + target.at_most * scale;
        figure = figure.max(x);
        let (from, to) = (y - 3.0, y + BAR + 3.0);
        let _ = writeln!(
            drawn,
            r#"<line class="target" x1="{x:.1}" x2="{x:.1}" y1="{from:.1}" y2="{to:.1}"/>"#
        );
    }
    let _ = writeln!(
        drawn,
        r#"<text class="quiet" x="{:.1}" y="{baseline:.1}">{}</text>"#,
        figure + 6.0,
        number(ratio),
    );
    drawn
}

/// A name as SVG has it: no Markdown, and nothing that is markup there.
fn escaped(name: &str) -> String {
    name.replace('`', "")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
}
