//! The model of cache coherence: what an access costs, and which lines move.
//!
//! A line is in the caches of some CPUs, or one has it to write. Whoever has it pays what a hit
//! costs; anybody else waits until it has come from the nearest CPU that has it (a read) or until
//! the farthest has given it up (a write), one after the other. Stores wait in a buffer: the CPU goes
//! on, the line is busy. Caches are endless, CPUs of a core do not slow each other down, and the
//! neighbour line is not fetched along: what is modelled is sharing, and nothing else.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::Location;

use frametree::observed::Access;

/// Most CPUs that are simulated.
pub const MOST: usize = 512;

/// What things cost, in picoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    pub name: &'static str,
    pub load: u64,
    pub store: u64,
    pub read_modify_write: u64,
    /// Instructions between two accesses.
    pub work: u64,
    pub pause: u64,
    /// A line that no cache has.
    pub memory: u64,
    /// A line of a CPU of the same cluster, of the same socket, of another.
    pub near: u64,
    pub far: u64,
    pub remote: u64,
    /// CPUs that share a last-level cache, and CPUs of a socket.
    pub cluster: usize,
    pub socket: usize,
}

impl Machine {
    fn distance(&self, one: usize, other: usize) -> u64 {
        if one / self.cluster == other / self.cluster {
            self.near
        } else if one / self.socket == other / self.socket {
            self.far
        } else {
            self.remote
        }
    }
}

/// A set of CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Cpus([u64; MOST / 64]);

impl Cpus {
    fn only(cpu: usize) -> Self {
        let mut cpus = Self::default();
        cpus.add(cpu);
        cpus
    }
    fn add(&mut self, cpu: usize) {
        self.0[cpu / 64] |= 1 << (cpu % 64);
    }
    fn has(&self, cpu: usize) -> bool {
        self.0[cpu / 64] >> (cpu % 64) & 1 != 0
    }
    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let bits = |word: u64| (0..64).filter(move |bit| word >> bit & 1 != 0);
        let words = self.0.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(move |(at, word)| bits(*word).map(move |bit| at * 64 + bit))
    }
}

/// A cache line.
struct Line {
    /// In whose caches it is; one of them, if it was written.
    holders: Cpus,
    last: usize,
    is_shared: bool,
    free_at: u64,
    transfers: u64,
    sites: Vec<(&'static Location<'static>, u64)>,
}

/// Addresses of lines are all that is hashed.
#[derive(Default)]
pub struct ByLine(u64);

impl Hasher for ByLine {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("lines are numbers");
    }
    fn write_usize(&mut self, line: usize) {
        self.0 = (line as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

/// All lines.
pub struct Caches {
    machine: Machine,
    lines: HashMap<usize, Line, BuildHasherDefault<ByLine>>,
    pub transfers: u64,
}

/// A line that moved often, and the places in the source that moved it.
pub struct Hot {
    pub transfers: u64,
    pub sites: Vec<(String, u64)>,
}

impl Caches {
    pub fn new(machine: Machine) -> Self {
        Self { machine, lines: HashMap::default(), transfers: 0 }
    }

    /// Whether more than one CPU has ever had a line, or another one than this.
    pub fn is_shared(&self, cpu: usize, address: usize) -> bool {
        let line = self.lines.get(&(address / 64));
        line.is_some_and(|line| line.is_shared || line.last != cpu)
    }

    /// Makes an access at a time; returns when the CPU goes on.
    pub fn access(
        &mut self,
        cpu: usize,
        now: u64,
        (address, access): (usize, Access),
        site: &'static Location<'static>,
    ) -> u64 {
        let machine = self.machine;
        let hit = match access {
            Access::Load => machine.load,
            Access::Store => machine.store,
            Access::ReadModifyWrite => machine.read_modify_write,
            Access::Pause => return now + machine.pause,
        } + machine.work;
        let line = self.lines.entry(address / 64).or_insert_with(|| Line {
            holders: Cpus::default(),
            last: cpu,
            is_shared: false,
            free_at: 0,
            transfers: 0,
            sites: Vec::new(),
        });
        let others = line.holders.iter().filter(|other| *other != cpu);
        let wait = match access {
            Access::Load if line.holders.has(cpu) => return now + hit,
            Access::Load => others.map(|other| machine.distance(cpu, other)).min(),
            _ => others.map(|other| machine.distance(cpu, other)).max(),
        };
        let is_cold = line.holders == Cpus::default();
        if access == Access::Load {
            line.holders.add(cpu);
        } else {
            line.holders = Cpus::only(cpu);
        }
        line.is_shared |= line.last != cpu;
        line.last = cpu;
        let Some(wait) = wait else {
            return now + hit + if is_cold { machine.memory } else { 0 };
        };
        self.transfers += 1;
        line.transfers += 1;
        match line.sites.iter_mut().find(|(known, _)| *known == site) {
            Some((_, count)) => *count += 1,
            None => line.sites.push((site, 1)),
        }
        let there = now.max(line.free_at) + wait;
        line.free_at = there;
        if access == Access::Store { now + hit } else { there + hit }
    }

    /// From here on it counts.
    pub fn reset(&mut self) {
        self.transfers = 0;
        for line in self.lines.values_mut() {
            (line.transfers, line.free_at) = (0, 0);
            line.sites.clear();
        }
    }

    /// The lines that moved most.
    pub fn hottest(&self, count: usize) -> Vec<Hot> {
        let mut lines: Vec<_> = self.lines.values().filter(|line| line.transfers > 0).collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.transfers));
        let hot = |line: &&Line| {
            let mut sites = line.sites.clone();
            sites.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let name = |(site, count): &(&Location<'_>, u64)| {
                (format!("{}:{}", site.file(), site.line()), *count)
            };
            Hot { transfers: line.transfers, sites: sites.iter().take(3).map(name).collect() }
        };
        lines.iter().take(count).map(hot).collect()
    }
}
