//! Memory as one line of block characters, from the lowest managed block to the highest: each
//! cell stands for some 2 MiB blocks, `·` for a hole in between. Lines under each other show how
//! memory fills and empties over time.

use core::fmt::{self, Write};
use frametree::{BlockUse, CpuId, FRAME_SIZE, FrameTree};

use crate::memory::POOL;
use crate::println;

/// Cells of a line.
const CELLS: u64 = 64;
/// From free to in use; the first and the last only if all of the cell is.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
const HOLE: char = '·';
const BLOCK_FRAMES: u64 = (2 << 20) / FRAME_SIZE;

/// How many 2 MiB blocks memory has, and how many of them a cell stands for.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Blocks with managed frames.
    pub blocks: u64,
    /// Blocks of a cell.
    pub per_cell: u64,
}

impl Scale {
    /// The scale at which this memory fits into a line.
    pub fn of(tree: &FrameTree) -> Self {
        let mut scale = Self { blocks: blocks(tree).count() as u64, per_cell: 0 };
        let holes = blocks(tree).filter(|&(missing, _)| scale.shows(missing)).count() as u64;
        // A hole takes a cell, and leaves the one before it unfinished.
        let cells = CELLS.saturating_sub(2 * holes).max(1);
        scale.per_cell = scale.blocks.div_ceil(cells);
        scale
    }

    /// Whether so many missing blocks are a hole to be seen.
    fn shows(self, missing: u64) -> bool {
        missing * CELLS > self.blocks
    }
}

/// Every block, with the number of blocks that are missing before it.
fn blocks(tree: &FrameTree) -> impl Iterator<Item = (u64, BlockUse)> {
    let mut end = None;
    tree.blocks().map(move |block| {
        let start = block.first.get() / BLOCK_FRAMES;
        let missing = start - end.replace(start + 1).unwrap_or(start);
        (missing, block)
    })
}

#[derive(Clone, Copy, Default)]
struct Cell {
    blocks: u64,
    managed: u64,
    used: u64,
}

impl Cell {
    fn add(&mut self, block: BlockUse) {
        self.blocks += 1;
        self.managed += block.managed;
        self.used += block.managed - block.free;
    }

    fn shade(self) -> char {
        match self.used {
            0 => SHADES[0],
            used if used == self.managed => SHADES[4],
            used => SHADES[1 + (used * 3 / self.managed) as usize],
        }
    }
}

struct Line<'t>(&'t FrameTree<'static>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = Scale::of(self.0);
        let mut cell = Cell::default();
        for (missing, block) in blocks(self.0) {
            let is_hole = scale.shows(missing);
            if is_hole || cell.blocks == scale.per_cell {
                f.write_char(cell.shade())?;
                cell = Cell::default();
            }
            if is_hole {
                f.write_char(HOLE)?;
            }
            cell.add(block);
        }
        f.write_char(cell.shade())
    }
}

/// Prints the line, as memory is now.
pub fn draw(label: &str) {
    if let Some(tree) = POOL.tree() {
        println!("  {label:<12} {}", Line(tree));
    }
}

/// Prints the line, with a CPU at work in it.
pub fn draw_for(cpu: CpuId, work: &str) {
    if let Some(tree) = POOL.tree() {
        println!("  CPU {:<2} {work:<5} {}", cpu.get(), Line(tree));
    }
}
