//! Homes: where a CPU refills from, so that CPUs stay out of each other's lines.
//!
//! A CPU that refills again and again keeps a home: the block that it took from last. It marks
//! that block as claimed and its giant as adopted (hints both: nothing is reserved), and others go
//! elsewhere while there is an elsewhere. So CPUs write different leaves, and, as long as there
//! are as many GiBs as CPUs, different giants' lines. A home's giant is used up, lowest block
//! first, before another is adopted.
//!
//! **A giant is adopted before it is searched.** When many CPUs begin at once they all see the same
//! lowest giant; whoever does not set its mark first goes on to the next that is unmarked, and from
//! then on in an order of its own, so that losers do not meet again and again.
//!
//! **Who had to go elsewhere** because nothing else was left does not stay. A block that is
//! somebody else's is not taken from twice in a row, and when the next block is needed, giants that
//! nobody has adopted come first. A home in low memory is used when nothing is left above.

use bit_field::BitField;

use super::FrameTree;
use super::crumbs::Picked;
use super::levels::{Hint, lower, retire};
use super::search::{Amount, Join, Refill, Walk, count_refill, harvest, open_giant};
use crate::directory::{Block, Group};
use crate::error::OutOfMemory;
use crate::journal::Writer;
use crate::root::Giant;
use crate::sync::{Link, Ordering, Word};

/// Where a CPU refills from.
#[derive(Clone, Copy, Default, Debug)]
pub struct Home<'m> {
    at: Option<At<'m>>,
}

/// A home's block, and which marks there are this CPU's to take away.
#[derive(Clone, Copy, Debug)]
struct At<'m> {
    block: Block<'m>,
    claim: Mark,
    adoption: Mark,
}

/// A home, kept in a CPU's slot.
#[derive(Debug)]
pub struct HomeCell<'m> {
    giant: Link<'m, Giant<'m>>,
    /// The rest, or 0 for no home.
    rest: Word,
}

/// What the next refill from the home's giant has to do with the home's block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stay {
    /// It is marked by this CPU, which takes from it until it is used up.
    Settled,
    /// Nothing: it was used up, or is another CPU's.
    Passing,
}

/// Whose mark it is that this CPU found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    /// This CPU set it.
    Own,
    /// Another CPU had set it before.
    Foreign,
}

