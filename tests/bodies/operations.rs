//! Sequences of all operations of several CPUs, with steps in the middle of others, out of bytes.
//! What they must answer is in `tests/support/play.rs`.

use super::Bytes;
use crate::support::Machine;
use crate::support::play::{CPUS, Op, Size, Step, play};

const STEPS: usize = 48;

/// How many steps were played.
pub fn run(data: &[u8]) -> usize {
    let bytes = &mut Bytes::new(data);
    let first = bytes.u8();
    let machine = if first & 1 == 0 { Machine::Deaf } else { Machine::Waits };
    let regions = bytes.regions();
    let end = regions.iter().map(|(start, count)| start + count).max().expect("a region");
    let mut steps = Vec::new();
    while !bytes.is_empty() && steps.len() < STEPS {
        steps.push(step(bytes, end));
    }
    play(machine, &regions, u64::from(first) << 56 | u64::from(first), &steps);
    steps.len()
}

fn step(bytes: &mut Bytes<'_>, end: u64) -> Step {
    let how = bytes.u8();
    let cpu = usize::from(how & 3).min(CPUS);
    // A handler comes for each instruction until then: soon, mostly.
    let inside = match how >> 2 & 7 {
        0 => Some(u16::from(bytes.u8())),
        1 => Some(bytes.u16() % 1024),
        _ => None,
    };
    Step { cpu, inside, op: op(bytes, end) }
}

fn op(bytes: &mut Bytes<'_>, end: u64) -> Op {
    let what = bytes.u8() % 20;
    let count = |bytes: &mut Bytes<'_>| u16::from(bytes.u8());
    let which = |bytes: &mut Bytes<'_>| u32::from(bytes.u16());
    let some =
        |bytes: &mut Bytes<'_>| (which(bytes), u16::from(bytes.u8()), u16::from(bytes.u8() % 70));
    match what {
        0 => Op::Alloc { count: count(bytes) },
        1 => Op::AllocZeroed { count: count(bytes) },
        2 => Op::AllocBulk { count: count(bytes) },
        3 => Op::AllocBlock,
        4 => Op::AllocGiant,
        5 | 6 => Op::AllocRun { asked: bytes.asked(end) },
        7 | 8 => {
            let (which, count, stride) = some(bytes);
            Op::Free { which, count, stride }
        }
        9 => {
            let (which, count, stride) = some(bytes);
            Op::FreeZeroed { which, count, stride }
        }
        10 => {
            let (which, count, stride) = some(bytes);
            Op::FreeBulk { which, count, stride }
        }
        11 => Op::FreeBlock { which: which(bytes) },
        12 => Op::FreeGiant { which: which(bytes) },
        13 | 14 => Op::FreeRun { which: which(bytes), count: u32::from(bytes.u16() % 1024) },
        15 => match bytes.u8() {
            other if usize::from(other) < CPUS => Op::DrainOffline { other: other.into() },
            _ => Op::Drain,
        },
        16 => Op::TreeAlloc { count: count(bytes) },
        17 => match bytes.u8() & 1 {
            0 => Op::TreeAllocRun { asked: bytes.asked(end) },
            _ => Op::TreeFreeRun { which: which(bytes), count: u32::from(bytes.u16() % 1024) },
        },
        18 => Op::Refill { take: bytes.u8() % 70, run: bytes.u8() % 64 },
        _ => wild(bytes, end),
    }
}

fn wild(bytes: &mut Bytes<'_>, end: u64) -> Op {
    let number = bytes.number(&[end, 1 << 40, 512, 1 << 18]);
    let size = match bytes.u8() % 6 {
        0 => Size::One,
        1 => Size::Zeroed,
        2 => Size::Block,
        3 => Size::Giant,
        4 => Size::Run(bytes.number(&[64, 512, 1 << 18, 1 << 40])),
        _ => Size::Group(bytes.u64()),
    };
    Op::Wild { number, size }
}
