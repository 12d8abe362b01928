//! Programs → CLIF, for the host and for a target.

use crate::program::{ARGUMENTS, BUFFER, Condition, Pick, Place, Program, RESULTS, SCRATCH, Step, Walk};
use crate::{spell, text};
use corerope::intrinsic::{self, Intrinsic};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{
    self, AbiParam, Block, BlockArg, ExtFuncData, ExternalName, Function, GlobalValueData, InstBuilder, MemFlagsData,
    Opcode, Signature, StackSlotData, StackSlotKind, Type, UserExternalName, UserFuncName, Value, types,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

/// How the same program differs between machines.
#[derive(Clone, Debug)]
pub struct Machine {
    pub pointer: Type,
    /// The names of intrinsics: the name space and what is added to the index; they are spelled out if there are none.
    pub intrinsics: Option<(u32, u32)>,
    /// The name of the constant table.
    pub table: UserExternalName,
}

impl Machine {
    /// This machine, with `programs` functions, their entries, and then functions for the intrinsics.
    pub fn host(programs: usize) -> Self {
        Machine {
            pointer: if cfg!(target_pointer_width = "64") {
                types::I64
            } else {
                types::I32
            },
            intrinsics: Some((0, 2 * programs as u32)),
            table: UserExternalName { namespace: 1, index: 0 },
        }
    }

    /// A 32-bit target whose symbols are `programs` functions and the table.
    pub fn device(intrinsics: bool, programs: usize) -> Self {
        Machine {
            pointer: types::I32,
            intrinsics: intrinsics.then_some((intrinsic::NAMESPACE, 0)),
            table: UserExternalName {
                namespace: 0,
                index: programs as u32,
            },
        }
    }

    /// The name of an intrinsic.
    pub fn intrinsic(&self, which: Intrinsic) -> UserExternalName {
        let (namespace, first) = self.intrinsics.expect("a machine with intrinsics");
        UserExternalName {
            namespace,
            index: first + which.index(),
        }
    }

    fn config(&self) -> TargetFrontendConfig {
        TargetFrontendConfig {
            default_call_conv: CallConv::SystemV,
            pointer_width: if self.pointer == types::I64 {
                target_lexicon::PointerWidth::U64
            } else {
                target_lexicon::PointerWidth::U32
            },
            page_size_align_log2: 12,
        }
    }

    /// The signature of a program.
    pub fn signature(&self, program: &Program) -> Signature {
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.push(AbiParam::new(self.pointer));
        signature
            .params
            .extend(program.params.iter().map(|ty| AbiParam::new(*ty)));
        signature
            .returns
            .extend(program.results.iter().map(|ty| AbiParam::new(*ty)));
        signature
    }

    /// The signature of an entry: a pointer to the buffer.
    pub fn entry_signature(&self) -> Signature {
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.push(AbiParam::new(self.pointer));
        signature
    }
}

/// The function of program `index`.
pub fn function(programs: &[Program], index: usize, machine: &Machine) -> Function {
    counted(programs, index, machine).0
}

/// The function of program `index`, and how often its blocks run in one call. Those that depend on data are left out.
pub fn counted(programs: &[Program], index: usize, machine: &Machine) -> (Function, Vec<(Block, u64)>) {
    let program = &programs[index];
    if let Some(text) = &program.text {
        return (text::parsed(text, machine), Vec::new());
    }
    let name = UserFuncName::user(0, index as u32);
    let mut func = Function::with_name_signature(name, machine.signature(program));
    let mut context = FunctionBuilderContext::new();
    let mut builder = Builder::new(&mut func, &mut context, programs, program, machine);
    let arguments = builder
        .b
        .block_params(builder.b.current_block().expect("in the entry"))
        .to_vec();
    builder.base = arguments[0];
    let scratch = builder.offset(arguments[0], i64::from(SCRATCH));
    builder.areas.push((scratch, BUFFER as u32 - SCRATCH as u32, 8));
    for (value, ty) in arguments[1..].iter().zip(&program.params) {
        builder.define(*ty, *value);
    }
    for size in &program.slots {
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, *size, 2);
        let slot = builder.b.create_sized_stack_slot(slot);
        let address = builder.b.ins().stack_addr(machine.pointer, slot, 0);
        // Large slots only move what lies behind them: their two ends are used.
        let ends = if *size <= 160 {
            vec![(0, *size)]
        } else {
            vec![(0, 64), (*size as i32 - 64, 64)]
        };
        for (start, size) in ends {
            let address = if start == 0 {
                address
            } else {
                builder.b.ins().stack_addr(machine.pointer, slot, start)
            };
            for word in 0..size / 4 {
                let fill = builder.b.ins().iconst(types::I32, i64::from(word) * 0x0101_0101 + 77);
                builder.b.ins().store(flags(), fill, address, word as i32 * 4);
            }
            builder.areas.push((address, size, 4));
        }
    }
    builder.steps(&program.steps);
    let results = builder.results();
    builder.b.ins().return_(&results);
    let executions = std::mem::take(&mut builder.executions);
    builder.b.seal_all_blocks();
    builder.b.finalize(machine.config());
    (func, executions)
}

