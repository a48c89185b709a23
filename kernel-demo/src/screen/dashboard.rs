//! The picture's parts and where they are. Every number is read when it is drawn.

use embedded_graphics::prelude::{Point, Size};
use embedded_graphics::primitives::Rectangle;
use frametree::{FRAME_SIZE, Stats};

use super::draw::{BOLD, Canvas, LARGE, LINE, SMALL};
use super::framebuffer::Framebuffer;
use super::history::{History, Sample};
use super::keys::Keys;
use super::{map, palette};
use crate::clock::Stopwatch;
use crate::cpu::MAX_CPUS;
use crate::exercises::some;
use crate::memory::POOL;
use crate::{exit, log, smp, steering, text};

/// Between two parts, and around them.
const GAP: u32 = 12;
const HEADER: u32 = 44;
const SIDE: u32 = 300;
const GRAPH: u32 = 170;
const LOG: u32 = 44 + log::LINES as u32 * LINE as u32;
const FOOTER: u32 = 28;
/// Between two samples of the graph.
const SAMPLE: core::time::Duration = core::time::Duration::from_millis(400);

/// All that is drawn, and what has to be known from one picture to the next.
pub struct Dashboard {
    canvas: Canvas,
    keys: Keys,
    history: History,
    started: Stopwatch,
    sampled: Stopwatch,
    pictures: u64,
    rates: Rates,
    /// The second of the last line on the console.
    pub told: u64,
}

/// What each CPU has done lately.
struct Rates {
    since: Stopwatch,
    counts: [u64; MAX_CPUS],
    per_second: [u64; MAX_CPUS],
    most: u64,
}

impl Dashboard {
    /// For this screen.
    pub fn new(framebuffer: Framebuffer) -> Self {
        let now = Stopwatch::start();
        let rates = Rates { since: now, counts: [0; MAX_CPUS], per_second: [0; MAX_CPUS], most: 1 };
        Self {
            canvas: Canvas(framebuffer),
            keys: Keys::new(),
            history: History::new(),
            started: now,
            sampled: now,
            pictures: 0,
            rates,
            told: 0,
        }
    }

    /// Since the first picture.
    pub fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// So far.
    pub fn pictures(&self) -> u64 {
        self.pictures
    }

    /// Looks at the keys, draws everything and shows it.
    pub fn draw(&mut self, work: &str) {
        self.keys.serve();
        let stats = POOL.stats();
        self.measure(&stats);
        let size = self.canvas.size();
        self.canvas.fill(Point::zero(), size, palette::GROUND);
        self.header(size, work);
        let main = size.width.saturating_sub(SIDE + 3 * GAP);
        let taken = HEADER + GRAPH + LOG + FOOTER + 3 * GAP;
        let map = area(GAP, HEADER, main, size.height.saturating_sub(taken));
        let inside = self.canvas.panel(map, "Physical memory");
        if let Some(tree) = POOL.tree() {
            map::draw(&mut self.canvas, inside, tree);
        }
        let side = area(main + 2 * GAP, HEADER, SIDE, map.size.height + GRAPH + GAP);
        self.side(side, &stats);
        let below = HEADER + map.size.height + GAP;
        let graph = self.canvas.panel(area(GAP, below, main, GRAPH), "The last 96 seconds");
        self.history.draw(&mut self.canvas, graph);
        self.log(area(GAP, below + GRAPH + GAP, size.width.saturating_sub(2 * GAP), LOG));
        self.footer(size);
        self.canvas.0.show();
        self.pictures += 1;
    }

    fn measure(&mut self, stats: &Stats) {
        if self.sampled.elapsed() < SAMPLE {
            return;
        }
        self.sampled = Stopwatch::start();
        let used = stats.managed_frames - stats.free_frames;
        let whole = (stats.free_blocks * 512).min(stats.free_frames);
        let used = used * 1000 / stats.managed_frames.max(1);
        let whole = whole * 1000 / stats.free_frames.max(1);
        self.history.add(Sample { used: used as u16, whole: whole as u16 });
        self.rates.measure();
    }

    fn header(&mut self, size: Size, work: &str) {
        let canvas = &mut self.canvas;
        let x = canvas.text(at(GAP, 12), palette::BRIGHT, LARGE, format_args!("frametree"));
        let x = canvas.text(Point::new(x + 16, 12), palette::DIM, LARGE, format_args!("now:"));
        let (color, what) = match () {
            () if exit::has_failed() => (palette::RED, "FAILED, see below"),
            () if steering::is_paused() => (palette::ORANGE, "paused"),
            () => (palette::BLUE, work),
        };
        canvas.text(Point::new(x + 10, 12), color, LARGE, format_args!("{what}"));
        let (cpus, seconds) = (smp::online(), self.started.elapsed().as_secs());
        let memory = text::frames(POOL.tree().map_or(0, |tree| tree.managed_frames()));
        let (minutes, seconds) = (seconds / 60, seconds % 60);
        let end = Point::new((size.width - GAP) as i32, 12);
        let s = if cpus == 1 { "" } else { "s" };
        let line = format_args!("{cpus} CPU{s} at work   {memory}   {minutes:02}:{seconds:02}");
        canvas.text_to(end, palette::TEXT, LARGE, line);
    }

