//! The bounds on runs, of blocks and of giants: a search that narrows one against a free that raises
//! it, and two frees that make one run. `World::check` verifies at rest that no run is longer than
//! is said, and here the run is asked for as well.

use super::{World, explore, spawn};
use crate::bounds::ANY;
use crate::node::give;
use crate::request::Request;
use crate::tree::Wanted;
use crate::tree::looks::{bound, is_row_wide, longest_from, narrow, narrow_to_nothing};

impl World {
    /// A run, if one is found. Not used by anybody.
    fn run(&self, cpu: usize, count: u64) -> Option<(u64, u64)> {
        let writer = self.tree.sole_writer(cpu);
        let run = self.tree.alloc_run_with(writer, &Request::new(count), Wanted::Any).ok()?;
        let numbers = run.into_numbers();
        Some((numbers.start().get(), numbers.end().get()))
    }
}

/// CPU 0 frees the frame that makes a run whole, while CPU 1 looks for that run.
fn the_run_is_found(world: (u64, u64), held: u64, bound: Option<usize>) {
    explore(bound, move || {
        let (start, end) = world;
        let world = World::new(&[world]);
        let all = world.run(0, end - start).expect("all is free");
        assert_eq!(all, (start, end));
        for frame in (start..end).filter(|frame| *frame != held) {
            world.give(0, frame);
        }
        let other = spawn(&world, move |world| world.run(1, end - start));
        world.give(0, held);
        // Whatever the other has said of the block, the run is there now, or the other has it.
        let run = other.join().unwrap().or_else(|| world.run(0, end - start));
        assert_eq!(run, Some((start, end)));
        (start..end).for_each(|frame| world.give(0, frame));
        world.check(end - start);
    });
}

/// Two CPUs free a frame each, which join what is free in between, after bounds were narrowed.
fn both_are_seen(world: (u64, u64), held: [u64; 2], bound: Option<usize>) {
    explore(bound, move || {
        let (start, end) = world;
        let world = World::new(&[world]);
        let all = world.run(0, end - start).expect("all is free");
        assert_eq!(all, (start, end));
        for frame in (start..end).filter(|frame| !held.contains(frame)) {
            world.give(0, frame);
        }
        assert_eq!(world.run(0, end - start), None);
        let other = spawn(&world, move |world| world.give(1, held[1]));
        world.give(0, held[0]);
        other.join().unwrap();
        assert_eq!(world.run(0, end - start), Some((start, end)));
        (start..end).for_each(|frame| world.give(0, frame));
        world.check(end - start);
    });
}

#[test]
fn within_a_block() {
    the_run_is_found((0, 3), 1, Some(3));
}

#[test]
fn from_one_block_into_the_next() {
    the_run_is_found((2, 6), 4, Some(2));
}

#[test]
fn from_a_block_into_the_next_row() {
    the_run_is_found((6, 9), 8, Some(2));
}

#[test]
fn in_a_block_that_is_merged() {
    the_run_is_found((0, 4), 2, Some(2));
}

#[test]
fn from_a_giant_into_the_next() {
    the_run_is_found((14, 18), 16, Some(2));
}

#[test]
fn at_the_end_of_a_giant() {
    the_run_is_found((14, 18), 15, Some(2));
}

#[test]
fn two_frees_within_a_block() {
    both_are_seen((0, 4), [1, 2], Some(2));
}

#[test]
fn two_frees_in_two_blocks() {
    both_are_seen((2, 6), [3, 4], Some(2));
}

#[test]
fn two_frees_in_two_rows() {
    both_are_seen((6, 10), [7, 8], Some(2));
}

#[test]
fn two_frees_in_two_giants() {
    both_are_seen((14, 18), [15, 16], Some(2));
}

/// Of several blocks in which nothing is free it is said at once, while a frame comes into one.
#[test]
fn a_frame_comes_into_a_block_of_which_it_is_said_that_it_is_empty() {
    explore(None, || {
        let world = World::new(&[(0, 2), (4, 6)]);
        world.hold(0, 2);
        world.hold(4, 6);
        let other = spawn(&world, |world| {
            let blocks = [0, 4].map(|frame| world.block(frame));
            let row = blocks[0].giant.nodes().longest.of(0).look();
            narrow_to_nothing(world.tree.sole_writer(1), row, blocks.into_iter());
        });
        world.give(0, 4);
        other.join().unwrap();
        world.tree.verify().expect("what is said is so");
    });
}

/// A word of two frames is full after every free to one that was not empty. In larger ones, where
/// the shortest way of a free looks at the whole row, it is not: here is its look by itself.
#[test]
fn a_free_that_looks_at_the_row_alone() {
    explore(None, || {
        let world = World::new(&[(0, 3)]);
        world.hold(0, 1);
        let other = spawn(&world, |world| narrow(world.tree.sole_writer(1), world.block(0), 3));
        let block = world.block(0);
        give(block.leaf().word(0), 1);
        let is_done = is_row_wide(block);
        other.join().unwrap();
        assert!(!is_done || bound(block) >= longest_from(block, 0).min(ANY), "it is said now");
    });
}
