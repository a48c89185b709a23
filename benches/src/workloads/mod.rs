//! What is measured, one family a file. A [`Work`] is what a thread does over and over; a [`Crew`]
//! is an allocator with one or two threads at such work. Workloads with a beginning and an end
//! (`all.rs`) and those of two parties (`cross.rs`) are contestants of their own.

pub mod all;
pub mod boot;
pub mod bursts;
pub mod churn;
pub mod cross;
pub mod limits;
pub mod mixed;
pub mod places;
pub mod replace;
pub mod runs;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::allocator::{Allocator, Refusal};
use crate::harness::{Contestant, Entry, Extra, Patience};
use crate::machine::{Sample, pin, read_modify_writes, timed};
use crate::support::Threads;

/// What a thread does over and over.
pub trait Work: Copy + Sync + 'static {
    /// What a thread keeps between blocks.
    type Mine: Send;

    /// Whether an allocator has the requests that it takes.
    fn is_possible<A: Allocator>(self) -> bool;
    /// Brings the allocator into the state that the work begins with; what each thread has then.
    fn prepare<A: Allocator>(
        self,
        allocator: &A,
        frames: u64,
        threads: usize,
        patience: Patience,
    ) -> Result<Vec<Self::Mine>, Refusal>;
    /// About `ops` operations; how many it were.
    fn run<A: Allocator>(self, allocator: &A, mine: &mut Self::Mine, ops: u64) -> u64;
    /// What else there is to say.
    fn extras(self, _: &[Self::Mine]) -> Vec<Extra> {
        Vec::new()
    }
}

/// An allocator, and the threads that are at it.
struct Crew<A, W: Work> {
    work: W,
    mine: Vec<W::Mine>,
    allocator: A,
}

impl<A: Allocator, W: Work> Contestant for Crew<A, W> {
    fn block(&mut self, ops: u64, _: Patience) -> Result<Sample, Refusal> {
        let (work, allocator) = (self.work, &self.allocator);
        Ok(match &mut self.mine[..] {
            [mine] => {
                work.run(allocator, mine, ops / 16);
                timed(|| work.run(allocator, mine, ops))
            }
            several => side_by_side(several, |mine| work.run(allocator, mine, ops)),
        })
    }

    fn extras(&mut self) -> Vec<Extra> {
        self.work.extras(&self.mine)
    }
}

/// Runs `work` on a thread for each of `mine`, each on a CPU of its own: the slowest one's time.
pub fn side_by_side<M: Send>(mine: &mut [M], work: impl Fn(&mut M) -> u64 + Sync) -> Sample {
    let (arrived, threads) = (AtomicUsize::new(0), mine.len());
    let member = |cpu: usize, mine: &mut M| {
        pin(cpu);
        Threads::become_cpu(cpu);
        arrived.fetch_add(1, Ordering::AcqRel);
        while arrived.load(Ordering::Acquire) < threads {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        let sample = timed(|| work(mine));
        (sample, start, Instant::now())
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let member = &member;
        let spawn = |(cpu, mine)| scope.spawn(move || member(cpu, mine));
        let spawned: Vec<_> = mine.iter_mut().enumerate().map(spawn).collect();
        spawned.into_iter().map(|thread| thread.join().expect("a thread's work")).collect()
    });
    let slowest = |field: fn(&Sample) -> f64| {
        results.iter().map(|(sample, ..)| field(sample)).fold(0.0, f64::max)
    };
    let starts = results.iter().map(|(_, start, _)| *start);
    let ends = results.iter().map(|(_, _, end)| *end);
    let all = ends.clone().max().zip(starts.clone().min());
    let common = ends.min().zip(starts.max());
    let length = |range: Option<(Instant, Instant)>| {
        range.map_or(0.0, |(end, start)| end.saturating_duration_since(start).as_secs_f64())
    };
    Sample {
        ops: results[0].0.ops,
        cpu: slowest(|sample| sample.cpu),
        wall: slowest(|sample| sample.wall),
        is_disturbed: results.iter().any(|(sample, ..)| sample.is_disturbed)
            || length(common) < 0.8 * length(all),
    }
}

