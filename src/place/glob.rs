//! Patterns on names: `*` any characters, `?` one, `[a-z]` one of a set, `[!a-z]` one outside it.

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Any,
    One,
    Char(char),
    Set { ranges: Vec<(char, char)>, negated: bool },
}

impl Glob {
    /// Reads a pattern; `None` if a `[` has no `]`.
    pub fn new(text: &str) -> Option<Glob> {
        let mut pieces = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            pieces.push(match c {
                '*' => Piece::Any,
                '?' => Piece::One,
                '[' => {
                    let negated = chars.next_if_eq(&'!').is_some();
                    let mut ranges = Vec::new();
                    loop {
                        let from = chars.next()?;
                        // A `]` in front is one of the characters.
                        if from == ']' && !ranges.is_empty() {
                            break;
                        }
                        let mut ahead = chars.clone();
                        ahead.next();
                        let to = if chars.peek() == Some(&'-') && ahead.peek().is_some_and(|c| *c != ']') {
                            chars.next();
                            chars.next()?
                        } else {
                            from
                        };
                        ranges.push((from, to));
                    }
                    Piece::Set { ranges, negated }
                }
                c => Piece::Char(c),
            });
        }
        Some(Glob(pieces))
    }

    /// Whether the whole of `name` matches; on a mismatch only the last `*` takes one more character.
    pub fn matches(&self, name: &str) -> bool {
        let pieces = &self.0;
        let name: Vec<char> = name.chars().collect();
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            let fits = match pieces.get(p) {
                Some(Piece::Any) => {
                    star = Some((p, n));
                    p += 1;
                    continue;
                }
                Some(Piece::One) => true,
                Some(Piece::Char(c)) => *c == name[n],
                Some(Piece::Set { ranges, negated }) => {
                    ranges.iter().any(|(from, to)| (*from..=*to).contains(&name[n])) != *negated
                }
                None => false,
            };
            if fits {
                (p, n) = (p + 1, n + 1);
            } else if let Some((at, from)) = star {
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            } else {
                return false;
            }
        }
        pieces[p..].iter().all(|piece| *piece == Piece::Any)
    }

    /// The characters that a name must have: what its likeness to other names is measured by.
    pub fn literal(&self) -> String {
        let chars = self.0.iter().filter_map(|piece| match piece {
            Piece::Char(c) => Some(*c),
            _ => None,
        });
        chars.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, expected) in [
            ("fc*", "fc1/weights", true),
            ("fc*", "conv/fc1", false),
            ("*fc*", "conv/fc1", true),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("conv[0-3]/w", "conv2/w", true),
            ("conv[0-3]/w", "conv4/w", false),
            ("conv[!0-3]", "conv4", true),
            ("x[]a]", "x]", true),
            ("x[a-]", "x-", true),
            ("ab", "abc", false),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
        assert_eq!(Glob::new("a[b"), None);
        assert_eq!(Glob::new("conv[0-9]*/w").unwrap().literal(), "conv/w");
    }

    #[test]
    fn stars_do_not_explode() {
        let pattern = Glob::new(&format!("{}b", "*a".repeat(40))).unwrap();
        assert!(!pattern.matches(&"a".repeat(4000)));
    }
}
