//! End to end: the `corerope` program, the ordinary linkers, and what they make, run.
//!
//! What is not installed, and data that is not there, is skipped and said so in the file that `COREROPE_SKIPPED` names.

mod alignment;
mod arenas;
mod big;
mod boards;
mod cases;
mod coff;
mod discovery;
mod embedded;
mod evaluate;
mod feed;
mod firmware;
mod gdb;
mod instructions;
mod instructions64;
mod layers;
mod linking;
mod matrix;
mod modules;
mod mutants;
mod names;
mod objects;
mod outside;
mod packages;
mod passes;
mod placing;
mod readme;
mod reproducible;
mod takeover;
mod text;
mod tools;
mod tvm;
mod verify;
