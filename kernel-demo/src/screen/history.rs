//! The last minutes as a graph: how much of memory is in use, and how much of the free memory lies
//! in whole 2 MiB blocks. The second is what fragmentation takes: it falls when frees leave crumbs,
//! and climbs back when blocks come together.

use embedded_graphics::prelude::{Point, Size};
use embedded_graphics::primitives::Rectangle;

use super::draw::{Canvas, LINE, SMALL};
use super::palette;

/// Samples that are kept.
const SAMPLES: usize = 240;
/// A share is in thousandths.
const WHOLE: i32 = 1000;

/// Two shares at one moment, in thousandths.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    /// Memory in use.
    pub used: u16,
    /// Free memory in whole blocks.
    pub whole: u16,
}

/// The samples, the oldest of them overwritten.
pub struct History {
    samples: [Sample; SAMPLES],
    count: usize,
}

impl History {
    /// Without samples.
    pub const fn new() -> Self {
        Self { samples: [Sample { used: 0, whole: 0 }; SAMPLES], count: 0 }
    }

    /// Adds one.
    pub fn add(&mut self, sample: Sample) {
        self.samples[self.count % SAMPLES] = sample;
        self.count += 1;
    }

    /// Draws the graph into `area`, the newest sample on the right.
    pub fn draw(&self, canvas: &mut Canvas, area: Rectangle) {
        let x = area.top_left.x;
        let y = area.top_left.y;
        let x =
            canvas.text(Point::new(x, y), palette::YELLOW, SMALL, format_args!("memory in use"));
        let at = Point::new(x + 24, y);
        canvas.text(at, palette::BLUE, SMALL, format_args!("free memory in whole 2 MiB blocks"));

        let labels = 40;
        let origin = area.top_left + Point::new(labels, LINE + 8);
        let room = area.size.saturating_sub(Size::new(labels as u32, LINE as u32 + 12));
        let height = room.height as i32;
        for percent in [0, 50, 100] {
            let y = origin.y + height - percent * height / 100;
            canvas.fill(Point::new(origin.x, y), Size::new(room.width, 1), palette::FAINT);
            let at = Point::new(origin.x - 6, y - 6);
            canvas.text_to(at, palette::DIM, SMALL, format_args!("{percent} %"));
        }
        let shown = self.count.min(SAMPLES);
        let place = |age: usize, share: u16| {
            let back = (age * room.width as usize / (SAMPLES - 1)) as i32;
            let y = height - i32::from(share) * height / WHOLE;
            origin + Point::new(room.width as i32 - back, y)
        };
        let sample = |age: usize| self.samples[(self.count - 1 - age) % SAMPLES];
        for age in 1..shown {
            let (to, from) = (place(age - 1, sample(age).used), place(age, sample(age).used));
            let size = Size::new((to.x - from.x) as u32, (origin.y + height - from.y) as u32);
            canvas.fill(from, size, palette::SHADE);
        }
        for age in 1..shown {
            let (new, old) = (sample(age - 1), sample(age));
            canvas.line(place(age, old.used), place(age - 1, new.used), palette::YELLOW);
            canvas.line(place(age, old.whole), place(age - 1, new.whole), palette::BLUE);
        }
    }
}
