//! Finding contiguous frames: the lowest run that meets a request, across words, blocks and GiBs.
//!
//! A walk ([`super::walk`]) shows every stretch of free frames in ascending order. Stretches that
//! touch are one to the seeker, which knows for the stretch at hand where a run could begin at the
//! lowest, and is done when the stretch reaches far enough. Then the run is claimed, exactly as it
//! was found ([`super::claim`]); if another CPU was faster at some part of it, the search begins
//! anew.
//!
//! What could be had instead of a run that is not there is found by the same walk, once.

use super::FrameTree;
use super::walk::Visit;
use crate::bounds::ANY;
use crate::error::{AllocError, FreeError, NoRun, OutOfMemory};
use crate::frame::{FrameNumber, FrameRange, NumberRange};
use crate::geometry::FRAME_SIZE;
use crate::journal::{Counter, Writer};
use crate::request::{Request, Rule};

/// What the contents of a run should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    /// Whatever they are.
    Any,
    /// Zero: what is known of them stays on record, until who has got them asks for it by
    /// [`FrameTree::take_contents`]. That may be long after: nobody else writes it meanwhile.
    Zero,
}

/// Whether somebody has just looked for a run, so that one more look without evidence is in vain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Looked {
    /// Nobody has.
    Never,
    /// This CPU has, everywhere.
    InVain,
}

/// A search on its way over the stretches.
#[derive(Debug)]
struct Seeker {
    rule: Rule,
    /// Where a run could begin in the stretch at hand.
    begin: u64,
    /// The frame behind that stretch.
    end: u64,
    /// The frames of a word at which a run may begin.
    begins: u64,
}

impl Seeker {
    fn new(rule: Rule) -> Self {
        Self { rule, begin: 0, end: u64::MAX, begins: rule.begins_in_a_word() }
    }

    #[inline(always)]
    fn extend(&mut self, start: u64, frames: u64) {
        if start != self.end {
            self.begin = self.rule.lowest_begin(start);
        }
        self.end = start + frames;
    }
}

impl Visit for Seeker {
    #[inline(always)]
    fn see(&mut self, start: u64, frames: u64) -> Option<u64> {
        self.extend(start, frames);
        let behind = self.begin + self.rule.count;
        (behind <= self.end && behind <= self.rule.end).then_some(self.begin)
    }

    #[inline(always)]
    fn least(&self) -> u64 {
        self.rule.count
    }

    #[inline(always)]
    fn goes_on_at(&self, frame: u64) -> bool {
        self.end == frame
    }

    #[inline(always)]
    fn begins(&self) -> u64 {
        self.begins
    }

    #[inline(always)]
    fn in_vain(&self) -> u64 {
        // A run that is long enough may lie where it does not suit.
        if self.rule.is_loose() { self.rule.count } else { ANY }
    }
}

/// A look for the longest run that keeps a rule apart from its count.
#[derive(Debug)]
struct Surveyor {
    seeker: Seeker,
    longest: u64,
}

impl Visit for Surveyor {
    fn see(&mut self, start: u64, frames: u64) -> Option<u64> {
        let Seeker { rule, .. } = self.seeker;
        self.seeker.extend(start, frames);
        let Seeker { mut begin, end, .. } = self.seeker;
        // At most the rest of one boundary, a whole one, and what follows.
        for _ in 0..3 {
            let latest = rule.latest_end(begin).min(end);
            self.longest = self.longest.max(latest.saturating_sub(begin));
            if latest == end {
                break;
            }
            begin = rule.lowest_begin(latest);
        }
        None
    }

    fn least(&self) -> u64 {
        self.longest + 1
    }

    fn goes_on_at(&self, frame: u64) -> bool {
        self.seeker.end == frame
    }

    fn begins(&self) -> u64 {
        self.seeker.begins
    }

    fn in_vain(&self) -> u64 {
        if self.seeker.rule.is_loose() { self.least() } else { ANY }
    }
}

