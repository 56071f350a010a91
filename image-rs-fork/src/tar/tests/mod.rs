//! The parser's tests.

pub(crate) mod build;
mod cases;
mod compare;
mod golang;
mod limits;
mod list;
mod robust;
