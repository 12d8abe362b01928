//! Parameters outside the object: `<model>_bind` and `<model>_check_parameters`, and how pieces are read.
//!
//! ```c
//! struct kws_parameters { const void *image; uint32_t bound; };                                   // --params external
//! int32_t kws_bind(struct kws_parameters *parameters, const void *image, size_t size);
//! int32_t kws_check_parameters(const struct kws_parameters *parameters);
//!
//! struct kws_parameters {                                                                         // --params streamed
//!     int32_t (*read)(void *context, uint64_t offset, void *destination, uint32_t length);
//!     int32_t (*wait)(void *context, void *destination, uint32_t length);
//!     void *context;
//!     uint32_t bound;
//! };
//! int32_t kws_bind(struct kws_parameters *parameters, void *buffer);
//! int32_t kws_check_parameters(const struct kws_parameters *parameters, void *buffer, uint32_t length);
//! ```
//! There is no other state: what is bound is a value of the application's, and as many runs as it likes may share it.
//! Binding reads the header alone, so that a large image is not touched as a whole; the check reads all of it.

use super::frame::{Frame, function};
use super::{
    ERROR_NULL_POINTER, ERROR_PARAMETERS_ALIGNMENT, ERROR_PARAMETERS_CHECKSUM, ERROR_PARAMETERS_FINGERPRINT,
    ERROR_PARAMETERS_MAGIC, ERROR_PARAMETERS_SIZE, ERROR_PARAMETERS_UNBOUND, ERROR_PARAMETERS_VERSION, ERROR_READ,
    ERROR_SHORT_READ, Model, OK,
};
use crate::codegen::Input;
use crate::error::Result;
use crate::image::{self, Access, Image};
use crate::names::Helper;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};

/// Offsets of the members of `struct <model>_parameters`.
pub(super) struct Layout {
    /// `image`, if it is in memory.
    pub image: i32,
    read: i32,
    wait: i32,
    context: i32,
    bound: i32,
    /// What `bound` is if the struct was bound to an image of this network.
    tag: u32,
}

impl Layout {
    pub fn new(model: &Model, image: &Image) -> Self {
        let pointer = model.pointer().bytes() as i32;
        Layout {
            image: 0,
            read: 0,
            wait: pointer,
            context: 2 * pointer,
            bound: match image.access {
                Access::External => pointer,
                Access::Streamed => 3 * pointer,
            },
            tag: image.tag,
        }
    }

    /// Leaves with an error if `parameters` is null or not bound.
    pub fn require_bound(&self, f: &mut Frame, parameters: Value) {
        f.refuse_null(parameters);
        let bound = f.load(types::I32, parameters, self.bound);
        let tag = f.int(types::I32, self.tag.into());
        let same = f.equal(bound, tag);
        f.check(same, ERROR_PARAMETERS_UNBOUND);
    }

    fn set(&self, f: &mut Frame, parameters: Value, tag: u32) {
        let tag = f.int(types::I32, tag.into());
        f.store(tag, parameters, self.bound);
    }
}

/// What binds and checks an image, and what those and the run call.
pub(super) fn functions(model: &Model, image: &Image) -> Vec<Result<Input>> {
    let mut functions = match image.access {
        Access::External => vec![bind_external(model, image), check_external(model, image)],
        Access::Streamed => vec![
            bind_streamed(model, image),
            check_streamed(model, image),
            fetch(model, image),
        ],
    };
    functions.push(checksum(model));
    functions
}

fn bind_external(model: &Model, image: &Image) -> Result<Input> {
    let pointer = model.pointer();
    let layout = Layout::new(model, image);
    let symbol = model.helper(Helper::Bind);
    function(model, symbol, true, &[pointer; 3], Some(types::I32), |f| {
        let (parameters, at, size) = (f.params[0], f.params[1], f.params[2]);
        f.refuse_null(parameters);
        layout.set(f, parameters, 0);
        f.refuse_null(at);
        let mask = f.int(pointer, image.align as i64 - 1);
        let low = f.b.ins().band(at, mask);
        f.refuse(low, ERROR_PARAMETERS_ALIGNMENT);
        let enough = |f: &mut Frame, least: u64| {
            let least = f.int(pointer, least as i64);
            let fits = f.b.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, size, least);
            f.check(fits, ERROR_PARAMETERS_SIZE);
        };
        enough(f, image::HEADER);
        require_header(f, at);
        enough(f, image.size);
        f.store(at, parameters, layout.image);
        layout.set(f, parameters, layout.tag);
        f.return_status(OK);
        Ok(())
    })
}

