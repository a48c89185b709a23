//! Homes: CPUs take their frames from different GiBs as long as there are as many, also when they
//! have begun in the same one.
#![cfg(not(loom))]

mod support;

use std::collections::BTreeSet;

use frametree::{Frame, FramePool, NumberRange};
use support::{BLOCK, Crew, GIANT, Threads, pool};

/// The GiBs of what a CPU gets when it asks for so many frames.
fn gibs_of(pool: &FramePool<Threads>, cpu: usize, count: u64) -> BTreeSet<u64> {
    Threads::become_cpu(cpu);
    let frames: Vec<Frame> = (0..count).map(|_| pool.alloc().expect("a frame")).collect();
    let gibs = frames.iter().map(|frame| frame.number().get() / GIANT).collect();
    frames.into_iter().for_each(|frame| pool.free(frame).expect("a free"));
    gibs
}

#[test]
fn each_cpu_takes_from_a_gib_of_its_own() {
    let pool = pool(Threads, 4, &[(0, 4 * GIANT)]);
    for _ in 0..3 {
        for cpu in 0..4 {
            assert_eq!(gibs_of(pool, cpu, 3 * BLOCK), BTreeSet::from([cpu as u64]));
        }
    }
}

#[test]
fn who_had_to_join_another_cpu_leaves_when_there_is_elsewhere() {
    let pool = pool(Threads, 2, &[(0, GIANT)]);
    assert_eq!(gibs_of(pool, 0, 64), BTreeSet::from([0]));
    assert_eq!(gibs_of(pool, 1, 64), BTreeSet::from([0]), "there is no other");
    let new = NumberRange::from_numbers(GIANT, 2 * GIANT);
    let storage = vec![0; pool.bytes_to_grow(new) / 8 + 16].leak();
    // SAFETY: the memory is not real, nobody uses it.
    unsafe { pool.grow_in(new, storage) }.expect("more memory");
    assert_eq!(gibs_of(pool, 1, 2 * BLOCK), BTreeSet::from([0, 1]), "it uses up its block");
    assert_eq!(gibs_of(pool, 1, 2 * BLOCK), BTreeSet::from([1]), "and has moved");
    assert_eq!(gibs_of(pool, 0, 2 * BLOCK), BTreeSet::from([0]), "whose GiB it is stays");
}

#[test]
fn who_begins_at_the_same_moment_does_not_stay_together() {
    const CPUS: usize = 8;
    for _ in 0..20 {
        let pool = pool(Threads, CPUS, &[(0, CPUS as u64 * GIANT)]);
        let gibs = Crew::new(CPUS).run(|cpu| gibs_of(pool, cpu, 3 * BLOCK));
        let all: BTreeSet<_> = gibs.iter().flatten().collect();
        assert_eq!(all.len(), CPUS, "each has a GiB that no other uses: {gibs:?}");
        assert!(gibs.iter().all(|gibs| gibs.len() == 1), "and needs no other: {gibs:?}");
    }
}
