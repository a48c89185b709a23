//! Crumbs: a refill from what is left of used blocks, straight through.
//!
//! After a while memory is packed in the order of addresses, and each frame that is freed at random
//! leaves one hole in a full word. Then a refill is for a single frame, so that the way to the next
//! hole is all that an allocation costs: the lowest block of the home's GiB that hints at frames
//! and is nobody's, its lowest word that has any, one read-modify-write.
//!
//! **A block that is used up** by that is retired at once, while its line is at hand, and needs no
//! mark: a CPU that takes one hole after the other changes no marks at all. One that still holds
//! some is claimed, and is where the next refills come from.
//!
//! What is not as simple goes the general way ([`super::home`]) before anything was taken: no home
//! or one that is another CPU's, low memory, a free block below the crumbs, a hint with nothing
//! under it. Or is finished out of line afterwards ([`FrameTree::finish_crumb`]): frames known to
//! be zero, blocks that are managed in part, isolated memory, marks that come or go.

use super::FrameTree;
use super::free::is_nothing_free;
use super::home::{Home, HomeCell, Stay};
use super::levels::{Hint, is_used_up, lower, retire, retire_used_up};
use super::search::{Join, Refill, Walk, count_refill};
use crate::directory::{Block, Place};
use crate::geometry::{GIANT_FRAMES, NODE_WORDS, WORD_BITS};
use crate::journal::{Counter, Writer};
use crate::node::{Node, take_all};
use crate::root::{Giant, Nodes};
use crate::sync::{Ordering, rmw_fence};

/// Frames that were just taken from a word of the home's giant, and are not counted yet.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct Crumb<'m> {
    block: Block<'m>,
    leaf: &'m Node,
    word: usize,
    frames: u64,
    /// Whether the block was the home's, and marked, before.
    stay: Stay,
}

impl<'m> Crumb<'m> {
    /// The frames, of which there is one at least.
    #[inline(always)]
    pub fn frames(self) -> u64 {
        self.frames
    }

    /// Where they lie.
    #[inline(always)]
    pub fn place(self) -> Place<'m> {
        let Self { block, leaf, word, .. } = self;
        Place { group: block.group(word), giant: block.giant, leaf: leaf.word(word) }
    }

    /// Whether they are the lowest of their giant.
    #[inline(always)]
    pub fn is_lowest(self) -> bool {
        self.stay == Stay::Passing
    }

    /// Whether the block has no more frames.
    #[inline(always)]
    fn is_last(self) -> bool {
        // ORDERING: a look; `retire_used_up` looks again, and a mark may be wrong.
        self.leaf.is_empty(Ordering::Relaxed)
    }

    /// Counts them, and retires the block if it is used up; to be called for a plain one.
    #[inline(always)]
    pub fn settle(self, writer: Writer<'_>) {
        writer.add(Counter::Refills, 1);
        let is_one = self.frames.is_power_of_two();
        writer.add(Counter::Taken, if is_one { 1 } else { self.frames.count_ones().into() });
        if self.stay == Stay::Passing && self.is_last() {
            retire_used_up(writer, self.block, self.leaf);
        }
    }
}

