//! The radix tree by physical address: [`Top`], [`Cluster`], [`Giant`], [`Section`], each of which
//! hangs from the one above by a [`Link`]. Which word is truth and which is a hint is said at
//! each.
//!
//! ```text
//! Top        the clusters that exist, ascending
//!  | Cluster   64 GiB: words of one bit for each giant, and 64 links, empty at holes
//!     | Giant    1 GiB: what is known of it, 8 links, and its nodes
//!        | Section  128 MiB: 64 leaves and 64 zero nodes
//! ```
//!
//! **What hangs there stays.** A part is put into an empty link by one compare-exchange, whole by
//! then, and is never taken away or moved: whoever has a reference keeps it. So memory is added
//! below any link while others search, and of two CPUs that add the same part one uses the
//! other's. Clusters hang from a table, to be found, and from each other, to be searched.
//!
//! **Nodes come late.** A giant's [`Nodes`] are not written before its first holder as a whole
//! does so and sets its bit in [`Cluster::ready`]; until then they hold anything. Whoever may be
//! there earlier, because a hint or the truth has changed under it, asks [`Giant::written`].
//! Leaves do the same one level down, by [`Nodes::ready`]. What may never have such a holder is
//! written before it is published: the nodes of a giant, and the leaves of a section, that are
//! not managed in full from their first day. Whoever adds frames there needs to set the bit only.

use crate::arena::Unwritten;
use crate::bounds::Bounds;
use crate::geometry::{
    CLUSTER_GIANTS, CLUSTER_ROWS, FRAME_SIZE, GIANT_ROWS, NODE_WORDS, SECTION_BLOCKS,
};
use crate::node::Node;
use crate::sync::{Link, Ordering, Word};

/// The clusters that exist.
#[derive(Debug)]
pub struct Top<'m> {
    /// The low ones by their number.
    table: &'m [Link<'m, Cluster<'m>>],
    /// The lowest of all; each leads to the next higher.
    first: Link<'m, Cluster<'m>>,
}

/// Clusters, ascending.
#[derive(Clone, Copy, Debug)]
pub struct Clusters<'m> {
    next: Option<&'m Cluster<'m>>,
}

/// 64 giants: a line of words, three of bounds, and eight of links.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Cluster<'m> {
    /// The giants; empty where no frame is managed. Read by all and written hardly ever, so on
    /// lines of their own.
    giants: [Link<'m, Giant<'m>>; CLUSTER_GIANTS],
    /// Hint: how long a run could begin in each giant that is in use; how many frames could be free
    /// at its begin, and at its end. Lines of their own: changed by searches for runs, and by frees
    /// after them.
    pub longest: Bounds<CLUSTER_ROWS>,
    pub begins: Bounds<CLUSTER_ROWS>,
    pub ends: Bounds<CLUSTER_ROWS>,
    /// Truth: giants that are free as a whole.
    pub free: Word,
    /// Truth: giants whose nodes have been written. Set once, by whoever holds the whole giant,
    /// and never cleared.
    pub ready: Word,
    /// Hint: giants with a block that is free as a whole.
    pub whole: Word,
    /// Hint: giants with a block of which some frames are free.
    pub partial: Word,
    /// Hint: giants that some CPU works in.
    pub adopted: Word,
    /// Which 64 GiB of the physical address space they are.
    number: u64,
    /// The next higher cluster.
    next: Link<'m, Cluster<'m>>,
}

