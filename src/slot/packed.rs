//! Packed: below some frame nothing is free.
//!
//! Single frames are taken from the lowest hole, so that memory is packed from below after a while,
//! and a frame that comes free there is the lowest there is: to the tree and back it would take
//! four read-modify-writes, for the next request to get just this one. A CPU keeps how far up it
//! is packed from the begin of its home's giant on, by what its last hole has shown. A frame that
//! it frees below goes to its dry allocation side, from where the next request takes it: none. In
//! another giant it does so if nothing else is free there, by the giant's hint.
//!
//! What waits in the free side is in no hint, so nothing above it is the lowest; and when the home
//! moves to another giant, what is known of the last one says nothing of it.
//!
//! What this CPU frees by frames and runs is noticed; blocks are not, nor what others free, or
//! interrupts inside a use. So the hints are asked after [`Packed::USES`] such frames, which also
//! tells where the next hole is; and if there is one in a giant below, of the 64 whose hints are
//! side by side, the home is given up, so that the next refill goes there.

use super::side::{get, put};
use crate::directory::{Group, Place};
use crate::sync::Word;
use crate::tree::{FrameTree, HomeCell};

/// How far up memory is packed. Plain loads and stores of the slot's owner.
#[derive(Debug)]
pub struct Packed {
    /// The number of the group behind, and how many uses are left; 0 if nothing is known.
    known: Word,
}

impl Packed {
    /// How often it is relied on.
    const USES: u64 = 63;
    const BEHIND: u64 = Self::USES + 1;
    /// The hints are to be asked.
    const ASK: u64 = u64::MAX - Self::USES;

    /// Nothing is known.
    pub fn new() -> Self {
        Self { known: Word::new(0) }
    }

    /// After the lowest hole of the home's giant was taken, and with it all that its group had: a
    /// use of what was known before.
    #[inline(always)]
    pub fn up_to(&self, group: Group) {
        let known = get(&self.known);
        let left = if known == 0 { Self::USES } else { (known % Self::BEHIND).saturating_sub(1) };
        put(&self.known, (group.number() + 1) * Self::BEHIND + left);
    }

    /// After a hole was found elsewhere: the hints are to be asked.
    pub fn ask(&self) {
        put(&self.known, Self::ASK);
    }

    /// After the home was given up.
    pub fn forget(&self) {
        put(&self.known, 0);
    }

    #[inline(always)]
    fn is_up_to(&self, behind: u64) {
        put(&self.known, behind * Self::BEHIND + Self::USES);
    }

    /// Whether it lies above this group.
    #[inline(always)]
    pub fn reaches_over(&self, group: Group) -> bool {
        group.number() < get(&self.known) / Self::BEHIND
    }

    /// Whether a frame is the lowest of all, in a place of a group that it reaches over: a use. If
    /// there is none left, the hints are asked.
    #[inline(always)]
    pub fn begins_below<'m>(
        &self,
        tree: &FrameTree<'m>,
        home: &HomeCell<'m>,
        place: Place<'m>,
    ) -> bool {
        let known = get(&self.known);
        if known.is_multiple_of(Self::BEHIND) {
            if known != Self::ASK && tree.is_anything_below(home) {
                home.give_up();
            }
            self.is_up_to(tree.packed_up_to(home));
            return self.reaches_over(place.group) && self.begins_below(tree, home, place);
        }
        put(&self.known, known - 1);
        home.is_in(place.giant) || tree.is_used_up(place.giant)
    }

    /// After a frame of this group went to the tree. Below the home nothing is said of it.
    #[inline(always)]
    pub fn ends_at(&self, home: &HomeCell<'_>, group: Group) {
        if self.reaches_over(group) && !home.is_above(group) {
            put(&self.known, group.number() * Self::BEHIND + get(&self.known) % Self::BEHIND);
        }
    }
}
