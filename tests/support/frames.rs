//! A set of frames: the naive allocator that the tests compare with.

use std::collections::BTreeMap;

use super::asked::Asked;

/// Frames of a group: what a word of the tree, and a side of a cache, holds.
pub const GROUP: u64 = 64;

/// A set of frames: for each group of 64 that has any, one bit each.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Frames(pub BTreeMap<u64, u64>);

impl Frames {
    pub fn of(regions: &[(u64, u64)]) -> Self {
        let mut frames = Self::default();
        for &(start, count) in regions {
            frames.insert_range(start, count);
        }
        frames
    }

    pub fn group(&self, group: u64) -> u64 {
        self.0.get(&group).copied().unwrap_or(0)
    }

    pub fn contains(&self, frame: u64) -> bool {
        self.group(frame / GROUP) >> (frame % GROUP) & 1 != 0
    }

    pub fn insert(&mut self, group: u64, bits: u64) {
        if bits != 0 {
            let word = self.0.entry(group).or_default();
            assert_eq!(*word & bits, 0, "put twice into group {group:#x}");
            *word |= bits;
        }
    }

    pub fn remove(&mut self, group: u64, bits: u64) {
        let left = self.group(group) & !bits;
        assert_eq!(self.group(group) & bits, bits, "taken twice from group {group:#x}");
        if left == 0 {
            self.0.remove(&group)
        } else {
            self.0.insert(group, left)
        };
    }

    /// Takes those of `bits` out that are there.
    pub fn forget(&mut self, group: u64, bits: u64) -> u64 {
        let there = self.group(group) & bits;
        self.remove(group, there);
        there
    }

    pub fn insert_range(&mut self, start: u64, count: u64) {
        pieces(start, count).for_each(|(group, bits)| self.insert(group, bits));
    }

    pub fn remove_range(&mut self, start: u64, count: u64) {
        pieces(start, count).for_each(|(group, bits)| self.remove(group, bits));
    }

    /// Takes those of a range out that are there.
    pub fn forget_range(&mut self, start: u64, count: u64) {
        pieces(start, count).for_each(|(group, bits)| _ = self.forget(group, bits));
    }

    /// How many frames of a range are there.
    pub fn count_in(&self, start: u64, count: u64) -> u64 {
        let groups = self.0.range(start / GROUP..(start + count) / GROUP);
        groups.map(|(_, bits)| u64::from(bits.count_ones())).sum()
    }

    /// What is there of a range, which need not consist of whole groups.
    fn there(&self, start: u64, count: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = start + count;
        self.0.range(start / GROUP..end.div_ceil(GROUP)).map(move |(group, bits)| {
            let (from, to) = (start.max(group * GROUP), end.min((group + 1) * GROUP));
            (
                *group,
                bits & (u64::MAX.checked_shr((GROUP - (to - from)) as u32).unwrap_or(0)
                    << (from % GROUP)),
            )
        })
    }

    pub fn count_of(&self, start: u64, count: u64) -> u64 {
        self.there(start, count).map(|(_, bits)| u64::from(bits.count_ones())).sum()
    }

    /// The lowest of a range that is there.
    pub fn first_of(&self, start: u64, count: u64) -> Option<u64> {
        let (group, bits) = self.there(start, count).find(|(_, bits)| *bits != 0)?;
        Some(group * GROUP + u64::from(bits.trailing_zeros()))
    }

    pub fn count(&self) -> u64 {
        self.0.values().map(|bits| u64::from(bits.count_ones())).sum()
    }

    pub fn first(&self) -> Option<u64> {
        self.0.iter().next().map(|(group, bits)| group * GROUP + u64::from(bits.trailing_zeros()))
    }

    pub fn nth(&self, mut n: u64) -> Option<u64> {
        for (group, bits) in &self.0 {
            let here = u64::from(bits.count_ones());
            if n < here {
                let bit = (0..GROUP).filter(|bit| bits >> bit & 1 != 0).nth(n as usize)?;
                return Some(group * GROUP + bit);
            }
            n -= here;
        }
        None
    }

    /// The aligned runs of `size` frames that are there in full, ascending.
    pub fn whole(&self, size: u64) -> impl Iterator<Item = u64> + '_ {
        let starts = self.0.keys().map(|group| group * GROUP);
        starts.filter(move |start| {
            start.is_multiple_of(size)
                && self.group(start / GROUP) == u64::MAX
                && self.count_in(*start, size) == size
        })
    }

    /// How many follow each other at most.
    pub fn longest(&self) -> u64 {
        let (mut longest, mut run, mut next) = (0, 0, 0);
        for (group, bits) in &self.0 {
            if *group != next {
                run = 0;
            }
            next = group + 1;
            for bit in 0..GROUP {
                run = if bits >> bit & 1 != 0 { run + 1 } else { 0 };
                longest = longest.max(run);
            }
        }
        longest
    }

    /// Whether all of a range are there.
    pub fn contains_all(&self, start: u64, count: u64) -> bool {
        pieces(start, count).all(|(group, bits)| self.group(group) & bits == bits)
    }

    /// The lowest number of a range that is not there.
    pub fn first_missing(&self, start: u64, count: u64) -> Option<u64> {
        pieces(start, count).find_map(|(group, bits)| {
            let missing = bits & !self.group(group);
            (missing != 0).then(|| group * GROUP + u64::from(missing.trailing_zeros()))
        })
    }

    /// How many follow each other from this one on.
    pub fn run_from(&self, start: u64) -> u64 {
        let mut at = start;
        loop {
            let run = u64::from((!(self.group(at / GROUP) >> (at % GROUP))).trailing_zeros());
            let run = run.min(GROUP - at % GROUP);
            at += run;
            if run == 0 || !at.is_multiple_of(GROUP) {
                return at - start;
            }
        }
    }

    /// The stretches of frames that follow each other, ascending: first frame, and how many.
    pub fn stretches(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (group, bits) = self.0.range(at / GROUP..).find_map(|(group, bits)| {
                let behind = if *group == at / GROUP { u64::MAX << (at % GROUP) } else { u64::MAX };
                (bits & behind != 0).then_some((*group, bits & behind))
            })?;
            let start = group * GROUP + u64::from(bits.trailing_zeros());
            let count = self.run_from(start);
            at = start + count;
            Some((start, count))
        })
    }

    /// The lowest run that is what is asked for.
    pub fn first_run(&self, asked: Asked) -> Option<u64> {
        let fitting = |(start, frames): (u64, u64)| {
            let places = (frames + 1).saturating_sub(asked.count);
            (start..start + places).find(|begin| asked.allows(*begin))
        };
        self.stretches().find_map(fitting)
    }
}

/// Cuts a range of frames into groups and bits.
pub fn pieces(start: u64, count: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = start + count;
    let groups = if count == 0 { 0..0 } else { start / GROUP..end.div_ceil(GROUP) };
    groups.map(move |group| {
        let (from, to) = (start.max(group * GROUP), end.min((group + 1) * GROUP));
        (group, u64::MAX >> (GROUP - (to - from)) << (from % GROUP))
    })
}
