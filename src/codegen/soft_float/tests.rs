//! The routines, compiled for this machine, against its own floating point.

use super::*;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module};

/// A routine as machine code of this host.
struct Compiled {
    module: JITModule,
    code: *const u8,
    routine: Routine,
}

impl Compiled {
    fn new(routine: Routine, has_clz: bool) -> Self {
        let mut flags = settings::builder();
        flags.set("opt_level", "speed").expect("a known flag");
        let isa = cranelift_codegen::isa::lookup(target_lexicon::Triple::host())
            .expect("this machine has a code generator")
            .finish(settings::Flags::new(flags))
            .expect("default features");
        let mut module = JITModule::new(JITBuilder::with_isa(isa, cranelift_module::default_libcall_names()));
        let call_conv = module.isa().default_call_conv();
        let signature = routine.signature(call_conv);
        let id = module
            .declare_function(routine.name(), Linkage::Export, &signature)
            .expect("a new name");
        let mut context = module.make_context();
        context.func = routine.function(call_conv, has_clz);
        module.define_function(id, &mut context).expect("a valid function");
        module.finalize_definitions().expect("no open references");
        let code = module.get_finalized_function(id);
        Compiled { module, code, routine }
    }

    /// Runs the routine on bit patterns.
    #[allow(unsafe_code)] // calls code that was just compiled for the signature it is called with
    fn run(&self, a: u32, b: u32) -> u32 {
        let (x, y) = (f32::from_bits(a), f32::from_bits(b));
        match self.routine {
            Routine::Add | Routine::Sub | Routine::Mul | Routine::Div => {
                let f: extern "C" fn(f32, f32) -> f32 = unsafe { std::mem::transmute(self.code) };
                f(x, y).to_bits()
            }
            Routine::Compare => {
                let f: extern "C" fn(f32, f32) -> u32 = unsafe { std::mem::transmute(self.code) };
                f(x, y)
            }
            Routine::FromSigned | Routine::FromUnsigned => {
                let f: extern "C" fn(u32) -> f32 = unsafe { std::mem::transmute(self.code) };
                f(a).to_bits()
            }
            Routine::ToSigned | Routine::ToUnsigned => {
                let f: extern "C" fn(f32) -> u32 = unsafe { std::mem::transmute(self.code) };
                f(x)
            }
        }
    }

    fn check(&self, a: u32, b: u32) {
        let (got, want) = (self.run(a, b), expected(self.routine, a, b));
        let float = self.routine.types().1 == types::F32;
        let nan = |bits: u32| float && f32::from_bits(bits).is_nan();
        assert!(
            got == want || (nan(got) && nan(want)),
            "{}({a:#010x}, {b:#010x}) = {got:#010x}, not {want:#010x}",
            self.routine.name()
        );
    }

    #[allow(unsafe_code)] // nothing refers to the code any more
    fn free(self) {
        unsafe { self.module.free_memory() };
    }
}

fn expected(routine: Routine, a: u32, b: u32) -> u32 {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    match routine {
        Routine::Add => (x + y).to_bits(),
        Routine::Sub => (x - y).to_bits(),
        Routine::Mul => (x * y).to_bits(),
        Routine::Div => (x / y).to_bits(),
        Routine::Compare => x.partial_cmp(&y).map_or(3, |order| (order as i32 + 1) as u32),
        Routine::FromSigned => (a as i32 as f32).to_bits(),
        Routine::FromUnsigned => (a as f32).to_bits(),
        Routine::ToSigned => (x as i32) as u32,
        Routine::ToUnsigned => x as u32,
    }
}

/// Bit patterns at which something changes: zeros, subnormals, powers of two, halves between integers, infinities, NaN.
fn corners() -> Vec<u32> {
    let mut corners = vec![
        0,
        1,
        2,
        0x007f_ffff,
        0x0080_0000,
        0x0080_0001,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7f80_0001,
        0x7fc0_0000,
    ];
    for exponent in [
        1u32, 2, 23, 24, 25, 30, 100, 126, 127, 128, 150, 151, 152, 157, 158, 159, 160, 253, 254,
    ] {
        for fraction in [0, 1, 0x40_0000, 0x40_0001, 0x7f_ffff] {
            corners.push(exponent << 23 | fraction);
        }
    }
    corners.iter().flat_map(|bits| [*bits, bits | 0x8000_0000]).collect()
}

