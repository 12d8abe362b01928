//! A program's image of parameters. Where it is streamed, nothing comes before somebody waits for it, and the buffer of a
//! request is spoiled at once: code that uses a piece too early or too long computes something else.

use super::{Body, Host};
use crate::codegen::Input;
use crate::data::Contents;
use crate::image::{Access, Image};
use crate::kernels::Lowering;
use crate::kernels::emit::Emitter;
use crate::names::Helper;
use crate::object::{Datum, Visibility};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

const IMAGE: &str = "harness.image";
const READ: &str = "harness.read";
const WAIT: &str = "harness.wait";
/// Offset, destination and length of the transfer that is under way, eight bytes each.
const REQUEST: &str = "harness.request";
const BUFFER: &str = "harness.buffer";
const BUFFER_BYTES: u64 = 4096;

impl Host<'_> {
    pub(super) fn image(&self, image: &Image, lowering: &Lowering) -> Vec<Datum> {
        let datum = |symbol: &str, kind: &str, align, contents| Datum {
            section: format!(".{kind}.{symbol}"),
            symbol: symbol.to_owned(),
            align,
            contents,
            visibility: Visibility::Hidden,
        };
        let mut data = vec![datum(IMAGE, "rodata", image.align, image.contents(lowering))];
        if image.access == Access::Streamed {
            data.push(datum(REQUEST, "bss", 8, Contents::Zero(24)));
            data.push(datum(BUFFER, "bss", 16, Contents::Zero(BUFFER_BYTES)));
        }
        data
    }

    /// Binds the image and checks all of it; the address of `struct <model>_parameters`.
    pub(super) fn bind(&self, f: &mut Body, image: &Image) -> Value {
        let zero = f.int(0);
        let name = |helper| self.names.helper(helper).symbol.as_str();
        if image.access == Access::External {
            let parameters = f.structure(&[zero, zero]);
            let (at, size) = (f.symbol(IMAGE, 0), f.int(image.size as i64));
            self.succeed(f, name(Helper::Bind), &[parameters, at, size]);
            self.succeed(f, name(Helper::Check), &[parameters]);
            return parameters;
        }
        let (read, wait) = (f.symbol(READ, 0), f.symbol(WAIT, 0));
        let parameters = f.structure(&[read, wait, zero, zero]);
        let buffer = f.symbol(BUFFER, 0);
        self.succeed(f, name(Helper::Bind), &[parameters, buffer]);
        let length = f.b.ins().iconst(types::I32, BUFFER_BYTES as i64);
        self.succeed(f, name(Helper::Check), &[parameters, buffer, length]);
        parameters
    }

    /// `int32_t read(void *context, uint64_t offset, void *destination, uint32_t length)`: spoils the destination.
    pub(super) fn read(&self) -> Input {
        let params = [self.pointer, types::I64, self.pointer, types::I32];
        self.function(READ, &params, Some(types::I32), |f| {
            let (offset, to, length) = (f.params[1], f.params[2], f.params[3]);
            let wide = f.b.ins().uextend(types::I64, length);
            for (at, value) in [(0, offset), (8, to), (16, wide)] {
                let place = f.symbol(REQUEST, at);
                f.b.ins().store(Emitter::flags(), value, place, 0);
            }
            let spoiled = f.b.ins().iconst(types::I8, 0xa5);
            f.bytes(wide, |f, i| {
                let to = f.b.ins().iadd(to, i);
                f.b.ins().store(Emitter::flags(), spoiled, to, 0);
            });
            f.b.ins().return_(&[length]);
        })
    }

    /// `int32_t wait(void *context, void *destination, uint32_t length)`: delivers what was asked for.
    pub(super) fn wait(&self) -> Input {
        let params = [self.pointer, self.pointer, types::I32];
        self.function(WAIT, &params, Some(types::I32), |f| {
            let (to, length) = (f.params[1], f.params[2]);
            let wide = f.b.ins().uextend(types::I64, length);
            let mut request = [0, 8, 16].map(|at| {
                let place = f.symbol(REQUEST, at);
                f.b.ins().load(types::I64, Emitter::flags(), place, 0)
            });
            for (i, given) in [(1, to), (2, wide)] {
                let same = f.b.ins().icmp(IntCC::Equal, request[i], given);
                let (next, other) = (f.b.create_block(), f.b.create_block());
                f.b.ins().brif(same, next, &[], other, &[]);
                f.b.switch_to_block(other);
                f.exit(-1);
                f.b.switch_to_block(next);
            }
            let image = f.symbol(IMAGE, 0);
            request[0] = f.b.ins().iadd(image, request[0]);
            f.bytes(wide, |f, i| {
                let from = f.b.ins().iadd(request[0], i);
                let value = f.b.ins().load(types::I8, Emitter::flags(), from, 0);
                let to = f.b.ins().iadd(to, i);
                f.b.ins().store(Emitter::flags(), value, to, 0);
            });
            f.b.ins().return_(&[length]);
        })
    }
}

impl Body<'_> {
    /// A loop over `count` bytes, at least one: `body(function, index)`.
    fn bytes(&mut self, count: Value, body: impl FnOnce(&mut Self, Value)) {
        let (again, end) = (self.b.create_block(), self.b.create_block());
        let i = self.b.append_block_param(again, types::I64);
        let zero = self.b.ins().iconst(types::I64, 0);
        self.b.ins().jump(again, &[zero.into()]);
        self.b.switch_to_block(again);
        body(self, i);
        let one = self.b.ins().iconst(types::I64, 1);
        let next = self.b.ins().iadd(i, one);
        let more = self.b.ins().icmp(IntCC::UnsignedLessThan, next, count);
        self.b.ins().brif(more, again, &[next.into()], end, &[]);
        self.b.switch_to_block(end);
    }
}
