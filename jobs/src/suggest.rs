//! "Did you mean": the nearest of the names that would have been right.

/// Help for a name that is not among the known ones.
pub(crate) fn did_you_mean<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest(name, known).map(|near| format!("did you mean {near:?}?"))
}

/// As [`did_you_mean`], or else all of them.
pub(crate) fn did_you_mean_or_all<'k>(
    name: &str,
    known: impl IntoIterator<Item = &'k str> + Clone,
    all: &str,
) -> String {
    did_you_mean(name, known.clone()).unwrap_or_else(|| {
        let known: Vec<_> = known.into_iter().collect();
        if known.is_empty() { format!("{all}: none") } else { format!("{all}: {}", known.join(", ")) }
    })
}

fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = name.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&plain, &known.to_lowercase().replace('-', "_")), known))
        .min()
        .filter(|(distance, known)| distance * 3 <= plain.len().max(known.len()))
        .map(|(_, known)| known)
}
