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
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/hard.rs")); }
    /// # use frametree::*;
    /// const DISK: Owner = Owner::new(2);
    /// let pool = example::hardened();
    /// let buffer = pool.alloc_tagged(DISK)?;
    /// assert_eq!(pool.held().next(), Some((NumberRange::from_numbers(0, 1), DISK)));
    /// # pool.free(buffer)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_tagged(&self, owner: Owner) -> Result<Frame, AllocError> {
        self.alloc_owned(owner)
    }
}

impl<C> FramePool<C> {
    /// From now on a frame is in this name.
    ///
    /// # Errors
    /// If the pool, being hardened, did not hand it out.
    ///
    /// # Examples
    /// A page that was read ahead goes to the process that asks for it:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/hard.rs")); }
    /// # use frametree::*;
    /// let pool = example::hardened();
    /// # let [files, process] = [1, 2].map(Owner::new);
    /// let page = pool.alloc_tagged(files)?;
    /// pool.tag(&page, process)?;
    /// assert_eq!(pool.owners().next(), Some((process, 1)));
    /// # pool.free(page)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/hard.rs")); }
    /// # use frametree::*;
    /// let pool = example::hardened();
    /// const NET: Owner = Owner::new(1);
    /// let ring = pool.alloc_run(&Request::new(16))?;
    /// pool.tag_run(&ring, NET)?;
    /// assert_eq!(pool.owners().next(), Some((NET, 16)));
    /// # pool.free_run(ring)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tag_run(&self, frames: &FrameRange, owner: Owner) -> Result<(), FreeError> {
        self.tag_all(frames.numbers(), owner)
    }

    fn tag_all(&self, frames: NumberRange, owner: Owner) -> Result<(), FreeError> {
        self.hardened().map_or(Ok(()), |hardened| hardened.tag(frames, owner))
    }

    /// What is handed out, by runs that have one owner. A look at each frame's entry.
    ///
    /// # Examples
    /// Whom a frame belongs to that something has written over:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/hard.rs")); }
    /// # use frametree::*;
    /// let pool = example::hardened();
    /// # let ring = pool.alloc_run(&Request::new(16))?;
    /// # pool.tag_run(&ring, Owner::new(1))?;
    /// let frame = FrameNumber::containing(0x5678).expect("an address below 2^52");
    /// let whose = pool.held().find(|(frames, _)| frames.contains(frame)).map(|(_, owner)| owner);
    /// assert_eq!(whose, Some(Owner::new(1)));
    /// # pool.free_run(ring)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn held(&self) -> impl Iterator<Item = (NumberRange, Owner)> {
        self.hardened().into_iter().flat_map(|hardened| hardened.held())
    }

    /// Everybody who has frames, ascending, and how many. Costs a look at each frame's entry, and
    /// one more for each owner.
    ///
    /// # Examples
    /// Who has most, when memory is low:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/hard.rs")); }
    /// # use frametree::*;
    /// let pool = example::hardened();
    /// # let ring = pool.alloc_run(&Request::new(16))?;
    /// # pool.tag_run(&ring, Owner::new(1))?;
    /// # let page = pool.alloc_tagged(Owner::new(2))?;
    /// let most = pool.owners().max_by_key(|(_, frames)| *frames);
    /// assert_eq!(most, Some((Owner::new(1), 16)));
    /// # pool.free_run(ring)?;
    /// # pool.free(page)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// # Examples
    /// A driver's frames after it was unloaded:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/hard.rs")); }
    /// # use frametree::*;
    /// let pool = example::hardened();
    /// let _ = pool.alloc_tagged(Owner::new(7))?.into_number(); // into a table, and forgotten
    /// let leaks = "owner 7: 1 frames in 1 runs, the first frames 0x0..0x1\n";
    /// assert_eq!(pool.leaks().to_string(), leaks);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// # let report = |violation: Violation| println!("{violation}");
    /// // SAFETY: there is memory behind all frames of the example.
    /// let how = unsafe { Hardening::new(report).poisoned_through(example::direct_map) };
    /// let pool = example::pool(Setup::new(1).hardened(how));
    /// let dangling = pool.alloc()?.into_number();
    /// // SAFETY: `into_number` has given up this frame.
    /// pool.free(unsafe { Frame::from_number(dangling) })?;
    /// // SAFETY: it is mapped. That the frame was freed is the bug that is to be found.
    /// unsafe { example::direct_map(dangling.start_address()).write(1) };
    /// let next = pool.alloc()?;
    /// assert_eq!(pool.set_aside(), 1); // worth a line in the log, now and again
    /// # pool.free(next)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_aside(&self) -> u64 {
        self.hardened().map_or(0, |hardened| hardened.aside())
    }
}
