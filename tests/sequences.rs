//! Long random sequences of everything that the allocator can do, by several CPUs, with
//! interrupts and other CPUs in the middle of operations, against a naive allocator
//! (`support/play.rs`). What fails is made as small as it goes and printed so that it can be
//! pasted below, as a test of its own.
#![cfg(not(loom))]

mod support;

use frametree::FRAME_SIZE;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use support::asked::{Asked, FRAMES, LIMIT};
use support::play::{CPUS, Op, Op::*, Size, Size::*, Step, play};
use support::reshape::Reshape::{self, *};
use support::{BLOCK, GIANT, Machine, Machine::*};

/// What the metadata's memory is full of.
const GARBAGE: u64 = 0xdead_beef_0bad_cafe;

type Case = (Machine, Vec<(u64, u64)>, Vec<Step>);

/// How many times as many sequences as usual: `make sequences TIMES=…`.
fn times() -> u32 {
    std::env::var("TIMES").map_or(1, |times| times.parse().expect("TIMES is a number"))
}

/// Plays this many sequences; the first that fails is shrunk and printed as a test.
fn try_all(cases: u32, strategy: impl Strategy<Value = Case>) {
    let cases = times() * if cfg!(miri) { cases.div_ceil(64) } else { cases };
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 30_000,
        ..ProptestConfig::default()
    };
    let nested = std::cell::Cell::new(0);
    // Thousands of panics while shrinking say nothing new.
    std::panic::set_hook(Box::new(|_| {}));
    let result = TestRunner::new(config).run(&strategy, |(machine, regions, steps)| {
        nested.set(nested.get() + play(machine, &regions, GARBAGE, &steps));
        Ok(())
    });
    if result.is_err() {
        drop(std::panic::take_hook());
    }
    if let Err(TestError::Fail(reason, case)) = &result {
        panic!("{reason}\nThe smallest that fails:\n\n{}", as_test(case));
    }
    result.expect("sequences");
    assert!(nested.get() as u32 >= cases, "{} steps came in the middle of others", nested.get());
}

/// A sequence as the source of a test of this file.
fn as_test((machine, regions, steps): &Case) -> String {
    let steps: String = steps.iter().map(|step| format!("        {step:?},\n")).collect();
    format!(
        "#[test]\nfn a_sequence_that_failed() {{\n    let steps = [\n{steps}    ];\n    \
         play({machine:?}, &{regions:?}, GARBAGE, &steps);\n}}"
    )
}

fn asked(end: u64) -> impl Strategy<Value = Asked> {
    let count = prop_oneof![
        6 => 1..70u64, 3 => 1..700u64, 2 => (1..4u64).prop_map(|blocks| blocks * BLOCK),
        1 => 1..3 * BLOCK, 1 => Just(GIANT), 1 => 0..=end, 1 => any::<u64>(),
    ];
    let align = prop_oneof![6 => Just(FRAME_SIZE), 4 => (0..32u32).prop_map(|log| 1 << log),
        1 => any::<u64>()];
    let above = prop_oneof![4 => Just(0), 2 => 0..end * FRAME_SIZE, 1 => any::<u64>()];
    let below = prop_oneof![4 => Just(LIMIT), 2 => 0..end * FRAME_SIZE, 1 => any::<u64>()];
    let boundary = prop_oneof![4 => Just(0), 2 => (10..34u32).prop_map(|log| 1 << log),
        1 => any::<u64>()];
    let place = prop::option::weighted(0.2, 0..end);
    (count, align, above, below, boundary, place).prop_map(
        |(count, align, above, below, boundary, place)| match place {
            Some(first) => Asked { align, boundary, ..Asked::at(first, count) },
            None if count % 3 > 0 => Asked { align, above, below, boundary, count },
            None => Asked::plain(count),
        },
    )
}

fn size() -> impl Strategy<Value = Size> {
    prop_oneof![
        3 => Just(One), 1 => Just(Zeroed), 1 => Just(Size::Block), 1 => Just(Giant),
        1 => (0..2 * BLOCK).prop_map(Run), 1 => any::<u64>().prop_map(Run),
        2 => any::<u64>().prop_map(Group),
    ]
}

fn wild(end: u64) -> impl Strategy<Value = Op> {
    let number = prop_oneof![
        6 => 0..end + 100, 2 => (0..end / BLOCK + 2).prop_map(|block| block * BLOCK),
        1 => (0..end / GIANT + 2).prop_map(|giant| giant * GIANT), 1 => 0..=FRAMES,
        1 => FRAMES - 100..=FRAMES,
    ];
    (number, size()).prop_map(|(number, size)| Wild { number, size })
}

fn some_frames() -> impl Strategy<Value = (u32, u16, u16)> {
    (any::<u32>(), 1..300u16, prop_oneof![3 => Just(1), 2 => 1..100u16])
}

