//! The result for people.

use super::{Checked, Kind, Row};
use crate::output::table::{Table, thousands};

impl Checked {
    /// As JSON, with a line feed at the end.
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data with string keys is always JSON");
        text.push('\n');
        text
    }

    /// As a table, and a line for each memory.
    pub fn text(&self) -> String {
        let mut table = Table::new(&["symbol", "kind", ">bytes", ">address", "section", "memory", ""]);
        for row in &self.items {
            table.row(cells(row));
        }
        let mut text: String = table.lines().iter().map(|line| format!("{line}\n")).collect();
        for (memory, bytes) in &self.memory {
            text += &format!("{memory}: {} bytes\n", thousands(*bytes));
        }
        let dropped = self.items.iter().filter(|row| row.address.is_none());
        let (count, bytes) = dropped.fold((0, 0u64), |(count, bytes), row| {
            (count + 1, bytes.saturating_add(row.bytes))
        });
        if count > 0 {
            text += &format!(
                "dropped by the linker: {count} of {}, {} bytes\n",
                self.items.len(),
                thousands(bytes)
            );
        }
        text
    }
}

fn cells(row: &Row) -> [String; 7] {
    let kind = match row.kind {
        Kind::Code => "code",
        Kind::Constant => "constant",
        Kind::Zero => "zero",
    };
    let address = row
        .address
        .map_or_else(|| "-".to_owned(), |address| format!("{address:#010x}"));
    let verdict = match (row.address, row.ok) {
        (None, _) => "dropped",
        (_, true) => "ok",
        (_, false) => "WRONG",
    };
    let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    [
        row.symbol.clone(),
        kind.into(),
        thousands(row.bytes),
        address,
        dash(&row.section),
        dash(&row.memory),
        verdict.into(),
    ]
}