/// Pseudo-random words (xorshift), some of them close to one another so that subtraction cancels.
fn words(count: usize) -> impl Iterator<Item = (u32, u32)> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..count).map(move |round| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (a, b) = ((state >> 32) as u32, state as u32);
        match round % 4 {
            0 => (a, b),
            // Near exponents.
            1 => (a, (a ^ b) & 0x807f_ffff | (a.wrapping_add((b & 7) << 23) & 0x7f80_0000)),
            // Near values of opposite sign.
            2 => (a, a.wrapping_add(b & 15) ^ 0x8000_0000),
            // Subnormals and small numbers.
            _ => (a & 0x81ff_ffff, b),
        }
    })
}

#[test]
fn every_routine_agrees_with_the_hardware() {
    for has_clz in [true, false] {
        for routine in ROUTINES {
            let compiled = Compiled::new(*routine, has_clz);
            let corners = corners();
            for a in &corners {
                for b in &corners {
                    compiled.check(*a, *b);
                }
            }
            words(400_000).for_each(|(a, b)| compiled.check(a, b));
            compiled.free();
        }
    }
}

#[test]
fn conversions_agree_on_every_upper_half() {
    for routine in [
        Routine::FromSigned,
        Routine::FromUnsigned,
        Routine::ToSigned,
        Routine::ToUnsigned,
    ] {
        let compiled = Compiled::new(routine, false);
        for high in 0..=0xffffu32 {
            for low in [0, 1, 0x7fff, 0x8000, 0xffff] {
                compiled.check(high << 16 | low, 0);
            }
        }
        compiled.free();
    }
}

#[test]
fn all_conditions_become_integer_comparisons() {
    use cranelift_codegen::ir::condcodes::CondCode;
    use cranelift_codegen::ir::{UserFuncName, immediates::Ieee32};
    let conditions = FloatCC::all();
    let values = [f32::NEG_INFINITY, -1.0, -0.0, 0.0, 1.0, f32::NAN];
    let mut module = {
        let isa = cranelift_codegen::isa::lookup(target_lexicon::Triple::host())
            .expect("this machine has a code generator")
            .finish(settings::Flags::new(settings::builder()))
            .expect("default features");
        JITModule::new(JITBuilder::with_isa(isa, cranelift_module::default_libcall_names()))
    };
    let call_conv = module.isa().default_call_conv();
    let compare = module
        .declare_function("compare", Linkage::Local, &Routine::Compare.signature(call_conv))
        .expect("a new name");
    let mut context = module.make_context();
    context.func = Routine::Compare.function(call_conv, true);
    module.define_function(compare, &mut context).expect("a valid function");
    let mut cases = Vec::new();
    for cond in conditions {
        for (x, y) in values.iter().flat_map(|x| values.iter().map(move |y| (*x, *y))) {
            let mut signature = Signature::new(call_conv);
            signature.returns = vec![AbiParam::new(types::I8)];
            let mut function = Function::with_name_signature(UserFuncName::default(), signature.clone());
            let block = function.dfg.make_block();
            let mut cursor = FuncCursor::new(&mut function);
            cursor.insert_block(block);
            let [a, b] = [x, y].map(|value: f32| cursor.ins().f32const(Ieee32::with_float(value)));
            let result = cursor.ins().fcmp(*cond, a, b);
            cursor.ins().return_(&[result]);
            legalize(&mut function, |_| compare.as_u32()).expect("comparisons have a routine");
            assert!(!function.to_string().contains("fcmp"));
            let name = format!("case{}", cases.len());
            let id = module
                .declare_function(&name, Linkage::Local, &signature)
                .expect("a new name");
            let mut context = module.make_context();
            context.func = function;
            module.define_function(id, &mut context).expect("a valid function");
            cases.push((id, *cond, x, y));
        }
    }
    module.finalize_definitions().expect("no open references");
    for (id, cond, x, y) in cases {
        #[allow(unsafe_code)] // code of this signature, compiled above
        let run: extern "C" fn() -> u8 = unsafe { std::mem::transmute(module.get_finalized_function(id)) };
        let order = x.partial_cmp(&y);
        let holds = |text: &str| match text {
            "eq" => x == y,
            "ne" => x != y,
            "lt" => x < y,
            "le" => x <= y,
            "gt" => x > y,
            "ge" => x >= y,
            "ord" => order.is_some(),
            "uno" => order.is_none(),
            "one" => order.is_some() && x != y,
            "ueq" => order.is_none() || x == y,
            "ult" => order.is_none() || x < y,
            "ule" => order.is_none() || x <= y,
            "ugt" => order.is_none() || x > y,
            "uge" => order.is_none() || x >= y,
            other => panic!("condition {other}"),
        };
        assert_eq!(run() != 0, holds(&cond.to_string()), "{x} {cond} {y}");
        let _ = cond.complement();
    }
    #[allow(unsafe_code)] // nothing refers to the code any more
    unsafe {
        module.free_memory();
    }
}
