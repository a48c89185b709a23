//! A number that follows from the parts of the metadata that only growing and shrinking change: the
//! links, what each part is of, which blocks are managed in full, and the ranges. For a hardened
//! pool, which notices by it that somebody has written over them. A link that leads nowhere is
//! followed all the same: that is a fault, and no answer.
//!
//! Which blocks are managed in full is left out where something was ever isolated: there it also
//! changes when the last guest of an isolation leaves, in the middle of an allocation. `verify`
//! compares it with what is managed, isolated and gone.

use super::FrameTree;
use crate::geometry::SECTION_BLOCKS;
use crate::root::{Cluster, Giant};
use crate::sync::Ordering;

/// What was added up so far; the order matters.
struct Sum(u64);

impl Sum {
    fn add(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number);
    }

    fn add_part<T>(&mut self, part: Option<&T>) {
        self.add(part.map_or(0, |part| core::ptr::from_ref(part).addr() as u64));
    }
}

impl<'m> FrameTree<'m> {
    /// The number: the same as long as no memory comes or goes. Costs three lines for each GiB.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut sum = Sum(0);
        sum.add(self.low_end);
        for cluster in self.directory.clusters() {
            sum.add_part(Some(cluster));
            sum.add(cluster.first_giant());
            cluster.giants().for_each(|giant| add_giant(&mut sum, cluster, giant));
        }
        for range in self.directory.ranges.all() {
            sum.add(range.start().get());
            sum.add(range.end().get());
        }
        sum.0
    }
}

/// A number of which each bit depends on each bit of another (the finaliser of SplitMix64).
pub(crate) const fn mix(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

fn add_giant<'m>(sum: &mut Sum, cluster: &Cluster<'m>, giant: &'m Giant<'m>) {
    sum.add_part(Some(giant));
    sum.add_part(cluster.giant(giant.number()).load());
    sum.add_part(Some(giant.cluster));
    sum.add(giant.mask);
    sum.add(giant.number());
    sum.add_part(Some(giant.nodes()));
    for (index, full) in giant.full.words().enumerate() {
        sum.add_part(giant.section(index * SECTION_BLOCKS).load());
        let gone = giant.gone(index * SECTION_BLOCKS).load();
        sum.add_part(gone);
        if gone.is_none() {
            // ORDERING: compared at rest.
            sum.add(full.load(Ordering::Relaxed));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use std::boxed::Box;

    use super::mix;
    use crate::counts::pool;
    use crate::frame::NumberRange;
    use crate::geometry::{BLOCK_FRAMES, GIANT_FRAMES, SECTION_BLOCKS};
    use crate::root::Gone;
    use crate::sync::Ordering;

    #[test]
    fn numbers_are_mixed_as_splitmix64_does_it() {
        // The first numbers of that generator from 0 on.
        let step = 0x9e37_79b9_7f4a_7c15_u64;
        let first = [1, 2, 3].map(|times| mix(step.wrapping_mul(times)));
        let known = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        assert_eq!(first, known);
    }

    #[test]
    fn whatever_does_not_change_by_itself_is_in_the_fingerprint() {
        let pool = pool(2 * GIANT_FRAMES + 100);
        let tree = pool.tree().expect("a tree");
        let before = tree.fingerprint();
        let same = || assert_eq!(tree.fingerprint(), before);
        let other = || assert_ne!(tree.fingerprint(), before);
        // What goes and comes back is not.
        let block = tree.alloc_block().expect("a block");
        let frame = tree.alloc().expect("a frame");
        same();
        tree.free(frame).expect("a free");
        tree.free_block(block).expect("a free");
        same();
        // A bit that says what is managed in full; a link that leads elsewhere.
        let mut giants = tree.directory.giants();
        let (giant, next) = (giants.next().expect("one"), giants.next().expect("two"));
        let (word, mask) = giant.full.at(77);
        word.fetch_and(!mask, Ordering::Relaxed);
        other();
        word.fetch_or(mask, Ordering::Relaxed);
        same();
        for index in [0, 7 * SECTION_BLOCKS] {
            let right = giant.section(index).load().expect("a section");
            giant.section(index).publish(next.section(index).load().expect("a section"));
            other();
            giant.section(index).publish(right);
            same();
        }
        // Where frames are gone, by a link, what is managed in full changes by itself.
        let far = 7 * SECTION_BLOCKS;
        giant.gone(far).settle(Box::leak(Box::new(Gone::new())));
        other();
        let with_gone = tree.fingerprint();
        let (word, mask) = giant.full.at(far);
        word.fetch_and(!mask, Ordering::Relaxed);
        assert_eq!(tree.fingerprint(), with_gone);
        word.fetch_or(mask, Ordering::Relaxed);
        giant.gone(far).copy(None);
        same();
        let link = giant.cluster.giant(giant.number());
        link.publish(next);
        other();
        link.publish(giant);
        same();
        // A range that came unasked.
        let record = tree.directory.ranges.take_record().expect("a spare one");
        let far = NumberRange::from_numbers(1 << 30, (1 << 30) + BLOCK_FRAMES);
        tree.directory.ranges.claim(far, record).expect("nobody has it");
        other();
    }
}
