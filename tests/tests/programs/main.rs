//! The compiled kernel programs by themselves, on made frames.

mod anchor;
mod full;
mod kernel;
mod quotes;
mod races;
