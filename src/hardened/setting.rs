//! What is asked of a hardened pool, and what it tells: the words for it.

use core::fmt;

use crate::frame::FrameNumber;

/// Who has a frame, by a number of the caller's choice: a subsystem, a driver, a process.
///
/// # Examples
/// Names of a kernel's subsystems, one number each:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/hard.rs")); }
/// # use frametree::*;
/// const NET: Owner = Owner::new(1);
/// const DISK: Owner = Owner::new(2);
/// let pool = example::hardened();
/// let buffer = pool.alloc_tagged(NET)?;
/// pool.tag(&buffer, DISK)?; // handed on
/// assert_eq!(pool.owners().next(), Some((DISK, 1)));
/// # pool.free(buffer)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct Owner(u16);

impl Owner {
    /// Of frames that were taken without a name.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/hard.rs")); }
    /// # use frametree::*;
    /// let pool = example::hardened();
    /// let frame = pool.alloc()?; // nobody said for whom
    /// assert_eq!(pool.owners().next(), Some((Owner::UNNAMED, 1)));
    /// # pool.free(frame)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const UNNAMED: Self = Self(0);

    /// The owner with this number.
    ///
    /// # Examples
    /// The number of a process as the owner of its pages:
    ///
    /// ```
    /// # use frametree::Owner;
    /// let owner = |process: u16| Owner::new(0x8000 | process); // below are the kernel's own
    /// assert_eq!(owner(7).to_string(), "owner 32775");
    /// ```
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number.
    ///
    /// # Examples
    /// To print more than the number:
    ///
    /// ```
    /// # use frametree::Owner;
    /// const NAMES: [&str; 3] = ["nobody in particular", "network", "disk"];
    /// let name = |owner: Owner| NAMES.get(usize::from(owner.get())).copied();
    /// assert_eq!(name(Owner::new(1)), Some("network"));
    /// ```
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::UNNAMED { f.write_str("unnamed") } else { write!(f, "owner {}", self.0) }
    }
}

/// What an allocation found wrong with a frame that it was about to hand out. The frame is set
/// aside: nobody gets it until the next boot, and the allocation takes another.
///
/// # Examples
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// use std::sync::Mutex;
/// static LAST: Mutex<Option<Violation>> = Mutex::new(None);
///
/// let report = |violation| *LAST.lock().unwrap() = Some(violation); // or print it
/// // SAFETY: there is memory behind all frames of the example.
/// let how = unsafe { Hardening::new(report).poisoned_through(example::direct_map) };
/// let pool = example::pool(Setup::new(1).hardened(how));
/// let frame = pool.alloc_tagged(Owner::new(7))?;
/// let dangling = example::direct_map(frame.start_address());
/// pool.free(frame)?;
/// // SAFETY: it is mapped. That the frame was freed is the bug that is to be found.
/// unsafe { dangling.add(64).write(1) };
/// let next = pool.alloc()?; // another one: the frame is set aside
/// let found = LAST.lock().unwrap().take();
/// assert!(matches!(
///     found,
///     Some(Violation::WrittenAfterFree { offset: 64, last, .. }) if last == Owner::new(7)
/// ));
/// # pool.free(next)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Violation {
    /// Somebody has written to it while it was free.
    WrittenAfterFree {
        /// The frame.
        frame: FrameNumber,
        /// The first byte of the first word that was written, from the frame's start.
        offset: usize,
        /// What that word holds.
        found: u64,
        /// Who had the frame last.
        last: Owner,
    },
    /// Somebody has it already: two CPUs were in one cache at once, or the metadata was written
    /// over.
    HandedOutTwice {
        /// The frame.
        frame: FrameNumber,
        /// Who has it.
        owner: Owner,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrittenAfterFree { frame, offset, found, last } => write!(
                f,
                "use after free: {frame}, which {last} had last, holds {found:#018x} at {offset:#x}"
            ),
            Self::HandedOutTwice { frame, owner } => {
                write!(f, "handed out twice: {frame}, which {owner} has")
            }
        }
    }
}

