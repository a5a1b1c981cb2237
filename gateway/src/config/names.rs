//! Suggestions for unknown names.

/// What is expected instead of an unknown name.
pub(super) fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    let distance = |known: &&&str| strsim::levenshtein(name, known);
    match known.iter().min_by_key(distance) {
        None => "there are none".to_owned(),
        Some(nearest) if distance(&nearest) <= 3.min(name.chars().count() / 2) => {
            format!("did you mean {nearest}?")
        }
        Some(_) => format!("expected one of {}", known.join(", ")),
    }
}
