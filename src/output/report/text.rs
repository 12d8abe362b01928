//! The report as a text for people.

use super::super::table::{Table, thousands};
use super::{Dropped, Placed, Report};
use anstyle::{AnsiColor, Style};

/// Most things that a rule took which the text names one by one.
const PLACED: usize = 4;
/// Most layers that have a bar.
const BARS: usize = 80;
/// Width of the longest bar.
const BAR: u64 = 40;
/// Most buffers of the peak that the text names.
const LIVE: usize = 8;
/// Most dropped parameters that the text names one by one.
const DROPPED: usize = 12;

pub(super) const TITLE: Style = Style::new().bold();
pub(super) const FAINT: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();

pub(super) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

impl Report {
    /// The totals, with colours: print it through `anstream`.
    pub fn summary(&self) -> String {
        let Report {
            model,
            target,
            flash,
            ram,
            ..
        } = self;
        let n = thousands;
        let mut text = format!(
            "{}  {}, {} operators, {} MACs\n{}  {} ({}{})\n",
            styled(TITLE, "model "),
            model.file,
            model.operators,
            n(model.macs),
            styled(TITLE, "target"),
            target.triple,
            target.cpu,
            target.abi.as_ref().map(|abi| format!(", {abi}")).unwrap_or_default(),
        );
        text += &format!(
            "{}  {} bytes: {} weights, {} biases, {} scales, {} tables, {} code\n",
            styled(TITLE, "flash "),
            n(flash.total),
            n(flash.weights),
            n(flash.biases),
            n(flash.scales),
            n(flash.tables),
            n(flash.code),
        );
        if let Some(outside) = &self.outside {
            let how = match outside.buffer {
                Some(buffer) => format!("read in pieces of at most {} into two buffers of the arena", n(buffer)),
                None => "read in place".into(),
            };
            text += &format!(
                "{}  {} bytes of parameters outside the object, {how}\n",
                styled(TITLE, "image "),
                n(outside.image)
            );
        }
        let bound = if ram.arena == ram.lower_bound {
            styled(GOOD, "the least for this order of operators")
        } else if ram.optimal {
            format!(
                "{}, above the peak of live bytes, {}",
                styled(GOOD, "proven to be the least"),
                n(ram.lower_bound)
            )
        } else {
            format!("lower bound {}", n(ram.lower_bound))
        };
        let io = match ram.io {
            "arena" => "inputs and outputs inside",
            _ => "inputs and outputs not counted",
        };
        text += &format!(
            "{}  {} bytes: {} arena ({bound}; {io}), {} stack\n",
            styled(TITLE, "RAM   "),
            n(ram.arena + ram.stack),
            n(ram.arena),
            n(ram.stack),
        );
        let accesses: u64 = ram.pools.iter().map(|pool| pool.accesses).sum();
        for pool in &ram.pools {
            let share = pool.accesses as f64 * 100.0 / accesses.max(1) as f64;
            text += &format!(
                "{}  {}: {} of {} bytes, {share:.1}% of the accesses\n",
                styled(TITLE, "memory"),
                pool.name,
                n(pool.bytes),
                n(pool.capacity)
            );
        }
        if let Some(instructions) = self.instructions {
            let per_mac = instructions.most as f64 / model.macs.max(1) as f64;
            text += &format!(
                "{}  {instructions} instructions, {per_mac:.2} for each MAC\n",
                styled(TITLE, "run   ")
            );
        }
        if let Some(cycles) = self.cycles {
            let instructions = self.instructions.map_or(0, |instructions| instructions.most);
            text += &format!(
                "{}  {} (modelled, {}: {:.2} for each instruction)\n",
                styled(TITLE, "cycles"),
                n(cycles.most),
                cycles.core,
                cycles.most as f64 / instructions.max(1) as f64,
            );
        }
        text
    }

