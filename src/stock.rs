//! What the directory is made of: how much of everything a range of frames needs, and the parts
//! themselves, cut from the metadata memory before they are in use.
//!
//! A part is whole before it is published. What is managed in full from its first day is left
//! unwritten below (see [`crate::root`]).

use core::ops::Range;
use core::slice::Iter;

use crate::arena::{Arena, Part, part};
use crate::frame::{FrameNumber, NumberRange};
use crate::geometry::{CLUSTER_FRAMES, FULL, GIANT_FRAMES, NODE_WORDS, SECTION_FRAMES};
use crate::node::Node;
use crate::root::{Cluster, Giant, Nodes, Section};
use crate::sync::Link;

/// Cuts a range at giant boundaries: the giant's number, and the frames of it.
pub fn pieces(range: NumberRange) -> impl Iterator<Item = (u64, NumberRange)> {
    let (start, end) = (range.start().get(), range.end().get());
    (start / GIANT_FRAMES..end.div_ceil(GIANT_FRAMES)).map(move |giant| {
        let first = start.max(giant * GIANT_FRAMES);
        let [first, end] = [first, end.min((giant + 1) * GIANT_FRAMES)].map(FrameNumber::trusted);
        (giant, NumberRange::trusted(first, end))
    })
}

/// The aligned stretches of `frames` frames that the ranges (ascending, disjoint) touch, by their
/// numbers: a run for each range, and no number twice.
fn touched(
    ranges: impl Iterator<Item = NumberRange>,
    frames: u64,
) -> impl Iterator<Item = Range<u64>> {
    let mut behind = 0;
    ranges.map(move |range| {
        let first = (range.start().get() / frames).max(behind);
        behind = range.end().get().div_ceil(frames);
        first..behind
    })
}

/// How many parts of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Size {
    pub clusters: usize,
    pub giants: usize,
    pub sections: usize,
}

/// Parts that are not in use yet.
#[derive(Debug)]
pub struct Stock<'m> {
    clusters: Part<'m, Cluster<'m>>,
    giants: Part<'m, Giant<'m>>,
    nodes: Iter<'m, Nodes>,
    sections: Iter<'m, Section>,
}

impl Size {
    /// For a directory of these ranges (ascending, disjoint): a few passes over them.
    pub fn of(ranges: impl Iterator<Item = NumberRange> + Clone) -> Self {
        let count = |frames| {
            touched(ranges.clone(), frames).map(|run| (run.end - run.start) as usize).sum()
        };
        Self {
            clusters: count(CLUSTER_FRAMES),
            giants: count(GIANT_FRAMES),
            sections: count(SECTION_FRAMES),
        }
    }

    /// Bytes that they take.
    pub const fn bytes(&self) -> usize {
        part::<Cluster<'_>>(self.clusters)
            + part::<Giant<'_>>(self.giants)
            + part::<Nodes>(self.giants)
            + part::<Section>(self.sections)
    }
}

impl<'m> Stock<'m> {
    /// So many parts.
    ///
    /// # Panics
    /// If the arena is smaller than they are.
    pub fn new(arena: &mut Arena<'m>, size: Size) -> Self {
        Self {
            clusters: arena.deal_part(size.clusters),
            giants: arena.deal_part(size.giants),
            nodes: arena.deal_unwritten(size.giants).iter(),
            sections: arena.deal_unwritten(size.sections).iter(),
        }
    }

    /// A cluster with nothing in it.
    ///
    /// # Panics
    /// If there is none left, as all of these.
    pub fn cluster(&mut self, number: u64) -> &'m Cluster<'m> {
        self.clusters.put(Cluster::new(number))
    }

    /// A giant of which all frames are managed, with its sections.
    pub fn whole_giant(&mut self, cluster: &'m Cluster<'m>, number: u64) -> &'m Giant<'m> {
        let sections = core::array::from_fn(|_| Link::to(self.section()));
        self.giant(cluster, number, sections, FULL)
    }

    /// A giant without sections, whose nodes are written.
    pub fn partial_giant(&mut self, cluster: &'m Cluster<'m>, number: u64) -> &'m Giant<'m> {
        let giant = self.giant(cluster, number, core::array::from_fn(|_| Link::empty()), 0);
        giant.write_nodes();
        giant
    }

    fn giant(
        &mut self,
        cluster: &'m Cluster<'m>,
        number: u64,
        sections: [Link<'m, Section>; NODE_WORDS],
        full: u64,
    ) -> &'m Giant<'m> {
        let nodes = self.nodes.next().expect("nodes for each giant");
        self.giants.put(Giant::new(cluster, number, nodes, sections, Node::new(full)))
    }

    /// A section that is not written.
    pub fn section(&mut self) -> &'m Section {
        self.sections.next().expect("as many sections as were counted")
    }
}