/// What a hardened pool does; see [`Setup::hardened`](crate::Setup::hardened).
///
/// # Examples
/// A kernel under test, with all that there is:
///
/// ```
/// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
/// # use frametree::*;
/// fn report(violation: Violation) {
///     println!("{violation}"); // and stop, or count it
/// }
/// let random = 0x9e37_79b9_7f4a_7c15; // of `rdrand`
/// let how = Hardening::new(report).placed_by(random);
/// // SAFETY: all memory of the pool is mapped there.
/// let how = unsafe { how.poisoned_through(example::direct_map) };
/// let pool = example::pool(Setup::new(1).hardened(how));
/// # let frame = pool.alloc()?;
/// # pool.free(frame)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Hardening {
    pub(super) report: fn(Violation),
    pub(super) seed: Option<u64>,
    pub(super) mapped: Option<fn(u64) -> *mut u8>,
}

impl Hardening {
    /// Who has each frame is known; what allocations find wrong is told to `report`.
    ///
    /// It is called inside the allocation, outside of [`Cpus::with_current`](crate::Cpus): it may
    /// use the pool, and it may panic.
    ///
    /// # Examples
    /// The ledger alone: it finds every double free.
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let how = Hardening::new(|violation| panic!("{violation}"));
    /// let pool = example::pool(Setup::new(1).hardened(how));
    /// let frame = pool.alloc()?;
    /// let number = frame.number();
    /// pool.free(frame)?;
    /// // SAFETY: nobody uses the frame. That it is free already is the bug that is to be found.
    /// let error = pool.free(unsafe { Frame::from_number(number) }).unwrap_err();
    /// assert_eq!(error.found, Found::NotHandedOut);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn new(report: fn(Violation)) -> Self {
        Self { report, seed: None, mapped: None }
    }

    /// Single frames come from places that follow from this seed: numbers that are hard to
    /// guess, not a cipher. Each then costs a search for a run; large frames become rarer only
    /// slowly, a block for each CPU at a time.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let how = Hardening::new(|violation| panic!("{violation}")).placed_by(0x5eed);
    /// let pool = example::pool(Setup::new(1).hardened(how));
    /// let [one, two] = [pool.alloc()?, pool.alloc()?];
    /// assert_ne!(one.number().get() + 1, two.number().get()); // no neighbours to run over into
    /// # pool.free(one)?;
    /// # pool.free(two)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn placed_by(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Freed frames are filled, and looked at when they are handed out again: 4 KiB to write and
    /// to read for each frame, a GiB for a GiB.
    ///
    /// # Safety
    /// For the physical address of every frame that the pool manages or will manage, `to_virtual`
    /// returns a pointer, aligned to 8, that is valid for reads and writes of the frame's 4096
    /// bytes, for as long as the pool is in use, with provenance over them.
    ///
    /// # Examples
    /// With a direct map, as most kernels have one:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// # use example::direct_map;
    /// let how = Hardening::new(|violation| panic!("{violation}"));
    /// // SAFETY: `direct_map` maps all memory of the pool, and is never undone.
    /// let how = unsafe { how.poisoned_through(direct_map) };
    /// let pool = example::pool(Setup::new(1).hardened(how));
    /// let frame = pool.alloc()?;
    /// let bytes = direct_map(frame.start_address());
    /// // SAFETY: the frame is ours and mapped.
    /// unsafe { bytes.write_bytes(0xaa, 4096) };
    /// pool.free(frame)?;
    /// // SAFETY: it is mapped, and only looked at.
    /// assert_ne!(unsafe { bytes.read() }, 0xaa); // what it held is gone
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const unsafe fn poisoned_through(self, to_virtual: fn(u64) -> *mut u8) -> Self {
        Self { mapped: Some(to_virtual), ..self }
    }
}
