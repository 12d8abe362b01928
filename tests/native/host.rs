//! Programs on this machine, compiled by Cranelift in memory.

use crate::build::{self, Machine};
use crate::program::{BUFFER, Program, TABLE};
use corerope::intrinsic::{self, Intrinsic};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{DataDescription, Linkage, Module, default_libcall_names};

/// Runs every program on every input; what the buffers hold afterwards, in that order.
pub fn run(programs: &[Program], inputs: &[[u8; BUFFER]]) -> Vec<Vec<[u8; BUFFER]>> {
    let machine = Machine::host(programs.len());
    let mut flags = settings::builder();
    for (name, value) in [
        ("use_colocated_libcalls", "false"),
        ("is_pic", "false"),
        ("opt_level", "none"),
        // Fast, and not the allocator that our back ends use.
        ("regalloc_algorithm", "single_pass"),
        ("enable_verifier", "false"),
    ] {
        flags.set(name, value).expect("a known setting");
    }
    let isa = cranelift_codegen::isa::lookup(target_lexicon::Triple::host())
        .and_then(|isa| {
            isa.finish(settings::Flags::new(flags))
                .map_err(|_| cranelift_codegen::isa::LookupError::Unsupported)
        })
        .expect("Cranelift compiles for this machine");
    let mut builder = JITBuilder::with_isa(isa, default_libcall_names());
    builder.symbol("fmaf", fmaf as *const u8);
    for (name, code) in ROUNDING {
        builder.symbol(*name, *code as *const u8);
    }
    assert!(intrinsic::ALL.len() <= INTRINSICS.len(), "an entry for each intrinsic");
    for (which, code) in intrinsic::ALL.iter().zip(INTRINSICS) {
        builder.symbol(format!("{which:?}"), *code as *const u8);
    }
    let mut module = JITModule::new(builder);

    let mut functions = Vec::new();
    for (index, program) in programs.iter().enumerate() {
        let signature = machine.signature(program);
        functions.push(
            module
                .declare_function(&format!("f{index}"), Linkage::Local, &signature)
                .expect("a new name"),
        );
    }
    let mut entries = Vec::new();
    for index in 0..programs.len() {
        let signature = machine.entry_signature();
        entries.push(
            module
                .declare_function(&format!("e{index}"), Linkage::Local, &signature)
                .expect("a new name"),
        );
    }
    for which in intrinsic::ALL {
        let signature = build::intrinsic_signature(*which);
        let name = format!("{which:?}");
        module
            .declare_function(&name, Linkage::Import, &signature)
            .expect("a new name");
    }
    let table = module
        .declare_data("table", Linkage::Local, false, false)
        .expect("a new name");
    let mut data = DataDescription::new();
    data.define(
        TABLE
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<u8>>()
            .into_boxed_slice(),
    );
    data.set_align(4);
    module.define_data(table, &data).expect("not defined before");

    let mut context = module.make_context();
    for index in 0..programs.len() {
        for (id, function) in [
            (functions[index], build::function(programs, index, &machine)),
            (entries[index], build::entry(programs, index, &machine)),
        ] {
            context.func = function;
            if let Err(error) = module.define_function(id, &mut context) {
                panic!("program {index}, seed {}: {error:?}", programs[index].seed);
            }
            module.clear_context(&mut context);
        }
    }
    module.finalize_definitions().expect("everything is defined");
    let results = entries
        .iter()
        .map(|entry| {
            let code = module.get_finalized_function(*entry);
            inputs
                .iter()
                .map(|input| {
                    let mut buffer = Aligned(*input);
                    call(code, &mut buffer.0);
                    buffer.0
                })
                .collect()
        })
        .collect();
    free(module);
    results
}

#[repr(align(16))]
struct Aligned([u8; BUFFER]);

extern "C" fn fmaf(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// What Cranelift calls where the machine has no instruction that rounds.
const ROUNDING: &[(&str, extern "C" fn(f32) -> f32)] = &{
    extern "C" fn ceil(x: f32) -> f32 {
        x.ceil()
    }
    extern "C" fn floor(x: f32) -> f32 {
        x.floor()
    }
    extern "C" fn trunc(x: f32) -> f32 {
        x.trunc()
    }
    extern "C" fn nearest(x: f32) -> f32 {
        x.round_ties_even()
    }
    [
        ("ceilf", ceil),
        ("floorf", floor),
        ("truncf", trunc),
        ("nearbyintf", nearest),
    ]
};

/// The meaning of each intrinsic, for compiled code to call. Further operands than it has are not looked at;
/// entries beyond the list are never called.
const INTRINSICS: &[extern "C" fn(i32, i32, i32) -> i32] = &{
    extern "C" fn evaluate<const INDEX: u32>(x: i32, y: i32, a: i32) -> i32 {
        let which = Intrinsic::from_index(INDEX).expect("an index of the list");
        which.evaluate(&[x, y, a][..which.operands()])
    }
    [
        evaluate::<0>,
        evaluate::<1>,
        evaluate::<2>,
        evaluate::<3>,
        evaluate::<4>,
        evaluate::<5>,
        evaluate::<6>,
        evaluate::<7>,
        evaluate::<8>,
        evaluate::<9>,
        evaluate::<10>,
        evaluate::<11>,
        evaluate::<12>,
        evaluate::<13>,
        evaluate::<14>,
        evaluate::<15>,
        evaluate::<16>,
        evaluate::<17>,
        evaluate::<18>,
        evaluate::<19>,
        evaluate::<20>,
        evaluate::<21>,
        evaluate::<22>,
        evaluate::<23>,
    ]
};

/// Calls an entry that was just compiled.
#[allow(unsafe_code)]
fn call(code: *const u8, buffer: &mut [u8; BUFFER]) {
    // SAFETY: `code` is an entry of a finished module that is still alive, of this signature; programs access nothing but
    // the buffer, their stack and the table.
    let entry = unsafe { std::mem::transmute::<*const u8, extern "C" fn(*mut u8)>(code) };
    entry(buffer.as_mut_ptr());
}

/// Gives the module's memory back.
#[allow(unsafe_code)]
fn free(module: JITModule) {
    // SAFETY: no pointer to its code is used afterwards.
    unsafe { module.free_memory() };
}