/// What calls program `index` with arguments from the buffer and puts its results there.
pub fn entry(programs: &[Program], index: usize, machine: &Machine) -> Function {
    let program = &programs[index];
    let name = UserFuncName::user(0, (programs.len() + index) as u32);
    let mut func = Function::with_name_signature(name, machine.entry_signature());
    let mut context = FunctionBuilderContext::new();
    let mut builder = Builder::new(&mut func, &mut context, programs, program, machine);
    let buffer = builder.b.block_params(builder.b.current_block().expect("in the entry"))[0];
    let mut args = vec![buffer];
    for (at, ty) in program.params.iter().enumerate() {
        args.push(builder.b.ins().load(*ty, flags(), buffer, ARGUMENTS + 8 * at as i32));
    }
    let callee = builder.callee(index);
    let call = builder.b.ins().call(callee, &args);
    let results = builder.b.inst_results(call).to_vec();
    for (at, value) in results.into_iter().enumerate() {
        let value = builder.canonical(value);
        builder.b.ins().store(flags(), value, buffer, RESULTS + 8 * at as i32);
    }
    builder.b.ins().return_(&[]);
    builder.b.seal_all_blocks();
    builder.b.finalize(machine.config());
    func
}

fn flags() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

struct Builder<'a> {
    b: FunctionBuilder<'a>,
    programs: &'a [Program],
    program: &'a Program,
    machine: &'a Machine,
    /// Values in scope, by type.
    pools: [Vec<Value>; 5],
    /// The pointer to the whole buffer.
    base: Value,
    /// Accessible areas and their sizes.
    /// and what they start at a multiple of.
    areas: Vec<(Value, u32, u32)>,
    /// How often the block at hand runs in one call.
    trips: u64,
    executions: Vec<(Block, u64)>,
}

fn class(ty: Type) -> usize {
    match ty {
        types::I8 => 0,
        types::I16 => 1,
        types::I32 => 2,
        types::I64 => 3,
        _ => 4,
    }
}

impl<'a> Builder<'a> {
    fn new(
        func: &'a mut Function,
        context: &'a mut FunctionBuilderContext,
        programs: &'a [Program],
        program: &'a Program,
        machine: &'a Machine,
    ) -> Self {
        let mut b = FunctionBuilder::new(func, context);
        let block = b.create_block();
        b.append_block_params_for_function_params(block);
        b.switch_to_block(block);
        let base = b.block_params(block)[0];
        Builder {
            b,
            programs,
            program,
            machine,
            pools: Default::default(),
            base,
            areas: Vec::new(),
            trips: 1,
            executions: vec![(block, 1)],
        }
    }

    fn define(&mut self, ty: Type, value: Value) {
        self.pools[class(ty)].push(value);
    }

    fn value(&mut self, ty: Type, pick: Pick) -> Value {
        let pool = &self.pools[class(ty)];
        match pool.len() {
            0 if ty == types::F32 => self.b.ins().f32const(pick as f32),
            0 => self.int(ty, i64::from(pick)),
            n => pool[n - 1 - pick as usize % n],
        }
    }

    fn int(&mut self, ty: Type, value: i64) -> Value {
        let bits = ty.bits();
        let value = if bits < 64 { value & ((1i64 << bits) - 1) } else { value };
        self.b.ins().iconst(ty, value)
    }

