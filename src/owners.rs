//! Who has which frames, of a hardened pool: taking them under a name, renaming, and reports of
//! leaks. The ledger is in [`crate::hardened`]; a pool that is not hardened has nothing to report.

use core::fmt;

use crate::cpu::Cpus;
use crate::error::{AllocError, FreeError};
use crate::frame::{Frame, FrameRange, NumberRange};
use crate::hardened::Owner;
use crate::pool::FramePool;

impl<C: Cpus> FramePool<C> {
    /// Takes a frame in somebody's name; as [`alloc`](Self::alloc) otherwise. A pool that is not
    /// hardened forgets the name.
    ///
    /// # Errors
    /// As [`FramePool::alloc`].
    pub fn alloc_tagged(&self, owner: Owner) -> Result<Frame, AllocError> {
        self.alloc_owned(owner)
    }
}

impl<C> FramePool<C> {
    /// From now on a frame is in this name.
    ///
    /// # Errors
    /// If the pool, being hardened, did not hand it out.
    pub fn tag(&self, frame: &Frame, owner: Owner) -> Result<(), FreeError> {
        self.tag_all(
            NumberRange::from_numbers(frame.number().get(), frame.number().get() + 1),
            owner,
        )
    }

    /// From now on these frames are in this name: a run, or a 2 MiB block as one.
    ///
    /// # Errors
    /// If the pool, being hardened, did not hand out one of them: the first such frame. Those
    /// before it have the name by then.
    pub fn tag_run(&self, frames: &FrameRange, owner: Owner) -> Result<(), FreeError> {
        self.tag_all(frames.numbers(), owner)
    }

    fn tag_all(&self, frames: NumberRange, owner: Owner) -> Result<(), FreeError> {
        self.hardened().map_or(Ok(()), |hardened| hardened.tag(frames, owner))
    }

    /// What is handed out, by runs that have one owner. A look at each frame's entry.
    pub fn held(&self) -> impl Iterator<Item = (NumberRange, Owner)> {
        self.hardened().into_iter().flat_map(|hardened| hardened.held())
    }

    /// Everybody who has frames, ascending, and how many. Costs a look at each frame's entry, and
    /// one more for each owner.
    pub fn owners(&self) -> impl Iterator<Item = (Owner, u64)> {
        let mut next = Some(Owner::UNNAMED);
        core::iter::from_fn(move || {
            let from = next?;
            let owner = self.held().map(|(_, owner)| owner).filter(|owner| *owner >= from).min()?;
            next = owner.get().checked_add(1).map(Owner::new);
            let theirs = self.held().filter(|(_, whose)| *whose == owner);
            Some((owner, theirs.map(|(frames, _)| frames.len()).sum()))
        })
    }

    /// What is handed out, a line for each owner: how many frames, in how many runs, and where the
    /// first one lies. After all should have been freed, that is a list of leaks.
    pub fn leaks(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            for (owner, frames) in self.owners() {
                let mut runs = self.held().filter(|(_, whose)| *whose == owner).map(|(run, _)| run);
                let first = runs.next();
                let count = runs.count() + 1;
                write!(f, "{owner}: {frames} frames in {count} runs")?;
                match first {
                    Some(run) => writeln!(f, ", the first {run:?}")?,
                    None => writeln!(f)?,
                }
            }
            Ok(())
        })
    }

    /// How many frames allocations have found wrong: they are nobody's until the next boot.
    pub fn set_aside(&self) -> u64 {
        self.hardened().map_or(0, |hardened| hardened.aside())
    }
}
