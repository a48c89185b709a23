//! What is made at initialisation: the tree, the slots, the budget; and what each operation does
//! once it is known which CPU it is on: with the CPU's slot, or, in an interrupt inside another
//! use and on a CPU without a slot, on the tree.

use super::Drained;
use crate::arena::Arena;
use crate::budget::Budget;
use crate::cache::{Handful, Known};
use crate::error::{AllocError, Found, FreeError, NoRun, OutOfMemory, Refusal};
use crate::frame::{CpuId, Frame, FrameNumber, FrameRange, NumberRange};
use crate::geometry::{BLOCK_FRAMES, FRAME_LIMIT, GIANT_FRAMES};
#[cfg(feature = "hardened")]
use crate::hardened::Hardened;
use crate::journal::{Counter, Writer};
use crate::request::{Request, RequestError};
use crate::slot::{Slot, Turn};
use crate::tree::{FrameTree, GrowError, Looked, Wanted};

/// Why a run was refused. What is to be had instead takes a look at the whole tree
/// ([`Shared::why_no_run`]).
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// The request makes no sense.
    Senseless(RequestError),
    /// There is no such run.
    NotThere,
    /// It is kept for urgent requests.
    Reserved,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotThere => Self::NotThere,
            Refusal::Reserved => Self::Reserved,
        }
    }
}

#[derive(Debug)]
pub struct Shared {
    pub tree: FrameTree<'static>,
    pub slots: &'static [Slot<'static>],
    pub budget: &'static Budget<'static>,
    #[cfg(feature = "hardened")]
    pub hardened: Option<&'static Hardened<'static>>,
}

impl Shared {
    #[inline(always)]
    pub fn take_turn<R>(&self, cpu: CpuId, work: impl FnOnce(Turn<'_, 'static>) -> R) -> Option<R> {
        self.slots.get(cpu.get())?.take_turn(work)
    }

    #[inline(always)]
    pub fn alloc(&self, cpu: CpuId) -> Result<Frame, Refusal> {
        match self.take_turn(cpu, |turn| turn.alloc(&self.tree)) {
            Some(taken) => taken,
            None => self.alloc_nested(cpu),
        }
    }

    #[inline(never)]
    pub fn alloc_urgent(&self, cpu: CpuId) -> Result<Frame, Refusal> {
        let cached = |turn: Turn<'_, 'static>| turn.alloc_urgent(&self.tree);
        self.take_turn_or(cpu, cached, |writer| Ok(self.tree.alloc_with(writer)?))
    }

    #[cold]
    #[inline(never)]
    pub fn alloc_nested(&self, cpu: CpuId) -> Result<Frame, Refusal> {
        self.nested(cpu, |writer| {
            self.budget.ask_shared(1)?;
            Ok(self.tree.alloc_with(writer)?)
        })
    }

    #[cold]
    #[inline(never)]
    pub fn free_nested(&self, cpu: CpuId, frame: FrameNumber) -> Result<(), FreeError> {
        self.nested(cpu, |writer| self.tree.free_with(writer, frame))
    }

    #[inline(never)]
    pub fn alloc_block(&self, cpu: CpuId) -> Result<Frame, Refusal> {
        match self.take_turn(cpu, |turn| turn.alloc_block(&self.tree)) {
            Some(taken) => taken,
            None => self.alloc_block_nested(cpu),
        }
    }

    #[inline(never)]
    pub fn free_block(&self, cpu: CpuId, first: FrameNumber) -> Result<(), FreeError> {
        let freed = self.take_turn(cpu, |turn| {
            // It may be this one, or lie above it.
            turn.unpark();
            match turn.held_in(first, BLOCK_FRAMES) {
                0 => turn.unasked(|writer| self.tree.free_block_with(writer, first)),
                free => self
                    .tree
                    .check_block(first)
                    .and(Err(FreeError { frame: first, found: Found::PartlyFree { free } })),
            }
        });
        match freed {
            Some(freed) => freed,
            None => self.free_block_nested(cpu, first),
        }
    }

    #[cold]
    #[inline(never)]
    pub fn alloc_block_nested(&self, cpu: CpuId) -> Result<Frame, Refusal> {
        self.nested(cpu, |writer| {
            self.budget.ask_shared(BLOCK_FRAMES)?;
            Ok(self.tree.alloc_block_with(writer)?)
        })
    }

    #[cold]
    #[inline(never)]
    pub fn free_block_nested(&self, cpu: CpuId, first: FrameNumber) -> Result<(), FreeError> {
        self.nested(cpu, |writer| self.tree.free_block_with(writer, first))
    }