impl<'m> FrameTree<'m> {
    /// Takes the lowest run of contiguous frames that meets the request: exactly as many as it
    /// asks for, found whenever there is one at rest.
    ///
    /// One read-modify-write for each word of 64 frames that the run touches, and one for each
    /// 2 MiB block and each GiB that it contains as a whole.
    ///
    /// # Errors
    /// [`AllocError::Request`] if the request makes no sense; [`AllocError::InTheWay`] if it names
    /// its frames and one is not free; else [`AllocError::NoRun`], as exact as
    /// [`FrameTree::alloc`].
    ///
    /// # Examples
    /// A kernel's boot processor sets up a device, before CPUs have numbers:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let ring = tree.alloc_run(&Request::new(16).below(4 << 30).not_crossing(64 << 10))?;
    /// assert_eq!(ring.len(), 16);
    /// # tree.free_run(ring)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_run(&self, request: &Request) -> Result<FrameRange, AllocError> {
        self.alloc_run_with(self.shared_writer(), request, Wanted::Any)
    }

    /// The same, and shows those of the frames to `clear` that are not known to be zero, stretch
    /// by stretch.
    ///
    /// # Errors
    /// As [`FrameTree::alloc_run`].
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let clear = |dirty: NumberRange| {
    ///     let bytes = (dirty.len() * FRAME_SIZE) as usize;
    ///     // SAFETY: the frames are ours, and mapped side by side.
    ///     unsafe { example::direct_map(dirty.start().start_address()).write_bytes(0, bytes) };
    /// };
    /// let tables = tree.alloc_run_zeroed(&Request::new(3), clear)?;
    /// # tree.free_run(tables)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc_run_zeroed(
        &self,
        request: &Request,
        clear: impl FnMut(NumberRange),
    ) -> Result<FrameRange, AllocError> {
        let run = self.alloc_run_with(self.shared_writer(), request, Wanted::Zero)?;
        self.take_contents(run.numbers(), clear);
        Ok(run)
    }

    /// Gives contiguous frames back: a run, a part of one, or neighbours from several
    /// allocations.
    ///
    /// # Errors
    /// If one of them is free already or was never managed; then nothing was freed, and the error
    /// names the lowest such frame.
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/tree.rs")); }
    /// # use frametree::*;
    /// let tree = example::tree();
    /// let (used, unused) = tree.alloc_run(&Request::new(16))?.split_at(9);
    /// tree.free_run(unused)?; // the file was shorter than its buffer
    /// # tree.free_run(used)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn free_run(&self, run: FrameRange) -> Result<(), FreeError> {
        self.free_run_with(self.shared_writer(), run.into_numbers())
    }

    /// [`FrameTree::alloc_run`], in this writer's journal.
    pub(crate) fn alloc_run_with(
        &self,
        writer: Writer<'_>,
        request: &Request,
        contents: Wanted,
    ) -> Result<FrameRange, AllocError> {
        request.check().map_err(AllocError::Request)?;
        let run = self.take_run(writer, request, contents, Looked::Never);
        run.map_err(|OutOfMemory| self.why_no_run(writer, request))
    }

    /// The same for a request that makes sense, without a look at what is there instead.
    pub(crate) fn take_run(
        &self,
        writer: Writer<'_>,
        request: &Request,
        contents: Wanted,
        looked: Looked,
    ) -> Result<FrameRange, OutOfMemory> {
        let run = self.prove_after(writer, looked, || self.search_run(writer, request))?;
        if contents == Wanted::Any {
            self.take_contents(run, |_| ());
        }
        Ok(FrameRange::owned(run))
    }

    /// Looks whether there is a run that meets the request.
    ///
    /// # Errors
    /// As [`FrameTree::alloc_run`], on the same evidence.
    pub(crate) fn look_for_run(
        &self,
        writer: Writer<'_>,
        request: &Request,
        looked: Looked,
    ) -> Result<(), OutOfMemory> {
        let rule = request.rule();
        let look = || self.walk(writer, &rule, &mut Seeker::new(rule));
        self.prove_after(writer, looked, look).map(|_| ())
    }

    #[inline]
    fn prove_after<T>(
        &self,
        writer: Writer<'_>,
        looked: Looked,
        search: impl Fn() -> Option<T>,
    ) -> Result<T, OutOfMemory> {
        match looked {
            Looked::Never => self.prove(writer, search),
            Looked::InVain => self.prove_by_looks(writer, search),
        }
    }

    /// The lowest run, claimed.
    fn search_run(&self, writer: Writer<'_>, request: &Request) -> Option<NumberRange> {
        let above = self.above_low(|end| {
            let above = request.above(end * FRAME_SIZE);
            let is_free = !request.is_limited() && above.check().is_ok();
            is_free.then(|| self.search_by(writer, &above.rule())).flatten()
        });
        above.or_else(|| self.search_by(writer, &request.rule()))
    }

    /// The lowest run by this rule, claimed.
    pub(super) fn search_by(&self, writer: Writer<'_>, rule: &Rule) -> Option<NumberRange> {
        loop {
            let begin = self.walk(writer, rule, &mut Seeker::new(*rule))?;
            let count = rule.count;
            let [start, end] = [begin, begin + count].map(FrameNumber::trusted);
            let run = NumberRange::trusted(start, end);
            if self.claim(writer, run).is_err() {
                continue;
            }
            if self.admits_run(writer, run) {
                return Some(run);
            }
        }
    }

    /// Whether a run that was just taken may be handed out; if not, none of it is taken any more.
    #[inline(always)]
    pub(super) fn admits_run(&self, writer: Writer<'_>, run: NumberRange) -> bool {
        let is_admitted = self.admits(writer, run);
        if !is_admitted {
            writer.add(Counter::Returned, run.len());
        }
        is_admitted
    }

    /// What to say of a request for which nothing was found.
    #[cold]
    #[inline(never)]
    pub(crate) fn why_no_run(&self, writer: Writer<'_>, request: &Request) -> AllocError {
        if let Some(run) = request.exactly()
            && let Some((frame, why)) = self.first_in_the_way(run)
        {
            return AllocError::InTheWay { frame, why };
        }
        let longest = self.survey(writer, request.with_count(1).rule());
        let free = self.free_frames();
        AllocError::NoRun(NoRun { request: *request, free, longest, cached: 0 })
    }

    /// The longest run that is free, a look.
    #[cold]
    pub(crate) fn longest_run(&self, writer: Writer<'_>) -> u64 {
        self.survey(writer, Request::new(1).rule())
    }

    /// The longest that keeps a rule apart from its count.
    fn survey(&self, writer: Writer<'_>, rule: Rule) -> u64 {
        let mut surveyor = Surveyor { seeker: Seeker::new(rule), longest: 0 };
        self.walk(writer, &rule, &mut surveyor);
        surveyor.longest
    }
}
