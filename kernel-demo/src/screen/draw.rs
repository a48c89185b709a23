//! Rectangles and text on the picture.

use core::fmt::{self, Write as _};

use embedded_graphics::mono_font::ascii::{FONT_7X13, FONT_8X13_BOLD, FONT_10X20};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::prelude::DrawTarget as _;
use embedded_graphics::prelude::{
    Drawable as _, OriginDimensions as _, Point, Primitive as _, Size,
};
use embedded_graphics::primitives::{Line, PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};

use super::framebuffer::Framebuffer;
use super::{Color, palette};

/// The height of a line of small text, with what is between two lines.
pub const LINE: i32 = 16;
/// Text.
pub const SMALL: &MonoFont = &FONT_7X13;
/// The heading of a panel.
pub const BOLD: &MonoFont = &FONT_8X13_BOLD;
/// A title or a number.
pub const LARGE: &MonoFont = &FONT_10X20;

/// The picture, with what is drawn most.
pub struct Canvas(pub Framebuffer);

impl Canvas {
    /// Its size.
    pub fn size(&self) -> Size {
        self.0.size()
    }

    /// Fills a rectangle.
    pub fn fill(&mut self, at: Point, size: Size, color: Color) {
        let Ok(()) = self.0.fill_solid(&Rectangle::new(at, size), color);
    }

    /// A panel with a heading; returns what is inside, below that.
    pub fn panel(&mut self, area: Rectangle, heading: &str) -> Rectangle {
        self.fill(area.top_left, area.size, palette::PANEL);
        let at = area.top_left + Point::new(12, 10);
        self.text(at, palette::BRIGHT, BOLD, format_args!("{heading}"));
        let inside = area.size.saturating_sub(Size::new(24, 44));
        Rectangle::new(at + Point::new(0, 22), inside)
    }

    /// Text with its upper left corner at `at`; returns where it ends on the right.
    pub fn text(&mut self, at: Point, color: Color, font: &MonoFont, text: fmt::Arguments) -> i32 {
        let mut buffer = heapless::String::<160>::new();
        // What is too long ends early.
        let _ = buffer.write_fmt(text);
        let style = MonoTextStyle::new(font, color);
        let Ok(end) = Text::with_baseline(&buffer, at, style, Baseline::Top).draw(&mut self.0);
        end.x
    }

    /// The same, with its right end at `at`.
    pub fn text_to(&mut self, at: Point, color: Color, font: &MonoFont, text: fmt::Arguments) {
        let mut buffer = heapless::String::<160>::new();
        let _ = buffer.write_fmt(text);
        let width = (buffer.chars().count() as u32 * font.character_size.width) as i32;
        self.text(at - Point::new(width, 0), color, font, format_args!("{buffer}"));
    }

    /// A line of two pixels.
    pub fn line(&mut self, from: Point, to: Point, color: Color) {
        let style = PrimitiveStyle::with_stroke(color, 2);
        let Ok(()) = Line::new(from, to).into_styled(style).draw(&mut self.0);
    }

    /// A bar, filled to `part` of `whole`.
    pub fn bar(&mut self, at: Point, size: Size, color: Color, part: u64, whole: u64) {
        let filled = u64::from(size.width) * part.min(whole) / whole.max(1);
        self.fill(at, size, palette::FAINT);
        self.fill(at, Size::new(filled as u32, size.height), color);
    }
}
