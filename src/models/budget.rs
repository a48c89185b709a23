//! The budget: ordinary requests leave the reserve alone, whoever is granted a frame finds it, and
//! at rest the account is right.

extern crate std;

use std::sync::atomic::{AtomicU64, Ordering};

use loom::sync::Arc;

use super::{World, explore, start};
use crate::budget::{Budget, Crossing, Level, Marks, Rules};
use crate::cache::Handful;
use crate::journal::Counter;

/// A tree, and a budget of its frames.
struct Shop {
    world: Arc<World>,
    budget: Budget<'static>,
}

impl Shop {
    /// So many frames from 0 on, less a reserve.
    fn new(frames: u64, reserve: u64) -> Arc<Self> {
        Self::by(frames, Rules { reserve, marks: None })
    }

    /// The same without a reserve, but with marks.
    fn with_marks(frames: u64, marks: Marks) -> Arc<Self> {
        Self::by(frames, Rules { reserve: 0, marks: Some(marks) })
    }

    fn by(frames: u64, rules: Rules) -> Arc<Self> {
        let world = World::new(&[(0, frames)]);
        let budget = Budget::new(rules, frames, 3, world.tree.shared_journal());
        Arc::new(Self { world, budget })
    }

    /// A refill by CPU `cpu`, if the budget allows any.
    fn refill(&self, cpu: usize) -> Option<Handful> {
        let writer = self.world.tree.sole_writer(cpu);
        let allowed = self.budget.allow(writer, (1, 2), || ());
        let cache = match allowed {
            0 => return None,
            _ => self.world.tree.alloc_some_with(writer, allowed as u32),
        };
        let cache = cache.expect("whoever is granted a frame finds it");
        self.world.touch(cache.base(), cache.free());
        Some(cache)
    }

    fn flush(&self, cpu: usize, cache: Handful) {
        self.world.flush(cpu, cache);
        self.budget.close(self.world.tree.sole_writer(cpu), || ());
    }

    /// What interrupts do that ask for nothing: they take, and look at the marks.
    fn take_unasked(&self) {
        self.world.tree.shared_writer().add(Counter::Taken, 1);
        self.budget.watch(|| ());
    }

    /// At rest.
    fn check(&self, frames: u64) {
        let credits = (0..3).map(|cpu| self.world.tree.sole_writer(cpu).credit()).sum();
        assert_eq!(self.budget.off_by(self.world.tree.free_frames(), credits), 0, "the account");
        self.world.check(frames);
    }
}

fn spawn<R: 'static>(
    shop: &Arc<Shop>,
    work: impl FnOnce(&Shop) -> R + 'static,
) -> loom::thread::JoinHandle<R> {
    let shop = shop.clone();
    start(move || work(&shop))
}

fn count(caches: &[&Option<Handful>]) -> u32 {
    caches.iter().filter_map(|cache| cache.as_ref()).map(|cache| cache.free().count_ones()).sum()
}

#[test]
fn two_who_ask_at_once_leave_the_reserve() {
    explore(Some(3), || {
        let shop = Shop::new(4, 1);
        let other = spawn(&shop, |shop| shop.refill(1));
        let mine = shop.refill(0);
        let theirs = other.join().unwrap();
        let taken = count(&[&mine, &theirs]);
        assert!((1..=3).contains(&taken), "{taken} of 3 frames");
        for (cpu, cache) in [mine, theirs].into_iter().enumerate() {
            shop.flush(cpu, cache.unwrap_or(Handful::EMPTY));
        }
        shop.check(4);
    });
}

#[test]
fn what_one_gives_back_another_is_granted_and_finds() {
    explore(Some(3), || {
        let shop = Shop::new(3, 1);
        let mine = shop.refill(0).expect("all that is not reserved");
        // The reserve is not what the other is to find.
        let reserve = shop.world.tree.alloc().expect("the reserve");
        // All hints are taken back, so that nothing but the grant tells of the frame.
        shop.world.tree.alloc().expect_err("nothing is left");
        let other = spawn(&shop, |shop| shop.refill(1));
        let freed = mine.free().count_ones();
        shop.flush(0, mine);
        let theirs = other.join().unwrap();
        assert!(count(&[&theirs]) < freed, "one frame was owed to the reserve");
        shop.flush(1, theirs.unwrap_or(Handful::EMPTY));
        shop.world.tree.free(reserve).expect("own frame");
        shop.check(3);
    });
}

#[test]
fn a_crossing_is_told_once() {
    /// Not loom's: counted, and looked at when all threads are joined.
    static TOLD: AtomicU64 = AtomicU64::new(0);
    fn tell(crossing: Crossing) {
        assert_eq!(crossing.level, Level::Low);
        TOLD.fetch_add(1, Ordering::SeqCst);
    }
    explore(None, || {
        TOLD.store(0, Ordering::SeqCst);
        let shop = Shop::with_marks(4, Marks { low: 4, high: 5, tell });
        let take_one = |shop: &Shop| {
            shop.take_unasked();
            shop.budget.tell();
        };
        let other = spawn(&shop, take_one);
        take_one(&shop);
        other.join().unwrap();
        assert_eq!(TOLD.load(Ordering::SeqCst), 1);
        assert!(!shop.budget.has_untold());
    });
}

/// One takes and one is granted: neither crosses the mark alone.
#[test]
fn a_mark_that_two_cross_together_is_crossed() {
    explore(None, || {
        let shop = Shop::with_marks(5, Marks { low: 4, high: 5, tell: |_| () });
        let other = spawn(&shop, Shop::take_unasked);
        let own = shop.world.tree.sole_writer(0);
        assert_eq!(shop.budget.allow(own, (1, 1), || ()), 1);
        other.join().unwrap();
        assert_eq!(shop.budget.level(), Level::Low);
    });
}

/// One is left to ordinary requests throughout: by the word, by the shared journal, or by both. (The
/// other thread looks at neither before it has changed it: loom would not go on with it in the
/// middle of this one's look.)
#[test]
fn what_is_left_is_never_out_of_sight() {
    explore(None, || {
        let shop = Shop::new(1, 1);
        shop.world.tree.shared_writer().add(Counter::Returned, 1);
        let other = spawn(&shop, |shop| {
            let own = shop.world.tree.sole_writer(1);
            let interrupt = shop.world.tree.shared_writer();
            interrupt.add(Counter::Returned, 1);
            interrupt.add(Counter::Taken, 1);
            interrupt.add(Counter::Returned, 1);
            assert_eq!(shop.budget.allow(own, (1, 1), || ()), 1);
        });
        assert_eq!(shop.budget.allow_shared(1, 1), 1, "refused, and one was left throughout");
        other.join().unwrap();
        assert_eq!(shop.budget.allow_shared(1, 2), 1);
    });
}
