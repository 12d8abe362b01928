//! References from a function to symbols.

use cranelift_codegen::ir::{
    ExtFuncData, ExternalName, FuncRef, Function, GlobalValueData, InstBuilder, SigRef, Signature, Type,
    UserExternalName, Value,
};
use cranelift_frontend::FunctionBuilder;
use std::collections::BTreeMap;

/// References from a function to symbols: equal ones are declared once.
#[derive(Default)]
pub struct Symbols {
    names: Vec<String>,
    index: BTreeMap<String, u32>,
    functions: BTreeMap<(String, SigRef), FuncRef>,
    signatures: Vec<(Signature, SigRef)>,
}

impl Symbols {
    fn name(&mut self, function: &mut Function, symbol: &str) -> ExternalName {
        let index = *self.index.entry(symbol.to_owned()).or_insert_with(|| {
            self.names.push(symbol.to_owned());
            self.names.len() as u32 - 1
        });
        ExternalName::user(function.declare_imported_user_function(UserExternalName { namespace: 0, index }))
    }

    /// The address of `symbol + offset`.
    pub fn address(&mut self, b: &mut FunctionBuilder, pointer: Type, symbol: &str, offset: i64) -> Value {
        let name = self.name(b.func, symbol);
        let global = b.create_global_value(GlobalValueData::Symbol {
            name,
            offset: offset.into(),
            colocated: true,
            tls: false,
        });
        b.ins().symbol_value(pointer, global)
    }

    /// The reference to a signature.
    pub fn signature(&mut self, b: &mut FunctionBuilder, signature: &Signature) -> SigRef {
        match self.signatures.iter().find(|(known, _)| known == signature) {
            Some((_, reference)) => *reference,
            None => {
                let reference = b.import_signature(signature.clone());
                self.signatures.push((signature.clone(), reference));
                reference
            }
        }
    }

    /// Calls `symbol`; returns its results.
    pub fn call(&mut self, b: &mut FunctionBuilder, symbol: &str, signature: &Signature, args: &[Value]) -> Vec<Value> {
        let signature = self.signature(b, signature);
        let function = match self.functions.get(&(symbol.to_owned(), signature)) {
            Some(function) => *function,
            None => {
                let name = self.name(b.func, symbol);
                let function = b.import_function(ExtFuncData {
                    name,
                    signature,
                    colocated: true,
                    patchable: false,
                });
                self.functions.insert((symbol.to_owned(), signature), function);
                function
            }
        };
        let call = b.ins().call(function, args);
        b.inst_results(call).to_vec()
    }

    /// Calls the function at `address`; returns its results.
    pub fn call_at(
        &mut self,
        b: &mut FunctionBuilder,
        address: Value,
        signature: &Signature,
        args: &[Value],
    ) -> Vec<Value> {
        let signature = self.signature(b, signature);
        let call = b.ins().call_indirect(signature, address, args);
        b.inst_results(call).to_vec()
    }

    /// The symbols, in the order of their indices.
    pub fn into_names(self) -> Vec<String> {
        self.names
    }
}