    /// Inputs and outputs, one line each.
    pub fn ports(&self) -> String {
        let mut text = String::new();
        for (word, ports) in [("input ", &self.inputs), ("output", &self.outputs)] {
            for port in ports {
                let quantization = match (port.scale, port.zero_point) {
                    (Some(scale), Some(zero)) => format!(", scale {scale}, zero point {zero}"),
                    _ => String::new(),
                };
                let pool = port.pool.as_ref().map(|pool| format!(" in {pool}")).unwrap_or_default();
                let offset = port
                    .offset
                    .map(|offset| format!(", at {} in the arena{pool}", thousands(offset)));
                text += &format!(
                    "{}  {} {}{:?}{quantization}{}\n",
                    styled(TITLE, word),
                    port.member,
                    port.dtype,
                    port.shape,
                    offset.unwrap_or_default()
                );
            }
        }
        text
    }

    /// One line for each layer.
    pub fn layers(&self) -> String {
        let counted = self.layers.iter().any(|layer| layer.instructions.is_some());
        let mut columns = vec![
            ">", "operator", "result", ">MACs", ">params", ">code", ">live", ">scratch", "kernel", "schedule",
        ];
        if counted {
            columns.insert(4, ">instructions");
        }
        let mut table = Table::new(&columns);
        for layer in &self.layers {
            let mut row = vec![
                layer.index.to_string(),
                layer.operator.to_owned(),
                format!("{}{:?}", layer.dtype, layer.shape).replace(' ', ""),
                thousands(layer.macs),
                thousands(layer.parameters),
                if layer.shared {
                    "shared".into()
                } else {
                    thousands(layer.code)
                },
                thousands(layer.live),
                thousands(layer.scratch),
                layer.kernel.clone(),
                layer.schedule.clone(),
            ];
            if counted {
                row.insert(
                    4,
                    layer.instructions.map_or_else(|| "?".into(), |count| count.to_string()),
                );
            }
            table.row(row);
        }
        let mut text = String::new();
        for (i, line) in table.lines().iter().enumerate() {
            text += &if i == 0 { styled(TITLE, line) } else { line.clone() };
            text.push('\n');
        }
        text
    }

    /// What each rule put where.
    pub fn placement(&self) -> String {
        let mut text = String::new();
        for Placed {
            rule,
            section,
            memory,
            items,
        } in &self.placement
        {
            let bytes: u64 = items.iter().map(|item| item.bytes).sum();
            let memory = memory
                .as_ref()
                .map(|memory| format!(" in {memory}"))
                .unwrap_or_default();
            let mut names: Vec<&str> = items.iter().take(PLACED).map(|item| item.symbol.as_str()).collect();
            let more = items.len().saturating_sub(PLACED);
            let rest = format!("and {more} more");
            if more > 0 {
                names.push(&rest);
            }
            let (places, list) = (styled(TITLE, "placed"), names.join(", "));
            text += &format!(
                "{places}  {rule}: {} bytes to {section}{memory}: {list}\n",
                thousands(bytes)
            );
        }
        text
    }