impl<'m> FrameTree<'m> {
    /// Takes what the lowest word holds that has any, of the home's block or else of the lowest
    /// block of the home's giant, if it is as simple as that.
    #[inline(always)]
    pub(crate) fn take_crumb(&self, home: &HomeCell<'m>) -> Option<Crumb<'m>> {
        let (giant, stay, index) = home.own()?;
        if giant.number() * GIANT_FRAMES < self.low_end {
            return None;
        }
        let index = match stay {
            Stay::Settled => index,
            Stay::Passing => lowest_crumbs(giant.nodes())?,
        };
        let leaf = giant.section(index).load()?.leaf(index);
        // ORDERING: a look; the exchange decides.
        let word = (0..NODE_WORDS).find(|at| leaf.word(*at).load(Ordering::Relaxed) != 0)?;
        let frames = take_all(leaf.word(word))?;
        Some(Crumb { block: Block { giant, index }, leaf, word, frames, stay })
    }

    /// The number of the group up to which nothing is free from the begin of a home's giant on, by
    /// the hints, that a refill would take: of the lowest block there that has anything, or else of
    /// the next giant.
    #[cold]
    #[inline(never)]
    pub(crate) fn packed_up_to(&self, home: &HomeCell<'m>) -> u64 {
        let Some((giant, Stay::Passing, _)) = home.own() else { return 0 };
        let Some(nodes) = giant.in_use() else { return 0 };
        match lowest_of_nobody(nodes) {
            Some((index, _)) => Block { giant, index }.group(0).number(),
            None => {
                let above = u64::MAX << 1 << giant.mask.trailing_zeros();
                let others = self.hints(giant.cluster, Join::Nobody) & above;
                let next = giant.cluster.first_giant() + u64::from(others.trailing_zeros());
                next * GIANT_FRAMES / WORD_BITS
            }
        }
    }

    /// Whether a giant below a home's, in its cluster, has anything that a refill would take, by
    /// the hints.
    pub(crate) fn is_anything_below(&self, home: &HomeCell<'m>) -> bool {
        let Some((giant, Stay::Passing, _)) = home.own() else { return false };
        self.hints(giant.cluster, Join::Nobody) & (giant.mask - 1) != 0
    }

    /// Whether nothing of a giant that is in use could be found from above.
    #[inline(always)]
    pub(crate) fn is_used_up(&self, giant: &Giant<'_>) -> bool {
        is_used_up(giant)
    }

    /// Whether what was just taken may be handed out as it is, and no marks need to change.
    #[inline(always)]
    pub(crate) fn is_plain(&self, crumb: Crumb<'_>) -> bool {
        rmw_fence();
        let Crumb { block, stay, .. } = crumb;
        self.directory.isolations.is_empty()
            // ORDERING: as in `take_zeroes`.
            && !block.giant.nodes().zero.is_set(block.index, Ordering::Relaxed)
            && block.is_full()
            && match stay {
                Stay::Settled => !crumb.is_last(),
                Stay::Passing => is_few(crumb.frames) || crumb.is_last(),
            }
    }

    /// Makes a refill of what was just taken, if it may be handed out, and changes the marks.
    pub(crate) fn finish_crumb(
        &self,
        writer: Writer<'_>,
        home: &mut Home<'m>,
        (place, frames): (Place<'m>, u64),
    ) -> Option<Refill<'m>> {
        let block = place.block();
        let refill = self.admit(writer, Refill::of(block, place.group.word(), frames));
        // ORDERING: a look; a mark may be wrong.
        if block.leaf().is_empty(Ordering::Relaxed) {
            retire(writer, block);
            home.pass(block);
        } else if !is_few(frames) {
            home.settle(writer, block);
        }
        let refill = refill?;
        count_refill(writer, &refill.cache);
        Some(refill)
    }
}

impl<'m> FrameTree<'m> {
    /// For a CPU without a home: takes the lowest crumbs of the lowest giant that is nobody's, if
    /// they are few, and leaves no mark. The next refill looks for a home.
    pub(super) fn pick_crumb(&self, writer: Writer<'_>, home: &mut Home<'m>) -> Picked<'m> {
        let mut walk = Walk::new(self.directory.clusters());
        while let Some(giant) = walk.next(|cluster| self.hints(cluster, Join::Nobody)) {
            if let Some(refill) = self.pick_in(writer, giant) {
                home.visit(refill.block);
                return Picked::Crumbs(refill);
            }
            if !is_nothing_free(giant) {
                return Picked::Other;
            }
            lower(writer, giant, Hint::Partial);
            lower(writer, giant, Hint::Whole);
        }
        Picked::Nothing
    }

    #[inline(always)]
    fn pick_in(&self, writer: Writer<'_>, giant: &'m Giant<'m>) -> Option<Refill<'m>> {
        let block = Block { giant, index: lowest_crumbs(giant.in_use()?)? };
        let leaf = block.leaf();
        // ORDERING: a look; the exchange decides.
        let look = |at: &usize| leaf.word(*at).load(Ordering::Relaxed);
        let word = (0..NODE_WORDS).find(|at| look(at) != 0)?;
        if !is_few(look(&word)) || block.first_frame().get() < self.low_end {
            return None;
        }
        let refill = Refill::of(block, word, take_all(leaf.word(word))?);
        // ORDERING: a look; `retire` looks again.
        if leaf.is_empty(Ordering::Relaxed) {
            retire(writer, block);
        }
        self.admit(writer, refill)
    }
}

/// What a CPU without a home has found outside of others'.
#[derive(Debug)]
pub(super) enum Picked<'m> {
    /// Few frames, which it has taken.
    Crumbs(Refill<'m>),
    /// Something else.
    Other,
    /// Nothing.
    Nothing,
}

/// Whether they are two frames at most; of none at all.
#[inline(always)]
const fn is_few(frames: u64) -> bool {
    let others = frames & frames.wrapping_sub(1);
    others & others.wrapping_sub(1) == 0
}

/// The lowest block of a giant that has anything and is nobody's, if what it has is crumbs.
#[inline(always)]
fn lowest_crumbs(nodes: &Nodes) -> Option<usize> {
    let (block, is_crumbs) = lowest_of_nobody(nodes)?;
    is_crumbs.then_some(block)
}

/// The lowest block of a giant that has anything and is nobody's, and whether what it has is
/// crumbs.
#[inline(always)]
fn lowest_of_nobody(Nodes { blocks, partial, claimed, .. }: &Nodes) -> Option<(usize, bool)> {
    for word in 0..NODE_WORDS {
        // ORDERING: as in `search_giant`. And the leaf of a block that is announced was written
        // before.
        let crumbs = partial.word(word).load(Ordering::Acquire);
        // ORDERING: as above.
        let some = blocks.word(word).load(Ordering::Acquire) | crumbs;
        if some == 0 {
            continue;
        }
        // ORDERING: a mark only.
        let candidates = some & !claimed.word(word).load(Ordering::Relaxed);
        if candidates != 0 {
            let bit = candidates.trailing_zeros();
            return Some((word * WORD_BITS as usize + bit as usize, crumbs >> bit & 1 != 0));
        }
    }
    None
}