impl<'m> FrameTree<'m> {
    /// A refill from this CPU's home, which moves when it is used up. From a partly used block
    /// one read-modify-write; a new block costs up to eight more, one of another giant two on top.
    pub(crate) fn refill_near(
        &self,
        writer: Writer<'_>,
        home: &mut Home<'m>,
    ) -> Result<Refill<'m>, OutOfMemory> {
        let picked = match home.at {
            None => self.pick_crumb(writer, home),
            Some(_) => Picked::Other,
        };
        let nearby = match picked {
            Picked::Crumbs(refill) => {
                count_refill(writer, &refill.cache);
                return Ok(refill);
            }
            Picked::Other => self.refill_at(writer, home),
            Picked::Nothing => None,
        };
        let nearby = nearby.or_else(|| self.refill_beside(writer, home));
        let refill = match nearby {
            Some(refill) => refill,
            None => {
                self.prove(writer, || self.search_admitted(writer, Amount::Word, Join::Anybody))?
            }
        };
        home.settle(writer, refill.block);
        count_refill(writer, &refill.cache);
        Ok(refill)
    }

    /// From where nobody else works: the home's block, the home's giant, another giant.
    fn refill_at(&self, writer: Writer<'_>, home: &mut Home<'m>) -> Option<Refill<'m>> {
        let own = if self.is_low(home) { None } else { home.harvest(writer) };
        own.or_else(|| self.search_home(writer, home, Mark::Own))
            .and_then(|refill| self.admit(writer, refill))
            .or_else(|| self.adopt(writer, home))
            .or_else(|| self.admit(writer, self.search_home(writer, home, Mark::Foreign)?))
    }

    /// From where others work, but not in low memory; then from a home there.
    fn refill_beside(&self, writer: Writer<'_>, home: &Home<'m>) -> Option<Refill<'m>> {
        let above = |_| self.search_admitted(writer, Amount::Word, Join::AnybodyAbove);
        let above = self.above_low(above);
        if above.is_none() && self.is_low(home) {
            self.admit(writer, home.harvest(writer)?)
        } else {
            above
        }
    }

    /// Whether a home's block is in low memory.
    fn is_low(&self, home: &Home<'m>) -> bool {
        self.low_end != 0 && home.at.is_some_and(|at| at.block.first_frame().get() < self.low_end)
    }

    /// The lowest frames of a home's giant that are in nobody's block, if it was adopted so.
    fn search_home(
        &self,
        writer: Writer<'_>,
        home: &Home<'m>,
        adoption: Mark,
    ) -> Option<Refill<'m>> {
        let at = home.at.filter(|at| at.adoption == adoption)?;
        self.search_giant(writer, at.block.giant, Amount::Word, Join::Nobody)
    }

    /// The lowest frames of the lowest giant that nobody works in and that has any, which this
    /// CPU works in from now on. Its own is used up.
    fn adopt(&self, writer: Writer<'_>, home: &mut Home<'m>) -> Option<Refill<'m>> {
        if let Some(at) = home.at.filter(|at| at.adoption == Mark::Own) {
            lower(writer, at.block.giant, Hint::Whole);
            lower(writer, at.block.giant, Hint::Partial);
        }
        let mut walk = Walk::new(self.directory.clusters());
        while let Some(giant) = walk.next(|cluster| self.hints(cluster, Join::Nobody)) {
            let adopted = &giant.cluster.adopted;
            // ORDERING: a mark only; nothing is read through it.
            if mark(adopted.fetch_or(giant.mask, Ordering::Relaxed), giant.mask) == Mark::Foreign {
                walk.scatter(writer.number(self.journals));
                continue;
            }
            let found = open_giant(writer, giant)
                .and_then(|_| self.search_giant(writer, giant, Amount::Word, Join::Nobody));
            if let Some(refill) = found.and_then(|refill| self.admit(writer, refill)) {
                home.adopt(writer, refill.block);
                return Some(refill);
            }
            // ORDERING: as above.
            adopted.fetch_and(!giant.mask, Ordering::Relaxed);
            if giant.written().is_some() {
                lower(writer, giant, Hint::Whole);
                lower(writer, giant, Hint::Partial);
            }
        }
        None
    }
}

impl<'m> Home<'m> {
    /// Gives it and its marks up.
    pub fn leave(&mut self) {
        let Some(At { block, claim, adoption }) = self.at.take() else { return };
        if claim == Mark::Own {
            let (word, mask) = block.giant.nodes().claimed.at(block.index);
            // ORDERING: a mark only; nothing is read through it.
            word.fetch_and(!mask, Ordering::Relaxed);
        }
        if adoption == Mark::Own {
            // ORDERING: as above.
            block.giant.cluster.adopted.fetch_and(!block.giant.mask, Ordering::Relaxed);
        }
    }

    /// The lowest frames of its block, unless that is another CPU's as well.
    fn harvest(&self, writer: Writer<'_>) -> Option<Refill<'m>> {
        let at = self.at.filter(|at| at.claim == Mark::Own)?;
        harvest(writer, at.block, Amount::Word)
    }

    /// Moves it to the block that a refill came from.
    #[inline]
    pub(super) fn settle(&mut self, writer: Writer<'_>, block: Block<'m>) {
        if !self.at.is_some_and(|at| at.block.is(block) && at.claim == Mark::Own) {
            self.move_to(writer, block);
        }
    }

    /// Is at this block from now on, without a mark.
    pub(super) fn visit(&mut self, block: Block<'m>) {
        self.at = Some(At { block, claim: Mark::Foreign, adoption: Mark::Foreign });
    }

    /// Leaves its block, which is used up, but not the giant.
    pub(super) fn pass(&mut self, block: Block<'m>) {
        let adoption =
            self.at.as_mut().map(|at| core::mem::replace(&mut at.adoption, Mark::Foreign));
        self.leave();
        self.at = adoption.map(|adoption| At { block, claim: Mark::Foreign, adoption });
    }

    #[inline(never)]
    fn move_to(&mut self, writer: Writer<'_>, block: Block<'m>) {
        let giant = block.giant;
        let adoption = match self.at {
            Some(ref mut at) if core::ptr::eq(at.block.giant, giant) => {
                // The adoption stays; `leave` must only take the claim.
                core::mem::replace(&mut at.adoption, Mark::Foreign)
            }
            // ORDERING: a mark only.
            _ => mark(giant.cluster.adopted.fetch_or(giant.mask, Ordering::Relaxed), giant.mask),
        };
        self.leave();
        self.claim(writer, block, adoption);
    }

    /// Moves it to a block of a giant that this CPU has just adopted.
    fn adopt(&mut self, writer: Writer<'_>, block: Block<'m>) {
        self.leave();
        self.claim(writer, block, Mark::Own);
    }

    fn claim(&mut self, writer: Writer<'_>, block: Block<'m>, adoption: Mark) {
        let (word, mask) = block.giant.nodes().claimed.at(block.index);
        // ORDERING: a look; what is used up needs no mark, and no hint.
        let claim = if block.leaf().is_empty(Ordering::Relaxed) {
            retire(writer, block);
            Mark::Foreign
        } else {
            // ORDERING: a mark only.
            mark(word.fetch_or(mask, Ordering::Relaxed), mask)
        };
        self.at = Some(At { block, claim, adoption });
    }
}

impl<'m> HomeCell<'m> {
    const PRESENT: usize = 63;
    const CLAIM: usize = 62;
    const ADOPTION: usize = 61;
    const INDEX: core::ops::Range<usize> = 0..16;