fn bind_streamed(model: &Model, image: &Image) -> Result<Input> {
    let pointer = model.pointer();
    let layout = Layout::new(model, image);
    let symbol = model.helper(Helper::Bind);
    function(model, symbol, true, &[pointer; 2], Some(types::I32), |f| {
        let (parameters, buffer) = (f.params[0], f.params[1]);
        f.refuse_null(parameters);
        layout.set(f, parameters, 0);
        f.refuse_null(buffer);
        let read = f.load(pointer, parameters, layout.read);
        f.refuse_null(read);
        let length = f.int(types::I32, image::HEADER as i64);
        let start = f.int(types::I64, 0);
        read_now(f, parameters, buffer, length, start);
        require_header(f, buffer);
        layout.set(f, parameters, layout.tag);
        f.return_status(OK);
        Ok(())
    })
}

/// Reads through the callbacks and waits.
fn read_now(f: &mut Frame, parameters: Value, buffer: Value, length: Value, offset: Value) {
    let (null, zero) = (f.int(f.pointer, 0), f.int(types::I32, 0));
    let nowhere = f.int(types::I64, 0);
    for args in [
        [parameters, null, zero, buffer, length, offset],
        [parameters, buffer, length, null, zero, nowhere],
    ] {
        let types = fetch_params(f.model);
        let status = f.call(f.model.helper(Helper::Fetch), &types, Some(types::I32), &args)[0];
        f.leave_on(status);
    }
}

/// Leaves with an error if the header at `at` is not that of this network's image.
fn require_header(f: &mut Frame, at: Value) {
    let expected = f.symbol(f.model.helper(Helper::Header));
    for (range, status) in [
        (image::MAGIC_AT, ERROR_PARAMETERS_MAGIC),
        (image::VERSION_AT, ERROR_PARAMETERS_VERSION),
        (image::FINGERPRINT_AT, ERROR_PARAMETERS_FINGERPRINT),
        (image::SIZE_AT, ERROR_PARAMETERS_SIZE),
    ] {
        let mut differ = None;
        for word in range.step_by(4) {
            let [a, b] = [at, expected].map(|base| f.load(types::I32, base, word as i32));
            let bits = f.b.ins().bxor(a, b);
            differ = Some(match differ {
                None => bits,
                Some(others) => f.b.ins().bor(others, bits),
            });
        }
        if let Some(differ) = differ {
            f.refuse(differ, status);
        }
    }
}

fn check_external(model: &Model, image: &Image) -> Result<Input> {
    let pointer = model.pointer();
    let layout = Layout::new(model, image);
    let symbol = model.helper(Helper::Check);
    function(model, symbol, true, &[pointer], Some(types::I32), |f| {
        let parameters = f.params[0];
        layout.require_bound(f, parameters);
        let at = f.load(pointer, parameters, layout.image);
        let size = f.int(pointer, image.size as i64);
        let start = f.int(types::I32, -1);
        let sum = add_checksum(f, start, at, size);
        require_residue(f, sum);
        f.return_status(OK);
        Ok(())
    })
}

fn check_streamed(model: &Model, image: &Image) -> Result<Input> {
    let pointer = model.pointer();
    let layout = Layout::new(model, image);
    let symbol = model.helper(Helper::Check);
    let params = [pointer, pointer, types::I32];
    function(model, symbol, true, &params, Some(types::I32), |f| {
        let (parameters, buffer, length) = (f.params[0], f.params[1], f.params[2]);
        layout.require_bound(f, parameters);
        f.refuse_null(buffer);
        f.check(length, ERROR_NULL_POINTER);
        // Lengths are positive numbers to the callback.
        let most = f.int(types::I32, i32::MAX.into());
        let length = f.b.ins().umin(length, most);
        let wide = f.b.ins().uextend(types::I64, length);
        let end = f.int(types::I64, image.size as i64);
        let (start, sum) = (f.int(types::I64, 0), f.int(types::I32, -1));
        // Reads until the offset is at the end: the rounds are not known, so that the loop is written out.
        let (header, exit) = (f.b.create_block(), f.b.create_block());
        let offset = f.b.append_block_param(header, types::I64);
        let before = f.b.append_block_param(header, types::I32);
        f.b.ins().jump(header, &[start.into(), sum.into()]);
        f.b.switch_to_block(header);
        let left = f.b.ins().isub(end, offset);
        let more = f.b.ins().icmp(IntCC::UnsignedGreaterThan, left, wide);
        let bytes = f.b.ins().select(more, wide, left);
        let short = f.b.ins().ireduce(types::I32, bytes);
        read_now(f, parameters, buffer, short, offset);
        let size = match pointer {
            types::I64 => bytes,
            _ => short,
        };
        let sum = add_checksum(f, before, buffer, size);
        let next = f.b.ins().iadd(offset, bytes);
        f.b.ins().brif(more, header, &[next.into(), sum.into()], exit, &[]);
        f.b.switch_to_block(exit);
        require_residue(f, sum);
        f.return_status(OK);
        Ok(())
    })
}