/// One giant: four lines that only growing and shrinking memory changes. The nodes lie elsewhere,
/// so that starting up writes as few lines as it can.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Giant<'m> {
    /// Where its bits are.
    pub cluster: &'m Cluster<'m>,
    /// Its bit in the cluster's words.
    pub mask: u64,
    /// Which GiB of the physical address space it is.
    number: u64,
    nodes: &'m Nodes,
    /// Its sections; empty where no frame is managed.
    sections: [Link<'m, Section>; NODE_WORDS],
    /// Truth: blocks of which all frames are managed, and none is isolated or gone.
    pub full: Node,
    /// For each section which of its frames are gone; empty where that was never asked.
    gone: [Link<'m, Gone>; NODE_WORDS],
}

/// The block level of one giant: thirteen lines, written late.
#[derive(Debug)]
#[repr(C)]
pub struct Nodes {
    /// Truth: blocks that are free as a whole. All zero while the giant itself is free.
    pub blocks: Node,
    /// Hint: some of the block's free frames are known to be zero, so its zero node is worth a
    /// look. Also in free blocks and free giants: merging changes nothing about it.
    pub zero: Node,
    /// Hint: blocks of which some frames are free.
    pub partial: Node,
    /// Hint: blocks that some CPU refills from.
    pub claimed: Node,
    /// Truth: blocks whose leaf and zero node have been written. Set once, by whoever holds the
    /// whole block, and never cleared.
    pub ready: Node,
    /// Hint: how long a run could begin in each block.
    pub longest: Bounds<GIANT_ROWS>,
}

/// The frame level of one word of blocks: two lines for each, written late.
#[derive(Debug)]
#[repr(C)]
pub struct Section {
    /// Truth: frames that are free one by one.
    leaves: [Node; SECTION_BLOCKS],
    /// Beside a free frame: its contents are known to be zero.
    zeroes: [Node; SECTION_BLOCKS],
}

/// Truth: frames of one section that were isolated, came free, and are not the tree's any more.
/// Exists only where memory is taken away: one frame for 128 MiB.
#[derive(Debug)]
#[repr(C)]
pub struct Gone {
    nodes: [Node; SECTION_BLOCKS],
}

impl<'m> Top<'m> {
    /// A top without clusters, that will find those with numbers below the table's length fastest.
    pub fn new(table: &'m [Link<'m, Cluster<'m>>]) -> Self {
        Self { table, first: Link::empty() }
    }

    /// All clusters, ascending.
    #[inline]
    pub fn clusters(&self) -> Clusters<'m> {
        Clusters { next: self.first.load() }
    }

    /// The cluster with this number.
    #[inline]
    pub fn cluster(&self, number: u64) -> Option<&'m Cluster<'m>> {
        match self.table.get(number as usize) {
            Some(link) => link.load(),
            None => self.cluster_above_the_table(number),
        }
    }

    /// The same for low clusters only.
    #[inline(always)]
    pub fn low_cluster(&self, number: u64) -> Option<&'m Cluster<'m>> {
        self.table.get(number as usize)?.load()
    }

    #[inline(never)]
    fn cluster_above_the_table(&self, number: u64) -> Option<&'m Cluster<'m>> {
        self.clusters().find(|cluster| cluster.number == number)
    }

    /// Adds a cluster, and says which one has its number then: this, or one that another CPU
    /// has added. First to the list, so that who finds it in the table can also search it.
    pub fn insert(&self, new: &'m Cluster<'m>) -> &'m Cluster<'m> {
        let cluster = self.insert_in_order(new);
        match self.table.get(cluster.number as usize) {
            Some(link) => link.settle(cluster),
            None => cluster,
        }
    }

    fn insert_in_order(&self, new: &'m Cluster<'m>) -> &'m Cluster<'m> {
        let mut link = &self.first;
        loop {
            match link.load() {
                Some(next) if next.number == new.number => return next,
                Some(next) if next.number < new.number => link = &next.next,
                behind => {
                    new.next.copy(behind);
                    if link.replace(behind, new).is_ok() {
                        return new;
                    }
                }
            }
        }
    }
}

impl<'m> Iterator for Clusters<'m> {
    type Item = &'m Cluster<'m>;

    #[inline]
    fn next(&mut self) -> Option<&'m Cluster<'m>> {
        let cluster = self.next?;
        self.next = cluster.next.load();
        Some(cluster)
    }
}

impl<'m> Cluster<'m> {
    /// Nothing there, nothing free.
    pub fn new(number: u64) -> Self {
        let [free, ready, whole, partial, adopted] = core::array::from_fn(|_| Word::new(0));
        let giants = core::array::from_fn(|_| Link::empty());
        let [longest, begins, ends] = core::array::from_fn(|_| Bounds::new(u64::MAX));
        Self {
            begins,
            ends,
            giants,
            longest,
            free,
            ready,
            whole,
            partial,
            adopted,
            number,
            next: Link::empty(),
        }
    }

    /// The number of the lowest giant that it has room for.
    pub const fn first_giant(&self) -> u64 {
        self.number * CLUSTER_GIANTS as u64
    }

    /// The link to a giant of it, by the giant's number.
    #[inline]
    pub fn giant(&self, number: u64) -> &Link<'m, Giant<'m>> {
        &self.giants[number as usize % CLUSTER_GIANTS]
    }

    /// The giants that exist, ascending.
    pub fn giants(&self) -> impl Iterator<Item = &'m Giant<'m>> {
        self.giants.iter().filter_map(Link::load)
    }
}

impl<'m> Giant<'m> {
    /// A giant whose nodes are not written.
    #[inline]
    pub fn new(
        cluster: &'m Cluster<'m>,
        number: u64,
        nodes: &'m Nodes,
        sections: [Link<'m, Section>; NODE_WORDS],
        full: Node,
    ) -> Self {
        let mask = 1 << (number % CLUSTER_GIANTS as u64);
        let gone = core::array::from_fn(|_| Link::empty());
        Self { cluster, mask, number, nodes, sections, full, gone }
    }

    /// Which GiB of the physical address space it is.
    #[inline]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The link to the section that a block lies in.
    #[inline]
    pub fn section(&self, block: usize) -> &Link<'m, Section> {
        &self.sections[block / SECTION_BLOCKS % NODE_WORDS]
    }

