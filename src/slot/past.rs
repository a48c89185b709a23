//! Frees that fall into neither side's group, as simply as can be.
//!
//! **Past the sides.** A free far from the last ones goes to the tree alone, while the free side
//! holds something: at random the next one falls elsewhere again, and to flush one frame and to
//! open the side for another costs more than the frame's own way to the tree. Only when two in
//! turn fall into one group that is not open, the free side moves there. So it is too while the
//! free side is dry because few frames were in it when it was given back: who frees one and
//! allocates one in turn would open and flush a side for each.
//!
//! **The lowest frame** of these is kept, in the dry allocation side: the next allocation would get
//! it from the tree ([`super::packed`]).

use super::Slot;
use super::side::{Side, get, put};
use crate::directory::{Group, bit_of};
use crate::error::FreeError;
use crate::frame::FrameNumber;
use crate::geometry::FULL;
use crate::tree::{FrameTree, Opening};

impl<'m> Slot<'m> {
    /// Gives a frame to the tree, past the sides. If it may be the lowest there is, or does not
    /// belong there, or that is not simple, nothing has happened, and `below` or `slowly` take a
    /// turn of their own. So short that no register needs to be saved: what is called is called
    /// last.
    #[inline(always)]
    pub fn free_past(
        &self,
        tree: &FrameTree<'m>,
        frame: FrameNumber,
        below: impl FnOnce() -> Result<(), FreeError>,
        slowly: impl FnOnce() -> Result<(), FreeError>,
    ) -> Result<(), FreeError> {
        if self.requests.parked.has(frame) {
            return slowly();
        }
        if self.requests.packed.reaches_over(Group::of(frame)) {
            return below();
        }
        self.free_to_tree(tree, frame, slowly)
    }

    /// The same for a frame that is not the lowest, or is not to be kept for that.
    #[inline(always)]
    pub fn free_to_tree(
        &self,
        tree: &FrameTree<'m>,
        frame: FrameNumber,
        slowly: impl FnOnce() -> Result<(), FreeError>,
    ) -> Result<(), FreeError> {
        let Some(turn) = self.enter() else { return slowly() };
        let group = Group::of(frame);
        if !self.passes(group) {
            drop(turn);
            return slowly();
        }
        let Some(gift) = tree.begin_to_give(self.writer(), frame) else {
            drop(turn);
            return slowly();
        };
        if !gift.is_plain(frame) || self.requests.budget.is_some() {
            core::mem::forget(turn);
            return self.finish_past(gift, frame);
        }
        if gift.announce(frame) {
            core::mem::forget(turn);
            return self.tell_past(gift, group);
        }
        gift.end_plainly(self.writer());
        put(&self.requests.passed, group.number());
        drop(turn);
        if self.is_asked() { self.serve_and_be_done() } else { Ok(()) }
    }

    /// Puts a frame that would go past the sides into the dry allocation side, if it is the lowest
    /// now and nothing is to be said against it: whether it did. Else memory is packed up to its
    /// group only, from now on.
    #[inline(always)]
    pub fn keep_lowest(&self, tree: &FrameTree<'m>, frame: FrameNumber) -> bool {
        let Some(turn) = self.enter() else { return false };
        let Self { alloc_side, free_side, requests, .. } = self;
        let group = Group::of(frame);
        // What waits in the free side is in no hint; above it, this frame is not the lowest.
        let is_above_others = get(&free_side.free) != 0 && get(&free_side.group) < group.number();
        let is_possible = get(&alloc_side.free) == 0
            && !is_above_others
            && self.passes(group)
            && requests.budget.is_none();
        let place = if is_possible { tree.place_to_keep(group, bit_of(frame)) } else { None };
        let place = place.filter(|place| requests.packed.begins_below(tree, &self.home, *place));
        match place {
            Some(place) => {
                alloc_side.open(Opening { place, managed: FULL });
                put(&alloc_side.free, bit_of(frame));
            }
            None => requests.packed.ends_at(&self.home, group),
        }
        drop(turn);
        place.is_some() && self.serve()
    }

    /// Whether a frame goes to the tree alone, past both sides, and the free side stays where it
    /// is.
    #[inline(always)]
    pub(super) fn passes(&self, group: Group) -> bool {
        let Slot { alloc_side, free_side, requests, .. } = self;
        let is_far = group.number().wrapping_sub(get(&free_side.group)).wrapping_add(1) > 2;
        let passed = get(&requests.passed);
        is_far
            && !alloc_side.is_open_for(group)
            && passed != group.number()
            && (get(&free_side.free) != 0 || passed != Side::CLOSED)
    }
}