    /// The first attempt; for a request without conditions after a look near the last runs.
    pub fn alloc_run(&self, cpu: CpuId, request: &Request) -> Result<FrameRange, Refused> {
        let looked = if request.is_plain() { Looked::InVain } else { Looked::Never };
        let cached = |turn: Turn<'_, 'static>| {
            let from_cache = |count| Some(range(turn.alloc_run(&self.tree, count)?, count));
            match request.plain_within_a_word().and_then(from_cache) {
                Some(run) => Ok(run),
                None => self.alloc_run_in(&turn, request, Wanted::Any, looked),
            }
        };
        let nested = |writer: Writer<'_>| self.alloc_run_nested(writer, request, Wanted::Any);
        self.take_turn_or(cpu, cached, nested)
    }

    /// The same, past this CPU's cache.
    pub fn alloc_run_past(
        &self,
        cpu: CpuId,
        request: &Request,
        contents: Wanted,
    ) -> Result<FrameRange, Refused> {
        let past =
            |turn: Turn<'_, 'static>| self.alloc_run_in(&turn, request, contents, Looked::Never);
        self.take_turn_or(cpu, past, |writer| self.alloc_run_nested(writer, request, contents))
    }

    /// From the tree, with this CPU's cache given back first: a refill could break up the run.
    pub fn alloc_run_drained(
        &self,
        cpu: CpuId,
        request: &Request,
        contents: Wanted,
    ) -> Result<FrameRange, Refused> {
        let drained = |turn: Turn<'_, 'static>| {
            // A double free that only this flush could see is counted in the journal.
            let _ = turn.drain();
            self.alloc_run_in(&turn, request, contents, Looked::InVain)
        };
        self.take_turn_or(cpu, drained, |writer| self.alloc_run_nested(writer, request, contents))
    }

    /// From the tree, if the budget allows it.
    pub fn alloc_run_in(
        &self,
        turn: &Turn<'_, 'static>,
        request: &Request,
        contents: Wanted,
        looked: Looked,
    ) -> Result<FrameRange, Refused> {
        request.check().map_err(Refused::Senseless)?;
        let not_there = |OutOfMemory| Refused::NotThere;
        // It may be what fits.
        turn.unpark();
        if !request.is_urgent() && turn.is_rationed() {
            self.tree.look_for_run(turn.writer(), request, looked).map_err(not_there)?;
            turn.ask(request.count())?;
        }
        let take = |writer: Writer<'_>| self.tree.take_run(writer, request, contents, looked);
        turn.unasked(take).map_err(not_there)
    }

    /// The same for an interrupt inside another use.
    pub fn alloc_run_nested(
        &self,
        writer: Writer<'_>,
        request: &Request,
        contents: Wanted,
    ) -> Result<FrameRange, Refused> {
        request.check().map_err(Refused::Senseless)?;
        if !request.is_urgent() {
            self.budget.ask_shared(request.count())?;
        }
        let run = self.tree.take_run(writer, request, contents, Looked::Never);
        run.map_err(|OutOfMemory| Refused::NotThere)
    }

    /// What to say of a run that was refused.
    #[cold]
    pub fn why_no_run(&self, cpu: CpuId, request: &Request, refused: Refused) -> AllocError {
        match refused {
            Refused::Senseless(error) => AllocError::Request(error),
            Refused::Reserved => self.reserved(),
            Refused::NotThere => {
                let why = |writer: Writer<'_>| self.tree.why_no_run(writer, request);
                match self.take_turn_or(cpu, |turn| turn.unasked(why), why) {
                    AllocError::NoRun(no_run) => {
                        AllocError::NoRun(NoRun { cached: self.cached(), ..no_run })
                    }
                    error => error,
                }
            }
        }
    }

    pub fn free_run(&self, cpu: CpuId, run: NumberRange) -> Result<(), FreeError> {
        let tree = &self.tree;
        let cached = |turn: Turn<'_, 'static>| match turn.first_held(run) {
            None => turn.free_run(tree, run),
            Some(frame) => {
                // Only what lies below can be the lowest mistake.
                let below = NumberRange::trusted(run.start(), frame);
                tree.check_run(below).and(Err(FreeError { frame, found: Found::Cached }))
            }
        };
        self.take_turn_or(cpu, cached, |writer| tree.free_run_with(writer, run))
    }

    pub fn cached(&self) -> u64 {
        self.slots.iter().map(Slot::cached).sum()
    }