    /// The link to what is gone of the section that a block lies in.
    pub fn gone(&self, block: usize) -> &Link<'m, Gone> {
        &self.gone[block / SECTION_BLOCKS % NODE_WORDS]
    }

    /// Whether it is free as a whole.
    #[inline]
    pub fn is_free(&self) -> bool {
        // ORDERING: a look; whoever claims decides.
        self.cluster.free.load(Ordering::Acquire) & self.mask != 0
    }

    /// Its nodes, for who has held some of its frames, or has seen that they are written.
    #[inline]
    pub fn nodes(&self) -> &'m Nodes {
        self.nodes
    }

    /// Its nodes, if they are written.
    #[inline]
    pub fn written(&self) -> Option<&'m Nodes> {
        // ORDERING: Acquire pairs with the Release in `write`.
        let is_ready = self.cluster.ready.load(Ordering::Acquire) & self.mask != 0;
        is_ready.then_some(self.nodes)
    }

    /// Its nodes, if they are written and it is not free as a whole. One that is neither was free
    /// until a moment ago: none of its frames has an owner yet.
    #[inline]
    pub fn in_use(&self) -> Option<&'m Nodes> {
        let Cluster { free, ready, .. } = self.cluster;
        // ORDERING: as in `is_free` and `written`.
        let free = free.load(Ordering::Acquire) | !ready.load(Ordering::Acquire);
        (free & self.mask == 0).then_some(self.nodes)
    }

    /// Writes its nodes, if that has never been done. The caller holds the whole giant, or nobody
    /// else knows it yet.
    #[inline]
    pub fn make_ready(&self) {
        // ORDERING: set by an earlier holder of the giant; the giant's own bit carried it here.
        if self.cluster.ready.load(Ordering::Relaxed) & self.mask == 0 {
            self.write();
        }
    }

    #[cold]
    fn write(&self) {
        self.write_nodes();
        self.declare_ready();
    }

    /// Writes its nodes. The caller holds the whole giant, or nobody else knows it yet.
    pub fn write_nodes(&self) {
        let Nodes { blocks, zero, partial, claimed, ready, longest } = self.nodes;
        for node in [blocks, zero, partial, claimed, ready] {
            node.fill(0);
        }
        for row in longest.rows() {
            // ORDERING: as with the nodes: exclusive, published with the ready bit or the giant.
            row.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Says that its nodes are written, which they are since it was published, or just now.
    pub fn declare_ready(&self) {
        // ORDERING: Release pairs with the Acquire in `written`, for who comes by an old hint,
        // and with the Relaxed look above through the giant's own bit.
        self.cluster.ready.fetch_or(self.mask, Ordering::Release);
    }
}

impl Section {
    /// Writes all leaves; nobody else knows the section yet.
    pub fn clear(&self) {
        for node in self.leaves.iter().chain(&self.zeroes) {
            node.fill(0);
        }
    }

    /// A block's frames, 1 = free; blocks are counted within the giant.
    #[inline]
    pub fn leaf(&self, block: usize) -> &Node {
        &self.leaves[block % SECTION_BLOCKS]
    }

    /// Which of a block's free frames are known to be zero.
    #[inline]
    pub fn zeroes(&self, block: usize) -> &Node {
        &self.zeroes[block % SECTION_BLOCKS]
    }
}

impl Gone {
    /// Nothing is gone yet.
    pub fn new() -> Self {
        Self { nodes: core::array::from_fn(|_| Node::new(0)) }
    }

    /// A word of a block; blocks are counted within the giant.
    pub fn word(&self, block: usize, word: usize) -> &Word {
        self.nodes[block % SECTION_BLOCKS].word(word)
    }
}

// SAFETY: it is words and nothing else, and any bytes are a word.
unsafe impl Unwritten for Nodes {
    #[cfg(loom)]
    fn ones() -> Self {
        let [blocks, zero, partial, claimed, ready] = core::array::from_fn(|_| ones());
        // "Nothing begins here", where something does, is what would go wrong.
        let longest = Bounds::new(0);
        Self { blocks, zero, partial, claimed, ready, longest }
    }
}

// SAFETY: as above.
unsafe impl Unwritten for Section {
    #[cfg(loom)]
    fn ones() -> Self {
        let [leaves, zeroes] = core::array::from_fn(|_| core::array::from_fn(|_| ones()));
        Self { leaves, zeroes }
    }
}

#[cfg(loom)]
fn ones() -> Node {
    Node::new(crate::geometry::FULL)
}

const _: () = assert!(cfg!(loom) || size_of::<Section>() == 2 * SECTION_BLOCKS * 64);
const _: () = assert!(cfg!(loom) || size_of::<Giant<'_>>() == 4 * 64);
const _: () = assert!(cfg!(loom) || size_of::<Gone>() as u64 == FRAME_SIZE);