    fn offset(&mut self, pointer: Value, bytes: i64) -> Value {
        let bytes = self.int(self.machine.pointer, bytes);
        self.b.ins().iadd(pointer, bytes)
    }

    /// Bits of a NaN differ between machines: where they can be seen, all are the same one.
    fn canonical(&mut self, value: Value) -> Value {
        if self.b.func.dfg.value_type(value) != types::F32 || !self.program.floats {
            return value;
        }
        let unordered = self.b.ins().fcmp(FloatCC::Unordered, value, value);
        let nan = self.b.ins().f32const(f32::from_bits(0x7fc0_0000));
        self.b.ins().select(unordered, nan, value)
    }

    fn callee(&mut self, index: usize) -> ir::FuncRef {
        let signature = self.machine.signature(&self.programs[index]);
        self.import(
            UserExternalName {
                namespace: 0,
                index: index as u32,
            },
            signature,
        )
    }

    fn import(&mut self, name: UserExternalName, signature: Signature) -> ir::FuncRef {
        let signature = self.b.import_signature(signature);
        let name = self.b.func.declare_imported_user_function(name);
        self.b.import_function(ExtFuncData {
            name: ExternalName::user(name),
            signature,
            colocated: false,
            patchable: false,
        })
    }

    fn condition(&mut self, condition: &Condition) -> Value {
        match condition {
            Condition::Integers { ty, cond, a, b } => {
                let [a, b] = [*a, *b].map(|pick| self.value(*ty, pick));
                self.b.ins().icmp(*cond, a, b)
            }
            Condition::Constant { ty, cond, a, b } => {
                let a = self.value(*ty, *a);
                let b = self.int(*ty, *b);
                self.b.ins().icmp(*cond, a, b)
            }
            Condition::Floats { cond, a, b } => {
                let [a, b] = [*a, *b].map(|pick| self.value(types::F32, pick));
                self.b.ins().fcmp(*cond, a, b)
            }
            Condition::Value { ty, a } => self.value(*ty, *a),
        }
    }