    /// No home.
    pub fn new() -> Self {
        Self { giant: Link::empty(), rest: Word::new(0) }
    }

    /// The home that it keeps.
    pub fn get(&self) -> Home<'m> {
        // ORDERING: only the slot's owner reads and writes it.
        let rest = self.rest.load(Ordering::Relaxed);
        let whose = |bit| if rest.get_bit(bit) { Mark::Own } else { Mark::Foreign };
        let giant = self.giant.load().filter(|_| rest.get_bit(Self::PRESENT));
        let at = giant.map(|giant| At {
            block: Block { giant, index: rest.get_bits(Self::INDEX) as usize },
            claim: whose(Self::CLAIM),
            adoption: whose(Self::ADOPTION),
        });
        Home { at }
    }

    /// Whether this CPU has adopted its giant.
    pub fn is_own(&self) -> bool {
        self.own().is_some()
    }

    /// Whether it is in this giant.
    #[inline(always)]
    pub fn is_in(&self, giant: &Giant<'m>) -> bool {
        self.giant.load().is_some_and(|home| core::ptr::eq(home, giant))
    }

    /// Whether its giant lies above this group, or there never was one.
    #[inline(always)]
    pub fn is_above(&self, group: Group) -> bool {
        self.giant.load().is_none_or(|home| home.number() > group.giant())
    }

    /// The giant, if this CPU has adopted it, and which block of it the home is.
    #[inline(always)]
    pub(super) fn own(&self) -> Option<(&'m Giant<'m>, Stay, usize)> {
        // ORDERING: only the slot's owner reads and writes it.
        let rest = self.rest.load(Ordering::Relaxed);
        if !rest.get_bit(Self::ADOPTION) {
            return None;
        }
        let stay = if rest.get_bit(Self::CLAIM) { Stay::Settled } else { Stay::Passing };
        Some((self.giant.load()?, stay, rest.get_bits(Self::INDEX) as usize))
    }

    /// Gives it and its marks up.
    pub fn give_up(&self) {
        let mut home = self.get();
        home.leave();
        self.put(home);
    }

    /// Keeps this one from now on.
    pub fn put(&self, home: Home<'m>) {
        let mut rest = 0u64;
        if let Some(At { block, claim, adoption }) = home.at {
            self.giant.publish(block.giant);
            rest.set_bits(Self::INDEX, block.index as u64)
                .set_bit(Self::CLAIM, claim == Mark::Own)
                .set_bit(Self::ADOPTION, adoption == Mark::Own)
                .set_bit(Self::PRESENT, true);
        }
        // ORDERING: as in `get`.
        self.rest.store(rest, Ordering::Relaxed);
    }
}

/// Whose mark a `fetch_or` that found `old` has set.
fn mark(old: u64, mask: u64) -> Mark {
    if old & mask == 0 { Mark::Own } else { Mark::Foreign }
}