    /// The most live bytes of each layer as bars, and what is live at the peak.
    pub fn peak(&self) -> String {
        let Some(peak) = &self.peak else {
            return String::new();
        };
        let mut text = String::new();
        let most = self.layers.iter().map(|layer| layer.live).max().unwrap_or(0).max(1);
        for layer in self.layers.iter().take(BARS) {
            let bar = "█".repeat((layer.live * BAR).div_ceil(most) as usize);
            let rows = if layer.rows > 0 { " by rows" } else { "" };
            text += &format!(
                "{:>4}  {bar:<width$} {}{}\n",
                layer.index,
                thousands(layer.live),
                styled(FAINT, rows),
                width = BAR as usize
            );
        }
        if let Some(more @ 1..) = self.layers.len().checked_sub(BARS) {
            text += &format!("      {}\n", styled(FAINT, format_args!("and {more} more layers")));
        }
        let row = peak.row.map_or(String::new(), |row| format!(", row {row}"));
        text += &format!(
            "{}  {} bytes are live in layer {}{row}:\n",
            styled(TITLE, "peak  "),
            thousands(peak.live),
            peak.layer
        );
        for live in peak.buffers.iter().take(LIVE) {
            // Converters join the names of what they fused.
            let name = live.name.split(';').next().unwrap_or_default();
            text += &format!("  {:>10}  {} of {name:?}\n", thousands(live.bytes), live.kind);
        }
        let rest = peak.buffers.iter().skip(LIVE);
        if let Some(more @ 1..) = peak.buffers.len().checked_sub(LIVE) {
            let bytes = thousands(rest.map(|live| live.bytes).sum());
            text += &format!("  {bytes:>10}  {more} more\n");
        }
        let all: u64 = peak.buffers.iter().map(|live| live.bytes).sum();
        if all > peak.live {
            let shared = format!("-{}", thousands(all - peak.live));
            text += &format!("  {shared:>10}  of these are shared: a result grows over an input as that is read\n");
        }
        for advice in &peak.advice {
            text += &format!("  {advice}\n");
        }
        text
    }

    /// What is not in the object, and why.
    pub fn dropped(&self) -> String {
        if self.dropped.is_empty() {
            return String::new();
        }
        let bytes: u64 = self.dropped.iter().map(|dropped| dropped.bytes).sum();
        let mut text = format!(
            "{}  {} parameters, {} bytes\n",
            styled(TITLE, "left out"),
            self.dropped.len(),
            thousands(bytes)
        );
        for Dropped { name, bytes, reason } in self.dropped.iter().take(DROPPED) {
            text += &format!("  {name:?}, {} bytes: {reason}\n", thousands(*bytes));
        }
        if let Some(more @ 1..) = self.dropped.len().checked_sub(DROPPED) {
            text += &format!(
                "  {}\n",
                styled(FAINT, format_args!("and {more} more (--json lists them)"))
            );
        }
        text
    }

    /// External functions, what comes with them, and what the application must supply.
    pub fn external(&self) -> String {
        let Some(external) = &self.external else {
            return String::new();
        };
        let n = thousands;
        let mut text = String::new();
        if let Some(peer) = &external.peer {
            let parameters = match peer.parameters {
                0 => String::new(),
                bytes => format!(", and {} of parameters in RAM", n(bytes)),
            };
            text += &format!(
                "{}  {} needs {} bytes{parameters}; this build {}, inputs and outputs counted\n",
                styled(TITLE, "memory"),
                peer.name,
                n(peer.arena),
                n(peer.ours)
            );
        }
        text += &format!(
            "{}  {} external function{}; their instructions and stack are not counted\n",
            styled(TITLE, "calls "),
            external.functions.len(),
            if external.functions.len() == 1 { "" } else { "s" }
        );
        for function in &external.functions {
            let calls = match function.calls {
                1 => String::new(),
                calls => format!(", {calls} calls"),
            };
            let module = function.module.as_ref().map(|module| format!(", of {module}"));
            text += &format!(
                "  {}\n    {} bytes of workspace{calls}{}\n",
                function.prototype,
                n(function.workspace),
                module.unwrap_or_default()
            );
        }
        for object in &external.objects {
            text += &format!(
                "{}  {}, {} bytes, of {}\n",
                styled(TITLE, "object"),
                object.name,
                n(object.bytes),
                object.origin
            );
        }
        if !external.needs.is_empty() {
            let needs = external.needs.join(", ");
            text += &format!("{}  your link must supply {needs}\n", styled(TITLE, "needs "));
        }
        text
    }

    /// The whole text.
    pub fn text(&self) -> String {
        let parts = [
            self.summary(),
            self.ports(),
            format!("\n{}", self.layers()),
            format!("\n{}", self.peak()),
            self.placement(),
            self.dropped(),
            self.external(),
        ];
        parts.concat()
    }
}
