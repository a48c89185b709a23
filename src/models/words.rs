//! Refill against refill, refill against flush, flush against flush on one word; and a part that is
//! published while another CPU looks for it.

extern crate std;

use std::boxed::Box;

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use super::{World, explore, spawn, start};
use crate::geometry::FULL;
use crate::journal::{Journal, Writer, standstill};
use crate::node::{Node, give, take_all, take_any, take_bit, take_lowest, take_some};
use crate::sync::{Link, Ordering, Word};

#[test]
fn two_refills_share_nothing_and_miss_nothing() {
    explore(None, || {
        // One word of one partly managed block.
        let world = World::new(&[(0, 3)]);
        let other = spawn(&world, |world| world.refill(1));
        let own = world.refill(0);
        let other = other.join().unwrap();
        let taken = |cache: &Result<crate::cache::Handful, _>| {
            cache.as_ref().map_or(0, |cache| u64::from(cache.free().count_ones()))
        };
        assert_eq!(taken(&own) + taken(&other), 3, "two words, two refills");
        for (cpu, cache) in [own, other].into_iter().enumerate() {
            world.flush(cpu, cache.expect("a word for each"));
        }
        world.check(3);
    });
}

#[test]
fn a_refill_against_a_flush_of_the_same_word() {
    explore(None, || {
        let world = World::new(&[(0, 2)]);
        let held = world.refill(0).expect("a word");
        let other = spawn(&world, |world| world.refill(1).ok());
        world.flush(0, held);
        // Nothing, if it looked before the flush.
        if let Some(cache) = other.join().unwrap() {
            world.flush(1, cache);
        }
        world.check(2);
    });
}

/// The tree makes fences of its own around these, which would hide an ordering that is too weak.
#[test]
fn contents_go_with_the_bits_of_a_word() {
    let takes: [fn(&Word) -> bool; 4] = [
        |word| take_all(word).is_some(),
        |word| take_bit(word, 1).is_ok(),
        |word| take_lowest(word).is_some(),
        |word| take_some(word, 1).is_some(),
    ];
    for take in takes {
        explore(None, move || {
            let shared = Arc::new((Word::new(0), UnsafeCell::new(0)));
            let other = start({
                let shared = shared.clone();
                move || {
                    // SAFETY: the frame is this thread's; loom says so if it is not.
                    shared.1.with_mut(|contents| unsafe { *contents = 1 });
                    give(&shared.0, 1);
                }
            });
            if take(&shared.0) {
                // SAFETY: taken.
                assert_eq!(shared.1.with(|contents| unsafe { *contents }), 1);
            }
            other.join().unwrap();
        });
    }
}

/// As above.
#[test]
fn who_finds_a_word_empty_sees_the_step_that_emptied_it() {
    let takes: [fn(&Word) -> bool; 5] = [
        |word| take_all(word).is_some(),
        |word| take_bit(word, 1).is_ok(),
        |word| take_lowest(word).is_some(),
        |word| take_some(word, 1).is_some(),
        |word| take_any(word, 1) != 0,
    ];
    for take in takes {
        explore(None, move || {
            let shared = Arc::new((Word::new(FULL), [Journal::new(), Journal::new()]));
            let other = start({
                let shared = shared.clone();
                move || {
                    let (word, journals) = &*shared;
                    let reader = Writer::sole(&journals[1]);
                    take(word) || standstill(journals, reader).is_none()
                }
            });
            let (word, journals) = &*shared;
            Writer::sole(&journals[0]).begin().suspend();
            take_all(word);
            assert!(other.join().unwrap(), "nothing there, and nothing under way");
        });
    }
}

#[test]
fn two_flushes_complete_one_word_and_its_block() {
    explore(None, || {
        let world = World::new(&[(0, 4)]);
        let [one, two] = [(); 2].map(|()| world.alloc(0).expect("a frame"));
        let other = spawn(&world, |world| world.free(1, two));
        world.free(0, one);
        other.join().unwrap();
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(4);
    });
}

#[test]
fn two_frees_past_the_caches_complete_one_word_and_its_block() {
    explore(None, || {
        let world = World::new(&[(0, 4)]);
        let [one, two] = [(); 2].map(|()| world.alloc(0).expect("a frame"));
        let other = spawn(&world, |world| world.free_past(1, two));
        world.free_past(0, one);
        other.join().unwrap();
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(4);
    });
}

#[test]
fn a_free_past_the_caches_announces_what_a_search_retires() {
    explore(None, || {
        let world = World::new(&[(0, 4)]);
        let held = [(); 4].map(|()| world.alloc(0).expect("a frame"));
        let other = spawn(&world, |world| world.refill(1).ok());
        let [first, rest @ ..] = held;
        world.free_past(0, first);
        let other = other.join().unwrap();
        world.tree.verify().expect("a hint of what is free");
        if let Some(cache) = other {
            world.flush(1, cache);
        }
        rest.into_iter().for_each(|frame| world.free(0, frame));
        world.check(4);
    });
}

#[test]
fn two_flushes_complete_two_words_of_a_block() {
    explore(None, || {
        let world = World::new(&[(0, 4)]);
        let [one, two] = [(); 2].map(|()| world.refill(0).expect("a word"));
        let other = spawn(&world, |world| world.flush(1, two));
        world.flush(0, one);
        other.join().unwrap();
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(4);
    });
}

/// Neither announces anything, and nothing was ever said of bounds: the fence between a free and its
/// look at the bounds is all that shows one of them the other's word.
#[test]
fn two_frees_complete_two_words_of_a_block() {
    explore(None, || {
        let world = World::new(&[(0, 4)]);
        let [one, two, three, four] = [(); 4].map(|()| world.alloc(0).expect("a frame"));
        [one, three].into_iter().for_each(|frame| world.free(0, frame));
        let other = spawn(&world, |world| world.free(1, four));
        world.free(0, two);
        other.join().unwrap();
        assert_eq!(world.tree.count_free().blocks, 1, "merged");
        world.check(4);
    });
}

#[test]
fn contents_pass_from_one_owner_to_two() {
    explore(Some(1), || {
        let world = World::new(&[(0, 2)]);
        let held = world.refill(0).expect("a word");
        let other = spawn(&world, |world| world.alloc(1).ok());
        let third = spawn(&world, |world| world.alloc(2).ok());
        world.flush(0, held);
        for frame in [other.join().unwrap(), third.join().unwrap()].into_iter().flatten() {
            world.free(0, frame);
        }
        world.check(2);
    });
}

#[test]
fn what_a_link_leads_to_is_whole() {
    explore(None, || {
        let link: Arc<Link<'static, Node>> = Arc::new(Link::empty());
        let other = link.clone();
        let writer = start(move || {
            let node: &'static Node = Box::leak(Box::new(Node::new(0)));
            node.fill(FULL);
            other.publish(node);
        });
        if let Some(node) = link.load() {
            assert!(node.all(FULL, Ordering::Relaxed), "published before it was written");
        }
        writer.join().unwrap();
    });
}