    /// Pointer and offset of an access of `ty`.
    fn place(&mut self, place: &Place, bytes: u32, float: bool) -> (Value, i32, MemFlagsData) {
        let may = |area: &(Value, u32, u32)| area.1 >= bytes && (area.2 >= 4 || !float);
        let areas: Vec<(Value, u32, u32)> = self.areas.iter().copied().filter(may).collect();
        let (mut pointer, size, aligned) = areas[place.area as usize % areas.len()];
        let aligned = aligned >= bytes && (place.aligned || float);
        let index = place.index.filter(|_| size >= 64 + bytes);
        let room = size - bytes - if index.is_some() { 56 } else { 0 };
        let mut offset = (place.offset % (room + 1)) as i32;
        if aligned {
            offset &= !(bytes as i32 - 1);
        }
        if let Some((pick, shift)) = index {
            let value = self.value(types::I32, pick);
            let seven = self.int(types::I32, 7);
            let value = self.b.ins().band(value, seven);
            let shift = if aligned { 3 } else { shift };
            let shift = self.int(types::I32, i64::from(shift));
            let mut value = self.b.ins().ishl(value, shift);
            if self.machine.pointer == types::I64 {
                value = self.b.ins().uextend(types::I64, value);
            }
            // Some with the offset in the access, some with none.
            if place.offset & 1 << 16 != 0 {
                pointer = self.offset(pointer, i64::from(offset));
                offset = 0;
            }
            pointer = self.b.ins().iadd(pointer, value);
        } else if place.bias != 0 {
            let bias = i64::from(place.bias);
            pointer = if bias % 3 == 0 {
                let bias = self.int(self.machine.pointer, -bias);
                self.b.ins().isub(pointer, bias)
            } else {
                self.offset(pointer, bias)
            };
            offset -= place.bias;
        }
        let flags = flags();
        (pointer, offset, if aligned { flags.with_aligned() } else { flags })
    }

    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Constant { ty, bits } => {
                let value = if *ty == types::F32 {
                    self.b.ins().f32const(f32::from_bits(*bits as u32))
                } else {
                    self.int(*ty, *bits)
                };
                self.define(*ty, value);
            }
            Step::Unary { op, ty, a } => {
                let a = self.value(*ty, *a);
                let value = self.unary(*op, *ty, a);
                self.define(*ty, value);
            }
            Step::Convert { op, from, to, a } => {
                let mut a = self.value(*from, *a);
                if *op == Opcode::Bitcast && *from == types::F32 {
                    a = self.canonical(a);
                }
                let value = if *op == Opcode::Bitcast {
                    self.b.ins().bitcast(*to, MemFlagsData::new(), a)
                } else {
                    self.unary(*op, *to, a)
                };
                self.define(*to, value);
            }
            Step::Binary { op, ty, a, b } => {
                let [mut a, mut b] = [*a, *b].map(|pick| self.value(*ty, pick));
                // The sign of a NaN can be seen.
                if *op == Opcode::Fcopysign {
                    [a, b] = [a, b].map(|value| self.canonical(value));
                }
                let value = self.binary(*op, *ty, a, b);
                self.define(*ty, value);
            }
            Step::Immediate {
                op,
                ty,
                a,
                constant,
                first,
            } => {
                let a = self.value(*ty, *a);
                let constant = self.int(*ty, *constant);
                let divides = matches!(op, Opcode::Sdiv | Opcode::Udiv | Opcode::Srem | Opcode::Urem);
                let value = if *first && !divides {
                    self.binary(*op, *ty, constant, a)
                } else {
                    self.binary(*op, *ty, a, constant)
                };
                self.define(*ty, value);
            }
            Step::Shift { op, ty, a, by, amount } => {
                let a = self.value(*ty, *a);
                let amount = self.value(*by, *amount);
                let value = self.binary(*op, *ty, a, amount);
                self.define(*ty, value);
            }
            Step::Ternary { op, ty, picks } => {
                let [a, b, c] = picks.map(|pick| self.value(*ty, pick));
                let value = match op {
                    Opcode::Fma => self.b.ins().fma(a, b, c),
                    _ => self.b.ins().bitselect(a, b, c),
                };
                self.define(*ty, value);
            }
            Step::Select { condition, ty, yes, no } => {
                let condition = self.condition(condition);
                let [yes, no] = [*yes, *no].map(|pick| self.value(*ty, pick));
                let value = self.b.ins().select(condition, yes, no);
                self.define(*ty, value);
            }
            Step::Set { condition } => {
                let value = self.condition(condition);
                let ty = self.b.func.dfg.value_type(value);
                self.define(ty, value);
            }
            Step::Load { op, ty, place } => {
                let bytes = match op {
                    Opcode::Load => ty.bytes(),
                    Opcode::Sload8 | Opcode::Uload8 => 1,
                    Opcode::Sload16 | Opcode::Uload16 => 2,
                    _ => 4,
                };
                let (pointer, offset, flags) = self.place(place, bytes, *ty == types::F32);
                let (ty, ins) = (*ty, self.b.ins());
                let value = match op {
                    Opcode::Sload8 => ins.sload8(ty, flags, pointer, offset),
                    Opcode::Uload8 => ins.uload8(ty, flags, pointer, offset),
                    Opcode::Sload16 => ins.sload16(ty, flags, pointer, offset),
                    Opcode::Uload16 => ins.uload16(ty, flags, pointer, offset),
                    Opcode::Sload32 => ins.sload32(flags, pointer, offset),
                    Opcode::Uload32 => ins.uload32(flags, pointer, offset),
                    _ => ins.load(ty, flags, pointer, offset),
                };
                self.define(ty, value);
            }
            Step::Store { op, ty, value, place } => {
                let bytes = match op {
                    Opcode::Store => ty.bytes(),
                    Opcode::Istore8 => 1,
                    Opcode::Istore16 => 2,
                    _ => 4,
                };
                let value = self.value(*ty, *value);
                let value = self.canonical(value);
                let (pointer, offset, flags) = self.place(place, bytes, *ty == types::F32);
                match op {
                    Opcode::Istore8 => self.b.ins().istore8(flags, value, pointer, offset),
                    Opcode::Istore16 => self.b.ins().istore16(flags, value, pointer, offset),
                    Opcode::Istore32 => self.b.ins().istore32(flags, value, pointer, offset),
                    _ => self.b.ins().store(flags, value, pointer, offset),
                };
            }
            Step::Table { ty, symbol, offset } => {
                let name = self.b.func.declare_imported_user_function(self.machine.table.clone());
                let table = self.b.create_global_value(GlobalValueData::Symbol {
                    name: ExternalName::user(name),
                    offset: i64::from(*symbol).into(),
                    colocated: false,
                    tls: false,
                });
                let address = self.b.ins().symbol_value(self.machine.pointer, table);
                let value = self.b.ins().load(*ty, flags(), address, *offset as i32 - symbol);
                self.define(*ty, value);
            }
            Step::Call { callee, indirect, args } => self.call(*callee, *indirect, args),
            Step::Intrinsic { which, args } => {
                let args = args.map(|pick| self.value(types::I32, pick));
                let value = self.intrinsic(*which, &args[..which.operands()]);
                self.define(types::I32, value);
            }
            Step::Loop {
                count,
                walk,
                carried,
                body,
            } => self.repeat(*count, *walk, carried, body),
            Step::If {
                condition,
                then,
                or,
                joined,
            } => self.branch(condition, then, or, joined),
        }
    }

    /// A float as a narrow integer, by way of a word: Cranelift's x86-64 has no rule for narrow ones.
    fn narrow_integer(&mut self, op: Opcode, ty: Type, a: Value) -> Value {
        let word = self.unary(op, types::I32, a);
        let one = 1 << (ty.bits() - 1);
        let clamped = if op == Opcode::FcvtToSintSat {
            let [least, most] = [-one, one - 1].map(|bound| self.int(types::I32, bound));
            let word = self.b.ins().smax(word, least);
            self.b.ins().smin(word, most)
        } else {
            let most = self.int(types::I32, 2 * one - 1);
            self.b.ins().umin(word, most)
        };
        self.b.ins().ireduce(ty, clamped)
    }

    fn unary(&mut self, op: Opcode, ty: Type, a: Value) -> Value {
        let to_integer = matches!(op, Opcode::FcvtToSintSat | Opcode::FcvtToUintSat);
        if to_integer && ty.bits() < 32 && self.machine.pointer == types::I64 {
            return self.narrow_integer(op, ty, a);
        }
        let ins = self.b.ins();
        match op {
            Opcode::Ineg => ins.ineg(a),
            Opcode::Bnot => ins.bnot(a),
            Opcode::Iabs => ins.iabs(a),
            Opcode::Clz => ins.clz(a),
            Opcode::Bitrev => ins.bitrev(a),
            Opcode::Ctz => ins.ctz(a),
            Opcode::Cls => ins.cls(a),
            Opcode::Popcnt => ins.popcnt(a),
            Opcode::Bswap => ins.bswap(a),
            Opcode::Bmask => ins.bmask(ty, a),
            Opcode::Trunc => ins.trunc(a),
            Opcode::Floor => ins.floor(a),
            Opcode::Ceil => ins.ceil(a),
            Opcode::Nearest => ins.nearest(a),
            Opcode::Fneg => ins.fneg(a),
            Opcode::Fabs => ins.fabs(a),
            Opcode::Sqrt => ins.sqrt(a),
            Opcode::Sextend => ins.sextend(ty, a),
            Opcode::Uextend => ins.uextend(ty, a),
            Opcode::Ireduce => ins.ireduce(ty, a),
            Opcode::FcvtFromSint => ins.fcvt_from_sint(ty, a),
            Opcode::FcvtFromUint => ins.fcvt_from_uint(ty, a),
            Opcode::FcvtToSintSat => ins.fcvt_to_sint_sat(ty, a),
            Opcode::FcvtToUintSat => ins.fcvt_to_uint_sat(ty, a),
            other => unreachable!("{other} is not generated"),
        }
    }

    fn binary(&mut self, op: Opcode, ty: Type, a: Value, b: Value) -> Value {
        debug_assert_eq!(self.b.func.dfg.value_type(a), ty);
        let ins = self.b.ins();
        match op {
            Opcode::Iadd => ins.iadd(a, b),
            Opcode::Isub => ins.isub(a, b),
            Opcode::Imul => ins.imul(a, b),
            Opcode::Band => ins.band(a, b),
            Opcode::Bor => ins.bor(a, b),
            Opcode::Bxor => ins.bxor(a, b),
            Opcode::Smin => ins.smin(a, b),
            Opcode::Smax => ins.smax(a, b),
            Opcode::Umin => ins.umin(a, b),
            Opcode::Umax => ins.umax(a, b),
            Opcode::Ishl => ins.ishl(a, b),
            Opcode::Ushr => ins.ushr(a, b),
            Opcode::Sshr => ins.sshr(a, b),
            Opcode::Rotl => ins.rotl(a, b),
            Opcode::Rotr => ins.rotr(a, b),
            Opcode::Smulhi => ins.smulhi(a, b),
            Opcode::Umulhi => ins.umulhi(a, b),
            Opcode::Sdiv => ins.sdiv(a, b),
            Opcode::Udiv => ins.udiv(a, b),
            Opcode::Srem => ins.srem(a, b),
            Opcode::Urem => ins.urem(a, b),
            Opcode::Fmin => ins.fmin(a, b),
            Opcode::Fmax => ins.fmax(a, b),
            Opcode::Fcopysign => ins.fcopysign(a, b),
            Opcode::Fadd => ins.fadd(a, b),
            Opcode::Fsub => ins.fsub(a, b),
            Opcode::Fmul => ins.fmul(a, b),
            Opcode::Fdiv => ins.fdiv(a, b),
            other => unreachable!("{other} is not generated"),
        }
    }

    fn call(&mut self, callee: usize, indirect: bool, picks: &[Pick]) {
        let program = &self.programs[callee];
        let mut args = vec![self.base];
        for (at, ty) in program.params.iter().enumerate() {
            args.push(self.value(*ty, picks.get(at).copied().unwrap_or(0)));
        }
        let reference = self.callee(callee);
        let call = if indirect {
            let signature = self.b.func.dfg.ext_funcs[reference].signature;
            let address = self.b.ins().func_addr(self.machine.pointer, reference);
            self.b.ins().call_indirect(signature, address, &args)
        } else {
            self.b.ins().call(reference, &args)
        };
        let results = self.b.inst_results(call).to_vec();
        for (value, ty) in results.into_iter().zip(&program.results) {
            self.define(*ty, value);
        }
    }

    fn marks(&self) -> [usize; 5] {
        std::array::from_fn(|i| self.pools[i].len())
    }

    fn reset(&mut self, marks: [usize; 5]) {
        for (pool, mark) in self.pools.iter_mut().zip(marks) {
            pool.truncate(mark);
        }
    }

    fn repeat(&mut self, count: u32, walk: Option<Walk>, carried: &[(Type, Pick, Pick)], body: &[Step]) {
        // The window that moves is 12 bytes.
        let walk = walk.and_then(|walk| {
            let (area, size, aligned) = self.areas[walk.area as usize % self.areas.len()];
            let way = count as i32 * walk.step;
            if way.unsigned_abs() + 12 > size {
                return None;
            }
            let start = self.offset(area, i64::from(if way < 0 { -way } else { 0 }));
            let end = self.offset(start, i64::from(way));
            let aligned = if walk.step % 8 == 0 { aligned } else { 1 };
            Some((walk, start, end, aligned))
        });
        let header = self.b.create_block();
        let exit = self.b.create_block();
        let counter = self.b.append_block_param(header, types::I32);
        let mut args: Vec<BlockArg> = vec![self.int(types::I32, i64::from(count)).into()];
        for (ty, before, _) in carried {
            args.push(self.value(*ty, *before).into());
        }
        args.extend(walk.map(|(_, start, ..)| BlockArg::from(start)));
        self.b.ins().jump(header, &args);
        self.b.switch_to_block(header);
        for (ty, ..) in carried {
            let value = self.b.append_block_param(header, *ty);
            self.define(*ty, value);
        }
        let trips = self.trips;
        self.trips *= u64::from(count);
        self.executions.push((header, self.trips));
        let pointer = walk.map(|(.., aligned)| {
            let pointer = self.b.append_block_param(header, self.machine.pointer);
            self.areas.push((pointer, 12, aligned));
            pointer
        });
        self.steps(body);
        if pointer.is_some() {
            self.areas.pop();
        }
        self.trips = trips;
        self.executions.push((exit, trips));
        let one = self.int(types::I32, 1);
        let left = self.b.ins().isub(counter, one);
        let mut args: Vec<BlockArg> = vec![left.into()];
        for (ty, _, after) in carried {
            args.push(self.value(*ty, *after).into());
        }
        let mut again = left;
        if let (Some((walk, _, end, _)), Some(pointer)) = (walk, pointer) {
            let moved = self.offset(pointer, i64::from(walk.step));
            args.push(moved.into());
            if walk.counts {
                again = self.b.ins().icmp(IntCC::NotEqual, moved, end);
            }
        }
        self.b.ins().brif(again, header, &args, exit, &[]);
        self.b.switch_to_block(exit);
    }

    fn branch(&mut self, condition: &Condition, then: &[Step], or: &[Step], joined: &[(Type, Pick, Pick)]) {
        let condition = self.condition(condition);
        let [yes, no, join] = std::array::from_fn(|_| self.b.create_block());
        self.b.ins().brif(condition, yes, &[], no, &[]);
        let marks = self.marks();
        for (block, steps, second) in [(yes, then, false), (no, or, true)] {
            self.b.switch_to_block(block);
            self.steps(steps);
            let args: Vec<BlockArg> = joined
                .iter()
                .map(|(ty, a, b)| self.value(*ty, if second { *b } else { *a }).into())
                .collect();
            self.b.ins().jump(join, &args);
            self.reset(marks);
        }
        self.b.switch_to_block(join);
        for (ty, ..) in joined {
            let value = self.b.append_block_param(join, *ty);
            self.define(*ty, value);
        }
    }

    /// Results that depend on the newest values of every type.
    fn results(&mut self) -> Vec<Value> {
        let mut sum = self.b.ins().iconst(types::I32, 1);
        let factor = self.b.ins().iconst(types::I32, 31);
        for ty in [types::I32, types::I64, types::F32, types::I8, types::I16] {
            let pool = &self.pools[class(ty)];
            let newest = pool[pool.len().saturating_sub(self.program.mixed)..].to_vec();
            for value in newest {
                let word = match ty {
                    types::I32 => value,
                    types::F32 => {
                        let value = self.canonical(value);
                        self.b.ins().bitcast(types::I32, MemFlagsData::new(), value)
                    }
                    types::I64 => {
                        let low = self.b.ins().ireduce(types::I32, value);
                        let by = self.b.ins().iconst(types::I32, 32);
                        let high = self.b.ins().ushr(value, by);
                        let high = self.b.ins().ireduce(types::I32, high);
                        self.b.ins().bxor(low, high)
                    }
                    _ => self.b.ins().uextend(types::I32, value),
                };
                let product = self.b.ins().imul(sum, factor);
                sum = self.b.ins().bxor(product, word);
            }
        }
        let results = self.program.results.clone();
        if results.is_empty() {
            self.b.ins().store(flags(), sum, self.base, RESULTS + 32);
        }
        results
            .into_iter()
            .map(|ty| match ty {
                types::I32 => sum,
                types::F32 => {
                    let finite = self.b.ins().iconst(types::I32, 0xbf7f_ffff);
                    let bits = self.b.ins().band(sum, finite);
                    self.b.ins().bitcast(types::F32, MemFlagsData::new(), bits)
                }
                types::I64 => {
                    let wide = self.b.ins().uextend(types::I64, sum);
                    let factor = self.b.ins().iconst(types::I64, 0x0123_4567_89ab_cdef);
                    self.b.ins().imul(wide, factor)
                }
                ty => self.b.ins().ireduce(ty, sum),
            })
            .collect()
    }

    fn intrinsic(&mut self, which: Intrinsic, args: &[Value]) -> Value {
        if self.machine.intrinsics.is_none() {
            return spell::spell_out(&mut self.b, which, args);
        }
        let signature = intrinsic_signature(which);
        let name = self.machine.intrinsic(which);
        let reference = self.import(name, signature);
        let call = self.b.ins().call(reference, args);
        self.b.inst_results(call)[0]
    }
}

/// The signature of an intrinsic.
pub fn intrinsic_signature(which: Intrinsic) -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(types::I32); which.operands()];
    signature.returns.push(AbiParam::new(types::I32));
    signature
}
