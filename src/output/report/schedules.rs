//! The schedules of layers and their runners-up, as a text for people.

use super::super::table::{Table, thousands};
use super::text::{TITLE, styled};
use super::{Candidate, Layer, Report};
use std::collections::BTreeMap;

impl Report {
    /// For each layer its schedule, what else it could have been, and what each takes.
    pub fn schedules(&self) -> String {
        let candidates = || self.layers.iter().flat_map(|layer| &layer.candidates);
        if candidates().next().is_none() {
            return String::new();
        }
        let counted = candidates().any(|candidate| candidate.instructions.is_some());
        let modelled = candidates().any(|candidate| candidate.cycles.is_some());
        let mut columns = vec!["", "operator", ">MACs"];
        columns.push(if counted { ">instructions" } else { ">estimate" });
        columns.push(">against");
        if modelled {
            columns.push(">cycles (modelled)");
        }
        columns.extend([">code", ">scratch", ">unroll", "schedule", "asked for by"]);
        let mut table = Table::new(&columns);
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        for layer in self.layers.iter().filter(|layer| !layer.candidates.is_empty()) {
            // What is the same code for the same operator has the same runners-up.
            let known = *first.entry(&layer.kernel).or_insert(layer.index);
            if known != layer.index {
                let mut row = vec![
                    layer.index.to_string(),
                    layer.operator.to_owned(),
                    thousands(layer.macs),
                ];
                row.push(
                    layer
                        .instructions
                        .map_or_else(String::new, |count| thousands(count.most)),
                );
                row.push(format!("as {known}"));
                table.row(row);
                continue;
            }
            let chosen = layer.candidates.iter().find(|candidate| candidate.chosen);
            let own = chosen.and_then(cost).or(layer.instructions.map(|count| count.most));
            for (index, candidate) in layer.candidates.iter().enumerate() {
                let (number, operator, macs) = match index {
                    0 => (
                        layer.index.to_string(),
                        layer.operator.to_owned(),
                        thousands(layer.macs),
                    ),
                    _ => Default::default(),
                };
                let mut row = vec![number, operator, macs];
                row.push(cost(candidate).map_or_else(|| "?".into(), thousands));
                row.push(against(candidate, own));
                if modelled {
                    row.push(candidate.cycles.map_or_else(String::new, thousands));
                }
                let unroll = layer
                    .layout
                    .as_ref()
                    .filter(|_| candidate.chosen)
                    .and_then(|layout| layout.unroll);
                row.extend([
                    thousands(candidate.code),
                    thousands(candidate.scratch),
                    unroll.map_or_else(String::new, |unroll| unroll.to_string()),
                    candidate.schedule.clone(),
                    candidate.asked_by.join(", "),
                ]);
                table.row(row);
            }
        }
        let mut text = String::from("\n");
        for (index, line) in table.lines().iter().enumerate() {
            text += &if index == 0 { styled(TITLE, line) } else { line.clone() };
            text.push('\n');
        }
        text += &self.layouts();
        text += match counted {
            true => "\ninstructions are exact, or at most; of layers by rows, all steps of the kernel\n",
            false => {
                "\nthe estimate is executed instructions of the intermediate code: this target's are not counted\n"
            }
        };
        if let Some(cycles) = self.cycles {
            text += &format!("cycles (modelled): {}, {}\n", cycles.core, cycles.source);
        }
        text
    }

    /// How operands lie, once for each form of loop.
    fn layouts(&self) -> String {
        let mut forms: BTreeMap<(&str, &str), Vec<&Layer>> = BTreeMap::new();
        for layer in &self.layers {
            if let Some(layout) = &layer.layout {
                forms
                    .entry((layout.activations, layout.weights))
                    .or_default()
                    .push(layer);
            }
        }
        let mut forms: Vec<_> = forms.into_iter().collect();
        forms.sort_by_key(|(_, layers)| layers[0].index);
        let mut text = String::new();
        for ((activations, weights), layers) in forms {
            let numbers: Vec<String> = layers.iter().map(|layer| layer.index.to_string()).collect();
            let layers = if numbers.len() == 1 { "layer" } else { "layers" };
            text += &format!("\n{} {}\n", styled(TITLE, layers), numbers.join(", "));
            text += &format!("  activations  {activations}\n  weights      {weights}\n");
        }
        text
    }
}

/// What candidates are compared by.
fn cost(candidate: &Candidate) -> Option<u64> {
    candidate.instructions.map(|count| count.most).or(candidate.estimate)
}

/// `chosen`, or how much more or less than the chosen one.
fn against(candidate: &Candidate, own: Option<u64>) -> String {
    match (candidate.chosen, cost(candidate), own) {
        (true, ..) => "chosen".into(),
        (_, Some(cost), Some(own)) if own > 0 => {
            format!("{:+.1}%", (cost as f64 / own as f64 - 1.0) * 100.0)
        }
        _ => String::new(),
    }
}