    /// A use of the CPU's slot; or, for one without a slot and for an interrupt inside another
    /// use, what the tree does.
    #[inline]
    pub fn take_turn_or<R>(
        &self,
        cpu: CpuId,
        work: impl FnOnce(Turn<'_, 'static>) -> R,
        nested: impl FnOnce(Writer<'_>) -> R,
    ) -> R {
        match self.take_turn(cpu, work) {
            Some(done) => done,
            None => self.nested(cpu, nested),
        }
    }

    #[inline(never)]
    pub fn alloc_known(&self, cpu: CpuId) -> Result<Known, Refusal> {
        let tree = &self.tree;
        let cached = |turn: Turn<'_, 'static>| turn.alloc_known(tree);
        self.take_turn_or(cpu, cached, |writer| {
            self.budget.ask_shared(1)?;
            Ok(tree.alloc_known_with(writer)?)
        })
    }

    #[inline(never)]
    pub fn free_zeroed(&self, cpu: CpuId, frame: FrameNumber) -> Result<(), FreeError> {
        let tree = &self.tree;
        let cached = |turn: Turn<'_, 'static>| turn.free_zeroed(tree, frame);
        self.take_turn_or(cpu, cached, |writer| tree.free_zeroed_with(writer, frame))
    }

    #[inline(never)]
    pub fn alloc_some(&self, cpu: CpuId, most: u32) -> Result<Handful, Refusal> {
        let tree = &self.tree;
        let cached = |turn: Turn<'_, 'static>| turn.alloc_some(tree, most);
        self.take_turn_or(cpu, cached, |writer| {
            let most = self.budget.allow_shared(1, u64::from(most)) as u32;
            if most == 0 { Err(Refusal::Reserved) } else { Ok(tree.alloc_some_with(writer, most)?) }
        })
    }

    #[inline(never)]
    pub fn free_bulk(&self, cpu: CpuId, frames: &mut [Option<Frame>]) -> Result<(), FreeError> {
        let tree = &self.tree;
        let freed = self.take_turn(cpu, |turn| {
            let frames = frames.iter_mut().filter_map(Option::take);
            let freed = frames.map(|frame| turn.free(tree, frame.into_number()));
            freed.fold(Ok(()), Result::and)
        });
        match freed {
            Some(freed) => freed,
            None => self.nested(cpu, |writer| tree.free_bulk_with(writer, frames)),
        }
    }

    #[inline(never)]
    pub fn alloc_giant(&self, cpu: CpuId) -> Result<Frame, Refusal> {
        let tree = &self.tree;
        let from_tree = |writer: Writer<'_>| tree.alloc_giant_with(writer);
        let look = |writer: Writer<'_>| tree.look_for_giant(writer);
        let held = |turn: Turn<'_, 'static>| {
            // Its GiB may be whole then.
            turn.unpark();
            turn.asking(GIANT_FRAMES, look, from_tree)
        };
        self.take_turn_or(cpu, held, |writer| {
            self.budget.ask_shared(GIANT_FRAMES)?;
            Ok(from_tree(writer)?)
        })
    }

    #[inline(never)]
    pub fn free_giant(&self, cpu: CpuId, first: FrameNumber) -> Result<(), FreeError> {
        let tree = &self.tree;
        let checked = |turn: Turn<'_, 'static>| {
            turn.unpark();
            match turn.held_in(first, GIANT_FRAMES) {
                0 => turn.unasked(|writer| tree.free_giant_with(writer, first)),
                free => tree
                    .check_giant(first)
                    .and(Err(FreeError { frame: first, found: Found::PartlyFree { free } })),
            }
        };
        self.take_turn_or(cpu, checked, |writer| tree.free_giant_with(writer, first))
    }

    /// What a CPU says that got nothing, for this reason the last time. (Where nothing is left,
    /// nothing is kept.)
    #[cold]
    pub fn out_of_memory(&self, cpu: CpuId, refusal: Refusal) -> AllocError {
        if refusal == Refusal::Reserved && self.tree.free_frames() > 0 {
            return self.reserved();
        }
        // An interrupt inside the allocator can't take from its own CPU's cache either.
        let is_elsewhere = |at: usize, slot: &Slot<'_>| at != cpu.get() || slot.is_busy();
        let others = self.slots.iter().enumerate().filter(|(at, slot)| is_elsewhere(*at, slot));
        AllocError::OutOfMemory { cached_elsewhere: others.map(|(_, slot)| slot.cached()).sum() }
    }

    pub fn drain(&self, cpu: CpuId) -> Result<Drained, FreeError> {
        let Some(slot) = self.slots.get(cpu.get()) else { return Ok(Drained::Done) };
        match slot.take_turn(|turn| turn.drain()) {
            Some(drained) => drained.map(|()| Drained::Done),
            None => {
                slot.promise_to_drain();
                Ok(Drained::AtEndOfUse)
            }
        }
    }

    #[cold]
    pub fn reserved(&self) -> AllocError {
        AllocError::Reserved { free: self.tree.free_frames() }
    }

    /// Adds memory.
    pub fn grow(
        &self,
        range: NumberRange,
        place: impl FnOnce(usize) -> Result<(Arena<'static>, NumberRange), GrowError>,
    ) -> Result<NumberRange, GrowError> {
        #[cfg(feature = "hardened")]
        if let Some(hardened) = self.hardened {
            let ledger = core::cell::Cell::new(None);
            let beside = |bytes| {
                let (mut arena, added) = place(bytes + Hardened::bytes_to_grow(range.len()))?;
                ledger.set(Some(Hardened::ledger(&mut arena, added)));
                Ok((arena, added))
            };
            let open = || ledger.take().into_iter().for_each(|ledger| hardened.open(ledger));
            return self.tree.grow(range, beside, open).inspect(|_| self.changed());
        }
        self.tree.grow(range, place, || ()).inspect(|_| self.changed())
    }

    /// Bytes of the ledger that it would take.
    pub fn ledger_bytes(&self, range: NumberRange) -> usize {
        #[cfg(feature = "hardened")]
        if self.hardened.is_some() {
            return Hardened::bytes_to_grow(range.len());
        }
        let _ = range;
        0
    }

    /// Puts frames back that nobody has got.
    #[cfg(feature = "hardened")]
    pub fn put(&self, frames: NumberRange) {
        // They were taken from there just now.
        let _ = self.tree.free_run_with(self.tree.shared_writer(), frames);
        self.recount();
    }

    /// After memory has come or gone.
    pub fn changed(&self) {
        self.recount();
        #[cfg(feature = "hardened")]
        if let Some(hardened) = self.hardened {
            hardened.seal(&self.tree);
        }
    }

    /// Tells the budget what else has changed than by those who ask it.
    pub fn recount(&self) {
        self.budget.recount(self.tree.ever_managed());
        self.budget.watch(|| ());
    }

    /// Has crossings told that were made outside of a turn: at the end of the one that this
    /// interrupts, or at once.
    pub fn tell(&self, cpu: CpuId) {
        if !self.budget.has_untold() {
            return;
        }
        match self.slots.get(cpu.get()) {
            Some(slot) if slot.is_busy() => slot.ring(),
            _ => self.budget.tell(),
        }
    }

    /// Whether a CPU may take more frames than it has taken, or is about to.
    pub fn may_have_credit(&self, slot: &Slot<'_>) -> bool {
        !self.budget.is_off() && slot.may_have_credit()
    }

    /// What a CPU without a slot does, or an interrupt inside its slot's use: on the tree.
    pub fn nested<R>(&self, cpu: CpuId, work: impl FnOnce(Writer<'_>) -> R) -> R {
        let done = work(self.nested_writer(cpu));
        if !self.budget.is_off() {
            self.budget.watch(|| ());
            self.tell(cpu);
        }
        done
    }

    pub fn nested_writer(&self, cpu: CpuId) -> Writer<'_> {
        if cpu.get() >= self.slots.len() {
            return self.tree.shared_writer();
        }
        let writer = self.tree.nested_writer(cpu.get());
        writer.add(Counter::Nested, 1);
        writer
    }
}

/// So many frames, which the caller has taken.
#[inline]
pub fn range(start: FrameNumber, count: u32) -> FrameRange {
    let end = FrameNumber::trusted(start.get() + u64::from(count));
    FrameRange::owned(NumberRange::trusted(start, end))
}

/// The frames of something that is named by its first one.
#[inline(always)]
pub fn whole<const FRAMES: u64>(first: &Frame) -> NumberRange {
    whole_at::<FRAMES>(first.number())
}

/// The same for a number, which may be wrong: none then, and the tree says what is wrong.
#[inline(always)]
pub fn whole_at<const FRAMES: u64>(first: FrameNumber) -> NumberRange {
    let frames = if first.get().is_multiple_of(FRAMES) { FRAMES } else { 0 };
    let end = FrameNumber::trusted((first.get() + frames).min(FRAME_LIMIT));
    NumberRange::trusted(first, end)
}

/// The error for a frame that comes too early.
#[cold]
pub fn not_initialised(frame: Frame) -> FreeError {
    FreeError { frame: frame.into_number(), found: Found::NotInitialised }
}
