//! The picture: drawn in memory by `embedded-graphics`, then copied to the screen as a whole, so
//! that nobody sees it half done.
//!
//! The loader says where the screen's pixels are, how long a line is and where a pixel has its
//! red, green and blue. They are mapped in a place of their own, wherever they lie: above 4 GiB
//! on some machines, and never where the pool's memory is.

use core::convert::Infallible;

use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::{Dimensions, DrawTarget, OriginDimensions, Pixel, Point, Size};
use embedded_graphics::primitives::Rectangle;
use frametree::{FRAME_SIZE, Request};

use crate::memory::{self, POOL, Purpose};
use crate::paging;

/// Larger screens show the picture in their upper left part.
const LARGEST: (u32, u32) = (1920, 1200);

/// A screen, as the loader describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Description {
    /// The physical address of its first pixel.
    pub address: u64,
    /// Bytes from one line to the next.
    pub pitch: u32,
    /// Pixels of a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bytes of a pixel, 3 or 4.
    pub bytes: u32,
    /// The lowest bit of red, green and blue in a pixel.
    pub shifts: [u8; 3],
}

impl Description {
    /// From the first byte of the first line to the end of the last.
    pub fn bytes_in_all(&self) -> u64 {
        u64::from(self.pitch) * u64::from(self.height)
    }
}

/// The picture, and the screen to which it goes.
pub struct Framebuffer {
    description: Description,
    size: Size,
    pixels: &'static mut [u32],
    screen: *mut u8,
}

// SAFETY: the memory is nobody else's, on whichever CPU it is used.
unsafe impl Send for Framebuffer {}

impl Framebuffer {
    /// Maps the screen, and takes memory for the picture from the pool. `None` if there is none.
    pub fn new(description: Description) -> Option<Self> {
        let size = Size::new(description.width.min(LARGEST.0), description.height.min(LARGEST.1));
        let count = size.width as usize * size.height as usize;
        let frames = (count as u64 * 4).div_ceil(FRAME_SIZE);
        let run = POOL.alloc_run(&Request::new(frames)).ok()?;
        memory::keep(Purpose::Screen, frames);
        let memory = paging::direct_map(run.into_numbers().start().start_address());
        let screen = paging::map_device(description.address, description.bytes_in_all());
        // SAFETY: the run is ours for good, the direct map reaches it, and any bytes are pixels.
        let pixels = unsafe {
            memory.write_bytes(0, count * 4);
            core::slice::from_raw_parts_mut(memory.cast::<u32>(), count)
        };
        Some(Self { description, size, pixels, screen })
    }

    /// Puts the picture on the screen.
    pub fn show(&mut self) {
        let Description { pitch, bytes, shifts, .. } = self.description;
        for (y, line) in self.pixels.chunks_exact(self.size.width as usize).enumerate() {
            for (x, &pixel) in line.iter().enumerate() {
                let [_, red, green, blue] = pixel.to_be_bytes();
                let value = [red, green, blue]
                    .into_iter()
                    .zip(shifts)
                    .fold(0, |value, (part, shift)| value | u32::from(part) << shift);
                let place = y * pitch as usize + x * bytes as usize;
                // SAFETY: the pixel is within its line, and all lines are mapped. One of 3 bytes
                // is written byte by byte, for the fourth is its neighbour's.
                unsafe {
                    let place = self.screen.add(place);
                    if bytes == 4 {
                        place.cast::<u32>().write_volatile(value);
                    } else {
                        let parts = value.to_le_bytes();
                        (0..3).for_each(|i| place.add(i).write_volatile(parts[i]));
                    }
                }
            }
        }
    }
}

impl OriginDimensions for Framebuffer {
    fn size(&self) -> Size {
        self.size
    }
}

impl DrawTarget for Framebuffer {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Infallible> {
        let bounds = self.bounding_box();
        for Pixel(at, color) in pixels {
            if bounds.contains(at) {
                self.pixels[index(self.size, at)] = packed(color);
            }
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, color: Rgb888) -> Result<(), Infallible> {
        let area = area.intersection(&self.bounding_box());
        for y in area.rows() {
            let start = index(self.size, Point::new(area.top_left.x, y));
            self.pixels[start..start + area.size.width as usize].fill(packed(color));
        }
        Ok(())
    }
}

/// Where a pixel of the picture is.
fn index(size: Size, at: Point) -> usize {
    at.y as usize * size.width as usize + at.x as usize
}

fn packed(color: Rgb888) -> u32 {
    u32::from_be_bytes([0, color.r(), color.g(), color.b()])
}
