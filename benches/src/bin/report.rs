//! Writes what was found: `report DATE METADATA PAGE CHART RESULTS...`.

use std::env;
use std::fs;
use std::path::PathBuf;

use tower_dpop_benches::results::Results;
use tower_dpop_benches::setting::Setting;
use tower_dpop_benches::{chart, markdown};

fn main() {
    let mut arguments = env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .expect("usage: report DATE METADATA PAGE CHART RESULTS...")
    };
    let (date, metadata) = (next(), PathBuf::from(next()));
    let (page_file, chart_file) = (PathBuf::from(next()), PathBuf::from(next()));
    let parts: Vec<Results> = arguments
        .map(|file| Results::read(&PathBuf::from(file)))
        .collect();
    let results = Results {
        quick: parts.iter().any(|part| part.quick),
        sections: parts.into_iter().flat_map(|part| part.sections).collect(),
    };
    let name = chart_file.file_name().expect("the chart is a file");
    let page = markdown::page(
        &results,
        &Setting::read(&metadata),
        &date,
        &name.to_string_lossy(),
    );
    print!("{page}");
    fs::write(page_file, page).expect("the page can be written");
    fs::write(chart_file, chart::svg(&results)).expect("the chart can be written");
}
