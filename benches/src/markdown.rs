//! The results as a page of Markdown.

use std::fmt::Write as _;

use crate::results::{Allocations, Label, Results, Rows, Section, Target, Time};
use crate::setting::Setting;

const METHOD: &str = "\
- Everything is a ratio to *one raw verify*: `ParsedPublicKey::verify_sig` of aws-lc-rs on the \
same signatures, in the same run, on the same thread.
- A round takes 50 requests between two halves of their raw verifications. Rows take turns; a \
figure is the median of its rounds' ratios, with the quartiles beside it.
- Times are the processor's on this one thread, pinned to one core, so that other processes' turns \
do not count.
- Keys, tokens and proofs are real, and made between the timed parts. Only what is called warm was \
seen before.
- Release builds with `lto = \"fat\"` and one codegen unit: one for each engine, and one for the \
other crates.
";

const INTRODUCTION: &str = "\
# What a request costs

Written by `benches/run`, the one command behind every figure. Absolute times are of one machine, \
and move with its other work: read the ratios.
";

const QUICK: &str = "\
**A quick run, which proves only that everything still runs: no time below says anything.**

";

/// The whole page. The chart is a file beside it.
pub fn page(results: &Results, setting: &Setting, date: &str, chart: &str) -> String {
    let mut page = format!("{INTRODUCTION}\n![Ratios to one raw verification]({chart})\n\n");
    if results.quick {
        page += QUICK;
    }
    page += &targets(results);
    for section in &results.sections {
        page += &table(section);
    }
    page + "## Method\n\n" + METHOD + "\n" + &machine(setting, date)
}

/// Each target beside the highest figure that it is for.
fn targets(results: &Results) -> String {
    let mut found: Vec<(&Target, &Label, f64)> = Vec::new();
    for (label, figure) in results.sections.iter().flat_map(figures) {
        let Some(target) = &label.target else {
            continue;
        };
        match found.iter_mut().find(|(known, _, _)| *known == target) {
            None => found.push((target, label, figure)),
            Some(highest) if figure > highest.2 => *highest = (target, label, figure),
            Some(_) => {}
        }
    }
    let mut text = String::from("## Targets\n\n| | at most | measured | |\n|---|---:|---:|---|\n");
    for (target, label, figure) in found {
        let Target { name, at_most } = target;
        let result = if figure <= *at_most {
            "met"
        } else {
            "**missed**"
        };
        let figure = number(figure);
        let _ = writeln!(
            text,
            "| {name} | {at_most} | {figure} | {result}: {} |",
            label.name
        );
    }
    text + "\n"
}

fn figures(section: &Section) -> Vec<(&Label, f64)> {
    match &section.rows {
        Rows::Micros(times) | Rows::Nanos(times) => times
            .iter()
            .map(|time| (&time.label, time.ratio.median))
            .collect(),
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        Rows::Allocations(counts) => counts
            .iter()
            .map(|count| (&count.label, count.median as f64))
            .collect(),
        Rows::Bytes(sizes) => sizes.iter().map(|(label, bytes)| (label, *bytes)).collect(),
    }
}

fn table(section: &Section) -> String {
    let Section { title, text, rows } = section;
    let mut table = format!("## {title}\n\n{text}\n\n");
    match rows {
        Rows::Micros(times) => table += &time_rows(times, "µs", 1.0),
        Rows::Nanos(times) => table += &time_rows(times, "ns", 1e3),
        Rows::Bytes(sizes) => {
            table += "| | bytes | |\n|---|---:|---|\n";
            for (label, bytes) in sizes {
                let _ = writeln!(table, "| {} | {bytes:.0} | {} |", label.name, note(label));
            }
        }
        Rows::Allocations(counts) => {
            table += "| | allocations | mean | bytes | |\n|---|---:|---:|---:|---|\n";
            for Allocations {
                label,
                median,
                mean,
                bytes,
            } in counts
            {
                let (name, note) = (&label.name, note(label));
                let _ = writeln!(
                    table,
                    "| {name} | {median} | {mean:.1} | {bytes} | {note} |"
                );
            }
        }
    }
    table + "\n"
}

fn time_rows(times: &[Time], unit: &str, in_a_micro: f64) -> String {
    let mut rows = format!(
        "| | ratio | quartiles | {unit} | raw verify, µs | |\n|---|---:|---:|---:|---:|---|\n"
    );
    for time in times {
        rows += &time_row(time, in_a_micro);
    }
    rows
}

fn time_row(time: &Time, in_a_micro: f64) -> String {
    let Time {
        label,
        ratio,
        micros,
        raw_micros,
    } = time;
    format!(
        "| {} | **{}** | {} to {} | {} | {} | {} |\n",
        label.name,
        number(ratio.median),
        number(ratio.low),
        number(ratio.high),
        number(micros * in_a_micro),
        number(*raw_micros),
        note(label),
    )
}

fn note(label: &Label) -> String {
    let target = label.target.as_ref();
    let target = target.map(|target| format!("at most {}", target.at_most));
    let note = (!label.note.is_empty()).then(|| label.note.clone());
    let parts: Vec<String> = [target, note].into_iter().flatten().collect();
    parts.join("; ")
}

fn machine(setting: &Setting, date: &str) -> String {
    let mut text = String::from("## Machine and versions\n\n");
    let cores = setting.cores;
    let Setting {
        processor, kernel, ..
    } = setting;
    let _ = writeln!(text, "- {date}, {processor}, {cores} cores, {kernel}");
    let _ = writeln!(text, "- {}", setting.rustc);
    let crates: Vec<String> = setting
        .crates
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let _ = writeln!(text, "- {}", crates.join(", "));
    text
}

/// Three digits that say something, whatever the size.
pub fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else if value >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}
