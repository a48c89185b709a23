//! Blocks taken and given at once, by CPUs that keep the word which they took one from last: against
//! each other, against a search that lowers the hint, against a merge. What a slot does with its
//! turn and its cache has no other CPU in it, and is left out.

use super::{World, explore, spawn};
use crate::frame::{Frame, FrameNumber};
use crate::geometry::BLOCK_FRAMES;
use crate::journal::Counter;
use crate::tree::{BlockHome, finish, give_at_once};

impl World {
    /// A whole block from the home's word, used at once.
    fn block_at_once(&self, cpu: usize, home: &BlockHome<'static>) -> Option<Frame> {
        let writer = self.tree.sole_writer(cpu);
        let block = home.claim()?;
        if !self.tree.is_presentable(block) {
            self.tree.present(writer, block)?;
        }
        writer.add(Counter::Taken, BLOCK_FRAMES);
        self.touch(block.first_frame(), (1 << BLOCK_FRAMES) - 1);
        Some(Frame::owned(block.first_frame()))
    }

    /// Frees a whole block that was used until now.
    fn back_at_once(&self, cpu: usize, first: Frame) {
        self.touch(first.number(), (1 << BLOCK_FRAMES) - 1);
        assert!(self.try_back(cpu, first.into_number()), "an own block");
    }

    /// Frees a whole block that may be free already: whether it was not.
    fn try_back(&self, cpu: usize, first: FrameNumber) -> bool {
        let Some(block) = self.tree.block_to_free(first) else { return false };
        let writer = self.tree.sole_writer(cpu);
        let step = writer.begin();
        match give_at_once(block) {
            Ok(()) => {
                writer.add(Counter::Returned, BLOCK_FRAMES);
                true
            }
            Err(given) => finish(&step, block, given),
        }
    }

    /// Takes a block, and keeps its word.
    fn settle(&self, cpu: usize) -> (Frame, BlockHome<'static>) {
        let home = BlockHome::new();
        let block = self.tree.take_block(self.tree.sole_writer(cpu)).expect("a block");
        home.put(block);
        (Frame::owned(block.first_frame()), home)
    }
}

#[test]
fn two_cpus_in_one_word() {
    explore(Some(3), || {
        // A word of blocks: one is out, one never was.
        let world = World::new(&[(0, 8)]);
        let (block, home) = world.settle(0);
        let other = spawn(&world, |world| world.alloc_block(1).ok());
        world.back_at_once(0, block);
        let own = world.block_at_once(0, &home).expect("two, and the other takes one");
        let other = other.join().unwrap().expect("one that was never used");
        world.back_at_once(0, own);
        // Its first parts, one by one: the leaf has to be there.
        let first = other.into_number().get();
        (first..first + BLOCK_FRAMES).for_each(|frame| world.give(1, frame));
        world.check(8);
    });
}

#[test]
fn a_block_given_while_the_giants_whole_hint_is_lowered() {
    explore(None, || {
        let world = World::new(&[(0, 4)]);
        let (block, _) = world.settle(0);
        let other = spawn(&world, |world| world.alloc_block(1).ok());
        world.back_at_once(0, block);
        if let Some(first) = other.join().unwrap() {
            world.back_at_once(1, first);
        }
        world.check(4);
    });
}

#[test]
fn of_two_frees_of_one_block_one_is_refused() {
    explore(None, || {
        let world = World::new(&[(0, 8)]);
        let (first, home) = world.settle(0);
        let held = world.block_at_once(0, &home).expect("the other of the word");
        let first = first.into_number();
        let other = spawn(&world, move |world| world.try_back(1, first));
        let own = world.try_back(0, first);
        assert_ne!(own, other.join().unwrap(), "one of the two");
        world.back_at_once(0, held);
        world.check(8);
    });
}

#[test]
fn two_blocks_that_complete_a_giant() {
    explore(Some(3), || {
        let world = World::new(&[(0, 16)]);
        let (first, home) = world.settle(0);
        let second = world.block_at_once(0, &home).expect("the next");
        let other = spawn(&world, |world| world.back_at_once(1, second));
        world.back_at_once(0, first);
        other.join().unwrap();
        assert_eq!(world.tree.count_free().giants, 1, "merged");
        world.check(16);
    });
}

#[test]
fn a_block_taken_at_once_from_a_giant_that_is_merged_and_split() {
    explore(Some(2), || {
        let world = World::new(&[(0, 16)]);
        let (first, home) = world.settle(0);
        let other = spawn(&world, |world| {
            let block = world.alloc_block(1).expect("three at least");
            world.back_at_once(1, block);
        });
        world.back_at_once(0, first);
        let own = world.block_at_once(0, &home);
        other.join().unwrap();
        if let Some(own) = own {
            world.back_at_once(0, own);
        }
        assert_eq!(world.tree.count_free().giants, 1, "merged");
        world.check(16);
    });
}