fn reshape(end: u64) -> impl Strategy<Value = Reshape> {
    let which = any::<u32>;
    // Around the edges of groups, blocks and GiBs, and behind the end.
    let place = || {
        let start = prop_oneof![
            4 => 0..end, 2 => (0..end / BLOCK + 2).prop_map(|block| block * BLOCK),
            1 => end..end + 3 * BLOCK, 1 => (0..end / GIANT + 2).prop_map(|giant| giant * GIANT),
        ];
        let count = prop_oneof![
            7 => 0..130u64, 3 => 1..1600u64, 1 => (1..4u64).prop_map(|blocks| blocks * BLOCK),
            1 => Just(GIANT),
        ];
        (start, count)
    };
    prop_oneof![
        6 => place().prop_map(|(start, count)| Isolate { start, count }),
        4 => which().prop_map(|which| InUse { which }),
        4 => which().prop_map(|which| Offline { which }),
        4 => which().prop_map(|which| Readmit { which }),
        3 => which().prop_map(|which| Retire { which }),
        3 => place().prop_map(|(start, count)| BringBack { start, count }),
        3 => place().prop_map(|(start, count)| Grow { start, count }),
    ]
}

fn op(end: u64) -> impl Strategy<Value = Op> {
    let which = any::<u32>;
    let takes = prop_oneof![
        4 => (1..150u16).prop_map(|count| Alloc { count }),
        3 => (1..150u16).prop_map(|count| AllocZeroed { count }),
        2 => (0..200u16).prop_map(|count| AllocBulk { count }),
        2 => Just(AllocBlock),
        1 => Just(AllocGiant),
        5 => asked(end).prop_map(|asked| AllocRun { asked }),
        1 => (1..600u16).prop_map(|count| TreeAlloc { count }),
        2 => asked(end).prop_map(|asked| TreeAllocRun { asked }),
    ];
    let gives = prop_oneof![
        4 => some_frames().prop_map(|(which, count, stride)| Free { which, count, stride }),
        3 => some_frames().prop_map(|(which, count, stride)| FreeZeroed { which, count, stride }),
        // All that there is, if that is not much, or nothing.
        3 => (prop_oneof![Just(0), Just(5000)], which(), 1..90u16, 1..250u16).prop_map(
            |(before, which, count, stride)| Replace { before, which, count, stride }
        ),
        2 => some_frames().prop_map(|(which, count, stride)| FreeBulk { which, count, stride }),
        2 => which().prop_map(|which| FreeBlock { which }),
        1 => which().prop_map(|which| FreeGiant { which }),
        5 => (which(), 1..900u32).prop_map(|(which, count)| FreeRun { which, count }),
        2 => (which(), 1..900u32).prop_map(|(which, count)| TreeFreeRun { which, count }),
    ];
    let others = prop_oneof![
        2 => Just(Drain),
        1 => (0..CPUS).prop_map(|other| DrainOffline { other }),
        2 => (0..70u8, 0..64u8).prop_map(|(take, run)| Refill { take, run }),
        3 => wild(end),
    ];
    let reshapes = reshape(end).prop_map(|how| Op::Reshape { how });
    prop_oneof![5 => takes, 5 => gives, 2 => others, 4 => reshapes]
}

fn step(end: u64) -> impl Strategy<Value = Step> {
    let cpu = prop_oneof![4 => Just(0), 2 => 1..CPUS, 1 => Just(CPUS)];
    let inside = prop_oneof![3 => 0..200u16, 1 => 0..2000u16];
    (cpu, prop::option::weighted(0.3, inside), op(end)).prop_map(|(cpu, inside, op)| Step {
        cpu,
        inside,
        op,
    })
}

/// (Gap before, frames) for each region, so that they never touch, and steps on them.
fn case(parts: impl Strategy<Value = Vec<(u64, u64)>>, most: usize) -> impl Strategy<Value = Case> {
    let regions = parts.prop_map(|parts| {
        let mut end = 0;
        let place = |(gap, length)| {
            end += gap + length;
            (end - length, length)
        };
        parts.into_iter().map(place).collect::<Vec<_>>()
    });
    regions.prop_flat_map(move |regions| {
        let end = regions.iter().map(|(start, count)| start + count).max().unwrap_or(1);
        let machine = prop_oneof![Just(Deaf), Just(Waits)];
        (machine, Just(regions), prop::collection::vec(step(end), 1..most))
    })
}

#[test]
fn sequences_on_small_maps() {
    let length = prop_oneof![2 => 1..130u64, 3 => 400..1600u64,
        2 => (1..6u64).prop_map(|blocks| blocks * BLOCK)];
    let gap = prop_oneof![3 => 1..200u64, 1 => (1..3u64).prop_map(|blocks| blocks * BLOCK)];
    try_all(96, case(prop::collection::vec((gap, length), 1..4), 80));
}

#[test]
fn sequences_on_maps_of_gibs() {
    let length = (GIANT - 600)..(2 * GIANT + 3000);
    let gap = prop_oneof![1..2000u64, Just(GIANT - 1), Just(63 * GIANT + 5)];
    try_all(24, case(prop::collection::vec((gap, length), 1..3), 30));
}