/// How a crew is set up for each allocator.
pub struct CrewOf<W> {
    pub work: W,
    pub frames: u64,
    pub threads: usize,
    pub patience: std::time::Duration,
}

impl<W: Work> CrewOf<W> {
    pub fn visit<A: Allocator>(&self) -> Entry {
        Entry { name: A::NAME, contestant: self.crew::<A>() }
    }

    fn crew<A: Allocator>(&self) -> Result<Box<dyn Contestant>, Refusal> {
        if !self.work.is_possible::<A>() {
            return Err(Refusal::NoSuchRequest);
        }
        let patience = Patience::new(self.patience);
        let allocator = A::new(self.frames)?;
        Threads::become_cpu(0);
        let mine = self.work.prepare(&allocator, self.frames, self.threads, patience)?;
        Ok(Box::new(Crew { work: self.work, mine, allocator }))
    }
}

/// The floor of every row: one locked read-modify-write, on a line of the thread's own.
pub struct Floor(Vec<Line>);

/// A word alone in its pair of lines.
#[repr(align(128))]
struct Line(AtomicU64);

impl Floor {
    pub fn entry(threads: usize) -> Entry {
        let lines = (0..threads).map(|_| Line(AtomicU64::new(0))).collect();
        Entry { name: "floor: one locked RMW", contestant: Ok(Box::new(Self(lines))) }
    }
}

impl Contestant for Floor {
    fn block(&mut self, ops: u64, _: Patience) -> Result<Sample, Refusal> {
        Ok(match &mut self.0[..] {
            [line] => read_modify_writes(&line.0, ops),
            several => side_by_side(several, |line| read_modify_writes(&line.0, ops).ops),
        })
    }
}

/// The floor of contended rows: a locked read-modify-write on the one line that all want.
pub struct Contended {
    line: Line,
    threads: usize,
}

impl Contended {
    pub fn entry(threads: usize) -> Entry {
        let contestant = Self { line: Line(AtomicU64::new(0)), threads };
        Entry { name: "floor: one contended RMW", contestant: Ok(Box::new(contestant)) }
    }
}

impl Contestant for Contended {
    fn block(&mut self, ops: u64, _: Patience) -> Result<Sample, Refusal> {
        let line = &self.line.0;
        Ok(side_by_side(&mut vec![(); self.threads], |()| read_modify_writes(line, ops).ops))
    }
}

/// Takes single frames until there are no more, or `most`.
pub fn take_all<A: Allocator>(
    allocator: &A,
    most: u64,
    patience: Patience,
) -> Result<Vec<u32>, Refusal> {
    let mut held = Vec::with_capacity(most as usize);
    while (held.len() as u64) < most {
        if held.len().is_multiple_of(4096) {
            patience.check()?;
        }
        match allocator.alloc() {
            Some(frame) => held.push(frame as u32),
            None => break,
        }
    }
    Ok(held)
}

/// Gives frames back, the last one first.
pub fn give_back<A: Allocator>(
    allocator: &A,
    held: impl IntoIterator<Item = u32>,
    patience: Patience,
) -> Result<(), Refusal> {
    for (done, frame) in held.into_iter().enumerate() {
        if done.is_multiple_of(256) {
            patience.check()?;
        }
        allocator.free(frame.into());
    }
    Ok(())
}

/// A frame, when there must be one: some peers say "out of memory" now and then all the same.
#[inline(always)]
pub fn take_surely<A: Allocator>(allocator: &A) -> u64 {
    if let Some(frame) = allocator.alloc() {
        return frame;
    }
    take_at_last(allocator)
}

#[cold]
fn take_at_last<A: Allocator>(allocator: &A) -> u64 {
    let again = (0..1_000_000).find_map(|_| allocator.alloc());
    again.unwrap_or_else(|| panic!("{} has lost frames", A::NAME))
}
