//! Packed: below some frame nothing is free.
//!
//! Single frames are taken from the lowest hole, so that memory is packed from below after a while,
//! and a frame that comes free there is the lowest there is: to the tree and back it would take
//! four read-modify-writes, for the next request to get just this one. A CPU keeps how far up its
//! home's giant is packed, by what its last hole has shown. A frame that it frees below goes to its
//! dry allocation side, from where the next request takes it: none.
//!
//! What this CPU frees by frames and runs is noticed; blocks are not, nor what others free, or
//! interrupts inside a use. So the giant's hints are asked after [`Packed::USES`] such frames.

use super::side::{get, put};
use crate::directory::{Group, Place};
use crate::sync::Word;
use crate::tree::FrameTree;

/// How far up a giant is packed. Plain loads and stores of the slot's owner.
#[derive(Debug)]
pub struct Packed {
    /// The number of the group behind, and how many uses are left; 0 if nothing is known.
    known: Word,
}

impl Packed {
    /// How often it is relied on.
    const USES: u64 = 63;
    const BEHIND: u64 = Self::USES + 1;

    /// Nothing is known.
    pub fn new() -> Self {
        Self { known: Word::new(0) }
    }

    /// After the lowest hole of a giant was taken, and with it all that its group had.
    #[inline(always)]
    pub fn up_to(&self, group: Group) {
        put(&self.known, (group.number() + 1) * Self::BEHIND + Self::USES);
    }

    /// Whether it lies above this group, be that in the same giant or not.
    #[inline(always)]
    pub fn reaches_over(&self, group: Group) -> bool {
        group.number() < get(&self.known) / Self::BEHIND
    }

    /// Whether a frame is the lowest of all, in a place of a group that it reaches over: a use. If
    /// there is none left, the hints are asked whether all is as it was.
    #[inline(always)]
    pub fn begins_below<'m>(&self, tree: &FrameTree<'m>, place: Place<'m>) -> bool {
        let (known, last) = (get(&self.known), self.last());
        if last.giant() != place.group.giant() {
            return tree.is_used_up(place.giant);
        }
        if known.is_multiple_of(Self::BEHIND) {
            let is_so = tree.is_packed_up_to(place.giant, last);
            put(&self.known, if is_so { known + Self::USES } else { 0 });
            return is_so;
        }
        put(&self.known, known - 1);
        true
    }

    /// After a frame of this group went to the tree.
    #[inline(always)]
    pub fn ends_at(&self, group: Group) {
        if self.reaches_over(group) && self.last().giant() == group.giant() {
            put(&self.known, group.number() * Self::BEHIND + get(&self.known) % Self::BEHIND);
        }
    }

    /// The last group that is packed, if anything is known.
    #[inline(always)]
    fn last(&self) -> Group {
        Group::new((get(&self.known) / Self::BEHIND).wrapping_sub(1))
    }
}
