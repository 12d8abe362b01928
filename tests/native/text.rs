//! Functions in text.

use crate::build::Machine;
use corerope::intrinsic;
use cranelift_codegen::ir::{AbiParam, ExternalName, Function, GlobalValueData, Type};

/// A function from its text. Intrinsics go by their names in small letters, the table by `%table`.
pub fn parsed(text: &str, machine: &Machine) -> Function {
    let mut functions = cranelift_reader::parse_functions(&text.replace("ptr", &machine.pointer.to_string()))
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut func = functions.pop().expect("a function");
    let named = |name: &ExternalName| match name {
        ExternalName::TestCase(name) => Some(String::from_utf8_lossy(name.raw()).into_owned()),
        _ => None,
    };
    let references: Vec<_> = func.dfg.ext_funcs.keys().collect();
    for reference in references {
        let Some(name) = named(&func.dfg.ext_funcs[reference].name) else {
            continue;
        };
        let found = intrinsic::ALL
            .iter()
            .find(|which| format!("{which:?}").to_lowercase() == name);
        let which = found.unwrap_or_else(|| panic!("{name} is no intrinsic"));
        let name = func.declare_imported_user_function(machine.intrinsic(*which));
        func.dfg.ext_funcs[reference].name = ExternalName::user(name);
    }
    let values: Vec<_> = func.global_values.keys().collect();
    for value in values {
        let table = func.declare_imported_user_function(machine.table.clone());
        if let GlobalValueData::Symbol { name, .. } = &mut func.global_values[value]
            && named(name).is_some()
        {
            *name = ExternalName::user(table);
        }
    }
    func
}

/// The parameters and results of a function in text, the pointer left out.
pub fn types_of(text: &str) -> (Vec<Type>, Vec<Type>) {
    let functions = cranelift_reader::parse_functions(&text.replace("ptr", "i32"))
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    let signature = &functions.last().expect("a function").signature;
    let types = |params: &[AbiParam]| params.iter().map(|param| param.value_type).collect::<Vec<_>>();
    (types(&signature.params[1..]), types(&signature.returns))
}