fn add_checksum(f: &mut Frame, sum: Value, at: Value, size: Value) -> Value {
    let params = [types::I32, f.pointer, f.pointer];
    let symbol = f.model.helper(Helper::Checksum);
    f.call(symbol, &params, Some(types::I32), &[sum, at, size])[0]
}

/// The CRC of bytes that end with their own CRC is the same for all.
fn require_residue(f: &mut Frame, sum: Value) {
    let residue = f.int(types::I32, image::RESIDUE.into());
    let same = f.equal(sum, residue);
    f.check(same, ERROR_PARAMETERS_CHECKSUM);
}

/// `uint32_t checksum(uint32_t sum, const uint8_t *at, size_t size)`: CRC-32 without its final complement, four bits at
/// a time. `size` is not 0.
fn checksum(model: &Model) -> Result<Input> {
    let pointer = model.pointer();
    let params = [types::I32, pointer, pointer];
    let symbol = model.helper(Helper::Checksum);
    function(model, symbol, false, &params, Some(types::I32), |f| {
        let (sum, at, size) = (f.params[0], f.params[1], f.params[2]);
        let table = f.symbol(f.model.helper(Helper::Table));
        let ends = f.rounds(size, &[sum, at], |f, p| {
            let byte =
                f.b.ins()
                    .uload8(types::I32, super::super::emit::Emitter::flags(), p[1], 0);
            let mut sum = f.b.ins().bxor(p[0], byte);
            for _ in 0..2 {
                let mask = f.int(types::I32, 15);
                let low = f.b.ins().band(sum, mask);
                let two = f.int(types::I32, 2);
                let index = f.b.ins().ishl(low, two);
                let index = match pointer {
                    types::I64 => f.b.ins().uextend(types::I64, index),
                    _ => index,
                };
                let entry = f.b.ins().iadd(table, index);
                let entry = f.load(types::I32, entry, 0);
                let four = f.int(types::I32, 4);
                let high = f.b.ins().ushr(sum, four);
                sum = f.b.ins().bxor(high, entry);
            }
            vec![sum, f.offset(p[1], 1)]
        });
        f.b.ins().return_(&[ends[0]]);
        Ok(())
    })
}

fn fetch_params(model: &Model) -> [cranelift_codegen::ir::Type; 6] {
    let pointer = model.pointer();
    [pointer, pointer, types::I32, pointer, types::I32, types::I64]
}

/// `int32_t fetch(parameters, void *present, uint32_t length, void *next, uint32_t bytes, uint64_t offset)`: waits until
/// the `length` bytes at `present` are there, if there are any and somebody can be waited for, and then asks for `bytes`
/// at `next` from `offset`, if there are any. So one transfer is under way at most, and none after an error.
fn fetch(model: &Model, image: &Image) -> Result<Input> {
    let pointer = model.pointer();
    let layout = Layout::new(model, image);
    let symbol = model.helper(Helper::Fetch);
    function(model, symbol, false, &fetch_params(model), Some(types::I32), |f| {
        let (parameters, present, length) = (f.params[0], f.params[1], f.params[2]);
        let (next, bytes, offset) = (f.params[3], f.params[4], f.params[5]);
        let context = f.load(pointer, parameters, layout.context);
        let (asking, end) = (f.b.create_block(), f.b.create_block());
        let wait = f.load(pointer, parameters, layout.wait);
        f.require(wait, asking);
        f.require(length, asking);
        let done = f.call_at(
            wait,
            &[pointer, pointer, types::I32],
            Some(types::I32),
            &[context, present, length],
        )[0];
        require_all(f, done, length);
        f.b.ins().jump(asking, &[]);
        f.b.switch_to_block(asking);
        f.require(bytes, end);
        let read = f.load(pointer, parameters, layout.read);
        let types = [pointer, types::I64, pointer, types::I32];
        let done = f.call_at(read, &types, Some(types::I32), &[context, offset, next, bytes])[0];
        require_all(f, done, bytes);
        f.b.ins().jump(end, &[]);
        f.b.switch_to_block(end);
        f.return_status(OK);
        Ok(())
    })
}

/// Leaves with an error if `done` is not `length`.
fn require_all(f: &mut Frame, done: Value, length: Value) {
    let zero = f.int(types::I32, 0);
    let failed = f.b.ins().icmp(IntCC::SignedLessThan, done, zero);
    f.refuse(failed, ERROR_READ);
    let same = f.equal(done, length);
    f.check(same, ERROR_SHORT_READ);
}
