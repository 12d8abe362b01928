//! What a traced program does to memory that is dead: when a step is done and its result is written, the bytes of every
//! buffer whose life ends there become garbage. A read outside of a lifetime then changes a result, which `verify`
//! compares.

use super::{Body, Host};
use crate::codegen::Input;
use crate::data::{Bytes, Contents};
use crate::kernels::emit::Emitter;
use crate::object::{Datum, Visibility};
use crate::plan::{Buffer, Plan};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

pub(super) const POISON: &str = "harness.poison";
const TABLE: &str = "harness.dead";

/// Neither small nor an element that models are full of.
const GARBAGE: i64 = 0xb7;
/// Words of an entry: the pool, the first byte in it, and bytes.
const ENTRY: i64 = 24;

/// For each step of the plan the ranges of the arena's offsets that are dead from then on. What lives on keeps its bytes,
/// also where it lies over what is dead; after the last step the outputs are still to be read.
fn dead(plan: &Plan) -> Vec<Vec<(u64, u64)>> {
    let steps = plan.steps.len();
    let mut ends: Vec<Vec<&Buffer>> = vec![Vec::new(); steps];
    for buffer in plan
        .buffers
        .iter()
        .filter(|buffer| buffer.last + 1 < steps && buffer.size > 0)
    {
        ends[buffer.last].push(buffer);
    }
    let mut starts: Vec<&Buffer> = plan.buffers.iter().filter(|buffer| buffer.size > 0).collect();
    starts.sort_by_key(|buffer| buffer.first);
    let mut starts = starts.into_iter().peekable();
    let mut live: Vec<&Buffer> = Vec::new();
    let mut all = Vec::with_capacity(steps);
    for (step, ends) in ends.into_iter().enumerate() {
        while let Some(buffer) = starts.next_if(|buffer| buffer.first <= step) {
            live.push(buffer);
        }
        live.retain(|buffer| buffer.last > step);
        let mut kept: Vec<(u64, u64)> = live
            .iter()
            .map(|buffer| (buffer.offset, buffer.offset + buffer.size))
            .collect();
        kept.sort_unstable();
        let mut ranges = Vec::new();
        for buffer in ends {
            let (mut at, end) = (buffer.offset, buffer.offset + buffer.size);
            for (start, stop) in kept.iter().copied().filter(|(start, _)| *start < end) {
                if at < start {
                    ranges.push((at, start));
                }
                at = at.max(stop);
            }
            if at < end {
                ranges.push((at, end));
            }
        }
        all.push(ranges);
    }
    all
}

impl Host<'_> {
    /// Where the entries of each step begin in the table, then where they end; then the entries.
    pub(super) fn dead_bytes(&self) -> Datum {
        let all = dead(self.plan);
        let mut words: Vec<u64> = Vec::new();
        let mut at = 8 * (all.len() as u64 + 1);
        for ranges in &all {
            words.push(at);
            at += ENTRY as u64 * ranges.len() as u64;
        }
        words.push(at);
        for (start, end) in all.into_iter().flatten() {
            let (pool, offset) = self.plan.locate(start);
            words.extend([pool as u64, offset, end - start]);
        }
        Datum {
            section: format!(".rodata.{TABLE}"),
            symbol: TABLE.to_owned(),
            align: 8,
            contents: Contents::Bytes(Bytes::from_vec(
                words.iter().flat_map(|word| word.to_le_bytes()).collect(),
            )),
            visibility: Visibility::Hidden,
        }
    }

    /// `void poison(int64_t step)`.
    pub(super) fn poison(&self) -> Input {
        self.function(POISON, &[self.pointer], None, |f| {
            let step = f.params[0];
            let table = f.symbol(TABLE, 0);
            let skipped = f.b.ins().ishl_imm_u(step, 3);
            let place = f.b.ins().iadd(table, skipped);
            let first = f.word(place, 0);
            let last = f.word(place, 8);
            let (again, body, done) = (f.b.create_block(), f.b.create_block(), f.b.create_block());
            let at = f.b.append_block_param(again, f.pointer);
            f.b.ins().jump(again, &[first.into()]);
            f.b.switch_to_block(again);
            let more = f.b.ins().icmp(IntCC::UnsignedLessThan, at, last);
            f.b.ins().brif(more, body, &[], done, &[]);

            f.b.switch_to_block(body);
            let entry = f.b.ins().iadd(table, at);
            let (pool, offset, bytes) = (f.word(entry, 0), f.word(entry, 8), f.word(entry, 16));
            // Pools of no bytes have no symbol, and no entry.
            let pools = self
                .plan
                .areas()
                .into_iter()
                .enumerate()
                .filter(|(_, (_, bytes))| *bytes > 0);
            let mut base = f.int(0);
            for (number, _) in pools {
                let symbol = f.symbol(&self.names.pool(number).symbol, 0);
                let same = f.b.ins().icmp_imm_s(IntCC::Equal, pool, number as i64);
                base = f.b.ins().select(same, symbol, base);
            }
            let start = f.b.ins().iadd(base, offset);
            let end = f.b.ins().iadd(start, bytes);
            let fill = f.b.create_block();
            let byte = f.b.append_block_param(fill, f.pointer);
            f.b.ins().jump(fill, &[start.into()]);
            f.b.switch_to_block(fill);
            let garbage = f.b.ins().iconst(types::I8, GARBAGE);
            f.b.ins().store(Emitter::flags(), garbage, byte, 0);
            let one = f.int(1);
            let next = f.b.ins().iadd(byte, one);
            let left = f.b.ins().icmp(IntCC::UnsignedLessThan, next, end);
            let size = f.int(ENTRY);
            let after = f.b.ins().iadd(at, size);
            f.b.ins().brif(left, fill, &[next.into()], again, &[after.into()]);

            f.b.switch_to_block(done);
            f.b.ins().return_(&[]);
        })
    }
}

impl Body<'_> {
    fn word(&mut self, base: Value, offset: i32) -> Value {
        self.b.ins().load(types::I64, Emitter::flags(), base, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::OpId;
    use crate::plan::Step;

    #[test]
    fn what_lives_on_keeps_its_bytes() {
        let buffer = |offset, size, first, last| Buffer {
            offset,
            size,
            first,
            last,
            ..Buffer::default()
        };
        let step = Step {
            op: OpId(0),
            rows: None,
        };
        let plan = Plan {
            steps: vec![step; 3],
            // The second lies over the end of the first; the third over its start, and dies with the run.
            buffers: vec![
                buffer(16, 48, 0, 1),
                buffer(48, 32, 1, 2),
                buffer(0, 20, 1, 2),
                buffer(96, 0, 0, 0),
            ],
            arena_size: 96,
            ..Plan::default()
        };
        assert_eq!(dead(&plan), [vec![], vec![(20, 48)], vec![]]);
    }
}
