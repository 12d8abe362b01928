//! Tables of text, columns aligned by what they hold.

/// Rows of cells.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// For each column, whether its cells stand to the right.
    right: Vec<bool>,
}

impl Table {
    /// A table with a first row of titles; `>title` stands to the right.
    pub fn new(titles: &[&str]) -> Self {
        let mut table = Table {
            right: titles.iter().map(|title| title.starts_with('>')).collect(),
            ..Table::default()
        };
        table.row(titles.iter().map(|title| title.trim_start_matches('>').to_owned()));
        table
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The rows as lines, without a space at their ends.
    pub fn lines(&self) -> Vec<String> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                let space = " ".repeat(widths[i] - cell.chars().count());
                let gap = if i == 0 { "" } else { "  " };
                line += &if self.right[i] {
                    format!("{gap}{space}{cell}")
                } else {
                    format!("{gap}{cell}{space}")
                };
            }
            line.trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

/// 1234567 as `1,234,567`.
pub(crate) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["layer", ">bytes", "kernel"]);
        table.row(["conv".into(), "1,234".into(), "a".into()]);
        table.row(["é".into(), "5".into(), String::new()]);
        assert_eq!(
            table.lines(),
            ["layer  bytes  kernel", "conv   1,234  a", "é          5"]
        );
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(thousands),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
