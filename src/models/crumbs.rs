//! Refills from crumbs, straight through: against frees that announce the block which is just being
//! retired, against others that take from it, against a split whose leaf is being written. What a
//! slot does with its turn and its sides has no other CPU in it, and is left out.

use super::{World, explore, spawn};
use crate::cache::Handful;
use crate::tree::HomeCell;

impl World {
    /// A refill as a slot makes it first, used at once.
    fn crumb(&self, cpu: usize, home: &HomeCell<'static>) -> Option<Handful> {
        let writer = self.tree.sole_writer(cpu);
        let crumb = self.tree.take_crumb(home)?;
        let (place, frames) = (crumb.place(), crumb.frames());
        let cache = if self.tree.is_plain(crumb) {
            crumb.settle(writer);
            Handful::owned(place.group.first_frame(), frames, 0)
        } else {
            let mut at = home.get();
            let refill = self.tree.finish_crumb(writer, &mut at, (place, frames));
            home.put(at);
            refill?.cache
        };
        self.touch(cache.base(), cache.free());
        Some(cache)
    }

    /// A refill the general way, used at once.
    fn near(&self, cpu: usize, home: &HomeCell<'static>) -> Option<Handful> {
        let mut at = home.get();
        let refill = self.tree.refill_near(self.tree.sole_writer(cpu), &mut at);
        home.put(at);
        let cache = refill.ok()?.cache;
        self.touch(cache.base(), cache.free());
        Some(cache)
    }

    /// Takes both words of the lowest block, where the home is afterwards.
    fn use_up(&self, cpu: usize) -> (HomeCell<'static>, [Handful; 2]) {
        let home = HomeCell::new();
        let first = self.near(cpu, &home).expect("a split");
        let second = self.crumb(cpu, &home).expect("the other word");
        (home, [first, second])
    }
}

#[test]
fn a_block_is_retired_while_others_free_there() {
    explore(None, || {
        let world = World::new(&[(0, 4)]);
        let (home, [first, second]) = world.use_up(0);
        world.flush(0, first);
        let other = spawn(&world, |world| world.flush(1, second));
        // None, if they have completed the block.
        let own = world.crumb(0, &home);
        other.join().unwrap();
        // Before the next announcement there.
        world.tree.verify().expect("a hint of what is left");
        if let Some(own) = own {
            world.flush(0, own);
        }
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(4);
    });
}

#[test]
fn two_cpus_take_the_same_crumbs() {
    explore(None, || {
        let world = World::new(&[(0, 4)]);
        let (home, [first, second]) = world.use_up(0);
        world.flush(0, first);
        let other = spawn(&world, |world| world.refill(1).ok());
        let own = world.crumb(0, &home);
        let caches = [own, other.join().unwrap()];
        assert_eq!(caches.iter().flatten().count(), 1, "one of the two gets the word");
        for cache in caches.into_iter().flatten().chain([second]) {
            world.flush(0, cache);
        }
        world.check(4);
    });
}

#[test]
fn crumbs_of_a_block_that_another_cpu_splits() {
    explore(None, || {
        let world = World::new(&[(0, 8)]);
        let (home, used) = world.use_up(0);
        // Who only looks is spawned: the other way round loom makes one execution, in which it
        // looks first.
        let other = spawn(&world, move |world| world.crumb(0, &home));
        let own = world.refill(1).ok();
        let other = other.join().unwrap();
        for cache in used.into_iter().chain(own).chain(other) {
            world.flush(0, cache);
        }
        world.check(8);
    });
}

#[test]
fn crumbs_are_picked_while_others_free() {
    explore(Some(3), || {
        let world = World::new(&[(0, 4), (16, 20)]);
        let (home, [first, second]) = world.use_up(0);
        let mut at = home.get();
        at.leave();
        home.put(at);
        let third = world.near(0, &home).expect("of the other giant");
        let fourth = world.crumb(0, &home).expect("the other word");
        let mut at = home.get();
        at.leave();
        home.put(at);
        let other = spawn(&world, |world| world.flush(1, first));
        let own = world.near(0, &home);
        other.join().unwrap();
        for cache in own.into_iter().chain([second, third, fourth]) {
            world.flush(0, cache);
        }
        world.check(8);
    });
}
