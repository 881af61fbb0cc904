//! The compiled kernel programs by themselves, on made frames.

mod anchor;
mod checksums;
mod crossing;
mod full;
mod gaps;
mod held;
mod kernel;
mod names;
mod quotes;
mod races;
mod stage;
