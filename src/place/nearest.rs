//! Which names a user may have meant.

/// Characters of a name that are compared: mistypings show early, and a model has many names.
const COMPARED: usize = 48;

/// The names most like `wanted`, best first, at most `count`: those that contain it or are contained in it, then by
/// Levenshtein's distance for each character of the longer one.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>, count: usize) -> Vec<&'a str> {
    let wanted: String = wanted.to_ascii_lowercase().chars().take(COMPARED).collect();
    let mut ranked: Vec<(bool, usize, &str)> = (names.into_iter())
        .map(|name| {
            let lower: String = name.to_ascii_lowercase().chars().take(COMPARED).collect();
            let apart = wanted.is_empty() || !lower.contains(&wanted) && !wanted.contains(&lower);
            let longer = wanted.chars().count().max(lower.chars().count()).max(1);
            (apart, 1000 * distance(&wanted, &lower) / longer, name)
        })
        .collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked.into_iter().take(count).map(|(.., name)| name).collect()
}

/// Levenshtein's distance: the least insertions, deletions and replacements of a character.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("fc1", "fc2", 1)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn what_was_meant_comes_first() {
        let names = ["conv2d_1_weights", "dense_5_weights", "dense_5_bias", "arena"];
        assert_eq!(nearest("dnse_5_bias", names, 1), ["dense_5_bias"]);
        assert_eq!(nearest("DENSE", names, 2), ["dense_5_bias", "dense_5_weights"]);
        assert_eq!(nearest("arenas", names, 1), ["arena"]);
        assert_eq!(
            nearest("dnse*", ["run", "dense_5", "a/dense"], 2),
            ["dense_5", "a/dense"]
        );
    }
}
