//! Loops are closed by a jump, as Linux 6.1 wants it.
//!
//! It follows the jumps of a program before it follows what they do, and refuses a loop whose last instruction is none
//! ("back-edge from insn"): `visit_insn` in kernel/bpf/verifier.c. Newer kernels take such a loop, so it is looked for here.

use std::{collections::HashMap, path::Path};

use anyhow::{Result, ensure};
use aya_obj::Object;

/// `BPF_JMP` and `BPF_JMP32` in the lowest three bits of the code, of `linux/bpf.h`.
const JMP: u8 = 5;
const JMP32: u8 = 6;
/// Operations, in the highest four.
const JA: u8 = 0x00;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;

/// What matters of an instruction.
#[derive(Clone, Copy)]
struct Insn {
    code: u8,
    off: i16,
    imm: i32,
}

/// Where an instruction leads to, in the order in which the verifier looks, and whether a loop may close there.
fn edges(instructions: &[Insn], at: usize) -> Vec<(usize, bool)> {
    let insn = &instructions[at];
    let to =
        |offset: i32| isize::try_from(offset).ok().and_then(|n| (at + 1).checked_add_signed(n)).unwrap_or(usize::MAX);
    match (insn.code & 7, insn.code & 0xf0) {
        (JMP, EXIT) => vec![],
        (JMP, CALL) => vec![(at + 1, false)],
        (JMP, JA) => vec![(to(i32::from(insn.off)), true)],
        (JMP32, JA) => vec![(to(insn.imm), true)],
        (JMP | JMP32, _) => vec![(at + 1, true), (to(i32::from(insn.off)), true)],
        _ => vec![(at + 1, false)],
    }
}

/// The instructions that fall through to the begin of a loop they are in.
fn fallen(instructions: &[Insn]) -> Vec<usize> {
    let (mut fallen, mut open, mut way) = (Vec::new(), HashMap::from([(0, true)]), vec![(0, 0)]);
    while let Some((at, next)) = way.last_mut() {
        let at = *at;
        let Some(&(to, may_close)) = edges(instructions, at).get(*next) else {
            open.insert(at, false);
            way.pop();
            continue;
        };
        *next += 1;
        match open.get(&to) {
            Some(true) if !may_close => fallen.push(at),
            None if to < instructions.len() => {
                open.insert(to, true);
                way.push((to, 0));
            }
            _ => {}
        }
    }
    fallen
}

#[test]
fn no_loop_falls_through_to_its_begin() -> Result<()> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("loops.bpf.o");
    xtask::ebpf::build_ebpf(&path)?;
    let object = Object::parse(&std::fs::read(path)?)?;
    ensure!(object.functions.len() > 20, "the object has {} functions only", object.functions.len());
    for function in object.functions.values() {
        let instructions: Vec<Insn> =
            function.instructions.iter().map(|i| Insn { code: i.code, off: i.off, imm: i.imm }).collect();
        let fallen = fallen(&instructions);
        ensure!(
            fallen.is_empty(),
            "{}: instructions {fallen:?} fall through to the begin of their loop: Linux 6.1 refuses it. Let the loop's body be a \
             function of its own, or unroll it",
            function.name
        );
    }
    Ok(())
}

#[test]
fn a_loop_that_falls_through_is_found() -> Result<()> {
    let insn = |code, off| Insn { code, off, imm: 0 };
    let (step, leave) = (insn(0x07, 0), insn(JMP | EXIT, 0));
    // goto the condition; a step; the condition: back to the step; exit
    let falls = [insn(JMP | JA, 1), step, insn(JMP | 0x20, -2), leave];
    ensure!(fallen(&falls) == [1], "{:?}", fallen(&falls));
    // a step; the condition: back to the step; exit
    let jumps = [step, insn(JMP | 0x20, -2), leave];
    ensure!(fallen(&jumps).is_empty(), "{:?}", fallen(&jumps));
    Ok(())
}
