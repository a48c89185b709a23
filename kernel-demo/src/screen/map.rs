//! Memory as a map: a cell for each 2 MiB block, or for a power of two of them when they would be
//! too small to see. Rows have a power of two of cells and say at which address they begin;
//! where memory has a hole, the address jumps.

use embedded_graphics::prelude::{Point, Size};
use embedded_graphics::primitives::Rectangle;
use frametree::{BlockUse, FrameTree};

use super::draw::{Canvas, LINE, SMALL};
use super::palette;

/// The room for a row's address.
const LABEL: u32 = 76;
/// A cell is at least so wide and high, and at most.
const SMALLEST: u32 = 6;
const WIDEST: u32 = 30;

/// How blocks become cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grid {
    per_cell: u64,
    columns: u32,
    cell: Size,
}

impl Grid {
    /// The largest cells with which so many blocks fit into `room`.
    fn new(blocks: u64, room: Size) -> Self {
        let fits = |per_cell: u64, columns: u32| {
            let rows = blocks.div_ceil(per_cell * u64::from(columns)).max(1);
            let width = (room.width / columns).min(WIDEST);
            let height = u32::try_from(u64::from(room.height) / rows).unwrap_or(0).min(width);
            (height >= SMALLEST).then_some(Self {
                per_cell,
                columns,
                cell: Size::new(width, height),
            })
        };
        (0..64)
            .find_map(|shift| {
                let grids = [8, 16, 32, 64, 128].into_iter();
                let grids = grids.filter_map(|columns| fits(1 << shift, columns));
                grids.max_by_key(|grid| grid.cell.width * grid.cell.height)
            })
            .expect("2^63 blocks fit into a cell")
    }
}

/// Draws the map into `area`.
pub fn draw(canvas: &mut Canvas, area: Rectangle, tree: &FrameTree) {
    let blocks = tree.blocks().count() as u64;
    let room = Size::new(area.size.width - LABEL, area.size.height - LINE as u32 - 8);
    let grid = Grid::new(blocks, room);
    let (size, unit) = amount(2 * grid.per_cell);
    let mut x = area.top_left.x;
    let y = area.top_left.y;
    x = canvas.text(
        Point::new(x, y),
        palette::TEXT,
        SMALL,
        format_args!("A cell is {size} {unit}:  "),
    );
    x = legend(canvas, Point::new(x, y), palette::FREE, "free  ");
    for (step, color) in palette::PARTLY.into_iter().enumerate() {
        x = legend(canvas, Point::new(x, y), color, if step == 4 { "in part  " } else { "" });
    }
    legend(canvas, Point::new(x, y), palette::FULL, "in use");

    let origin = area.top_left + Point::new(0, LINE + 8);
    let mut cell = Cell::default();
    let mut number = 0;
    for (seen, block) in tree.blocks().enumerate() {
        if (seen as u64).is_multiple_of(grid.per_cell) {
            // Low rows have a label each few of them.
            let labelled = grid.columns * (LINE as u32 - 2).div_ceil(grid.cell.height);
            if number % labelled == 0 {
                label(canvas, origin + grid.row(number), block);
            }
            cell = Cell::default();
        }
        cell.managed += block.managed;
        cell.used += block.managed - block.free;
        let ends = seen as u64 % grid.per_cell == grid.per_cell - 1 || seen as u64 == blocks - 1;
        if ends {
            let color = palette::fullness(cell.used, cell.managed);
            let at = origin + grid.row(number) + grid.column(number);
            let gap = if grid.cell.height > 8 { 2 } else { 1 };
            canvas.fill(at, grid.cell - Size::new(gap, gap), color);
            number += 1;
        }
    }
}

impl Grid {
    fn row(self, cell: u32) -> Point {
        Point::new(0, (cell / self.columns * self.cell.height) as i32)
    }

    fn column(self, cell: u32) -> Point {
        Point::new((LABEL + cell % self.columns * self.cell.width) as i32, 0)
    }
}

#[derive(Default)]
struct Cell {
    managed: u64,
    used: u64,
}

/// So many MiB in the largest unit in which they are whole.
fn amount(mebibytes: u64) -> (u64, &'static str) {
    let units = [(20, "TiB"), (10, "GiB")].into_iter();
    let mut fits = units.filter(|(shift, _)| mebibytes > 0 && mebibytes.trailing_zeros() >= *shift);
    fits.next().map_or((mebibytes, "MiB"), |(shift, unit)| (mebibytes >> shift, unit))
}

/// Where a row begins, beside it.
fn label(canvas: &mut Canvas, row: Point, block: BlockUse) {
    let end = row + Point::new(LABEL as i32 - 8, 0);
    let mebibytes = block.first.start_address() >> 20;
    let (whole, tenth) = (mebibytes >> 10, mebibytes % 1024 * 10 / 1024);
    if whole == 0 {
        canvas.text_to(end, palette::DIM, SMALL, format_args!("{mebibytes} MiB"));
    } else {
        canvas.text_to(end, palette::DIM, SMALL, format_args!("{whole}.{tenth} GiB"));
    }
}

fn legend(canvas: &mut Canvas, at: Point, color: super::Color, what: &str) -> i32 {
    canvas.fill(at + Point::new(0, 2), Size::new(10, 10), color);
    canvas.text(at + Point::new(14, 0), palette::DIM, SMALL, format_args!("{what}"))
}