    fn side(&mut self, area: Rectangle, stats: &Stats) {
        let canvas = &mut self.canvas;
        let inside = canvas.panel(area, "Now");
        let width = inside.size.width;
        let mut y = inside.top_left.y;
        let used = stats.managed_frames - stats.free_frames;
        let percent = |part: u64, whole: u64| part * 100 / whole.max(1);
        let shares = [
            ("in use", palette::YELLOW, used, stats.managed_frames),
            ("free in whole blocks", palette::BLUE, stats.free_blocks * 512, stats.free_frames),
        ];
        for (name, color, part, whole) in shares {
            let left = Point::new(inside.top_left.x, y);
            canvas.text(left, palette::TEXT, SMALL, format_args!("{name}"));
            let right = Point::new(left.x + width as i32, y);
            canvas.text_to(right, color, BOLD, format_args!("{} %", percent(part, whole).min(100)));
            let below = left + Point::new(0, LINE);
            canvas.bar(below, Size::new(width, 8), color, part, whole);
            y += 2 * LINE;
        }
        y += 4;
        for (name, value) in [
            ("free frames of 4 KiB", stats.free_frames),
            ("free blocks of 2 MiB", stats.free_blocks),
            ("of them whole GiBs", stats.free_giants),
            ("frames in CPUs' caches", stats.cached_frames),
            ("refills", stats.refills),
            ("flushes", stats.flushes),
            ("blocks split", stats.splits),
            ("blocks merged", stats.merges),
            ("races lost", stats.lost_races),
            ("nested in interrupts", stats.nested),
        ] {
            let left = Point::new(inside.top_left.x, y);
            canvas.text(left, palette::DIM, SMALL, format_args!("{name}"));
            let right = Point::new(left.x + width as i32, y);
            canvas.text_to(right, palette::TEXT, SMALL, format_args!("{value}"));
            y += LINE;
        }
        self.cpus(Rectangle::new(
            Point::new(inside.top_left.x, y + 10),
            Size::new(width, (inside.top_left.y + inside.size.height as i32 - y) as u32),
        ));
    }

    fn cpus(&mut self, area: Rectangle) {
        let Rectangle { top_left: left, size } = area;
        let canvas = &mut self.canvas;
        let heading = format_args!("Operations a second");
        canvas.text(left, palette::BRIGHT, BOLD, heading);
        let online = smp::online();
        let room = size.height.saturating_sub(24) as i32;
        let shown = online.min(room as usize / LINE as usize - 1);
        let step = (room / (shown as i32 + 1)).clamp(LINE, 20);
        let mut row = |number: usize, name: core::fmt::Arguments, rate: u64, most: u64| {
            let y = left.y + 24 + number as i32 * step;
            canvas.text(Point::new(left.x, y), palette::DIM, SMALL, name);
            let bar = Size::new(size.width - 130, step as u32 - 6);
            canvas.bar(Point::new(left.x + 60, y), bar, palette::BLUE, rate, most);
            let right = Point::new(left.x + size.width as i32, y);
            canvas.text_to(right, palette::TEXT, SMALL, format_args!("{rate}"));
        };
        let Rates { per_second, most, .. } = &self.rates;
        for (cpu, &rate) in per_second[..shown].iter().enumerate() {
            row(cpu, format_args!("CPU {cpu}"), rate, *most);
        }
        if shown < online {
            let rest = &per_second[shown..online];
            let mean = rest.iter().sum::<u64>() / rest.len() as u64;
            row(shown, format_args!("{} more", rest.len()), mean, *most);
        }
    }

    fn log(&mut self, area: Rectangle) {
        let inside = self.canvas.panel(area, "What the kernel says");
        let color = if exit::has_failed() { palette::RED } else { palette::TEXT };
        log::lines(|number, line| {
            let at = inside.top_left + Point::new(0, number as i32 * LINE);
            self.canvas.text(at, color, SMALL, format_args!("{line}"));
        });
    }

    fn footer(&mut self, size: Size) {
        let y = (size.height - FOOTER) as i32 + 6;
        let canvas = &mut self.canvas;
        let mut x = GAP as i32;
        let mut key = |name: &str, what: core::fmt::Arguments| {
            x = canvas.text(Point::new(x, y), palette::BRIGHT, SMALL, format_args!("{name}"));
            x = canvas.text(Point::new(x + 5, y), palette::DIM, SMALL, what) + 14;
        };
        for (number, exercise) in some::ALL.iter().enumerate() {
            let digit = [b'1' + number as u8];
            key(core::str::from_utf8(&digit).unwrap_or("?"), format_args!("{}", exercise.name));
        }
        key("space", format_args!("pause"));
        key("+ -", format_args!("load {} %", steering::load()));
        key("t", format_args!("tour {}", if steering::is_on_tour() { "on" } else { "off" }));
        key("q", format_args!("end"));
    }
}

impl Rates {
    fn measure(&mut self) {
        let milliseconds = (self.since.elapsed().as_millis() as u64).max(1);
        self.since = Stopwatch::start();
        for cpu in 0..smp::online() {
            let count = steering::operations(cpu);
            self.per_second[cpu] = (count - self.counts[cpu]) * 1000 / milliseconds;
            self.counts[cpu] = count;
        }
        // The scale follows slowly, so that a bar that shrinks is a CPU that does less.
        let most = self.per_second.iter().copied().max().unwrap_or(0);
        self.most = most.max(self.most - self.most / 4).max(1);
    }
}

fn at(x: u32, y: u32) -> Point {
    Point::new(x as i32, y as i32)
}

fn area(x: u32, y: u32, width: u32, height: u32) -> Rectangle {
    Rectangle::new(at(x, y), Size::new(width, height))
}

const _: () = assert!(FRAME_SIZE == 4096, "what the panel calls its frames");
