//! The colours. How full memory is goes from dark blue to light yellow: brighter at each step, so
//! that it reads without colour too, and along the axis that all kinds of colour blindness leave.
//! The other colours are from the palette of Okabe and Ito, made for the same readers.

use embedded_graphics::pixelcolor::Rgb888;

/// Behind everything.
pub const GROUND: Rgb888 = Rgb888::new(0x0e, 0x14, 0x1b);
/// Behind what belongs together.
pub const PANEL: Rgb888 = Rgb888::new(0x17, 0x20, 0x2a);
/// Lines of the graph, the part of a bar that is not reached.
pub const FAINT: Rgb888 = Rgb888::new(0x2a, 0x37, 0x44);
/// What one looks at first.
pub const BRIGHT: Rgb888 = Rgb888::new(0xf2, 0xf5, 0xf7);
/// Text.
pub const TEXT: Rgb888 = Rgb888::new(0xc9, 0xd3, 0xdc);
/// Text that explains.
pub const DIM: Rgb888 = Rgb888::new(0x8c, 0x9c, 0xab);
/// What CPUs do, and free memory in whole blocks.
pub const BLUE: Rgb888 = Rgb888::new(0x56, 0xb4, 0xe9);
/// Memory in use.
pub const YELLOW: Rgb888 = Rgb888::new(0xff, 0xd7, 0x4a);
/// Below the line of memory in use.
pub const SHADE: Rgb888 = Rgb888::new(0x3b, 0x37, 0x26);
/// What wants attention.
pub const ORANGE: Rgb888 = Rgb888::new(0xe6, 0x9f, 0x00);
/// What went wrong.
pub const RED: Rgb888 = Rgb888::new(0xd5, 0x5e, 0x00);

/// A cell of which nothing is in use.
pub const FREE: Rgb888 = Rgb888::new(0x22, 0x2e, 0x3a);
/// Cells of which a part is in use, from little to almost all.
pub const PARTLY: [Rgb888; 5] = [
    Rgb888::new(0x2f, 0x55, 0x8c),
    Rgb888::new(0x4f, 0x72, 0x96),
    Rgb888::new(0x7f, 0x8c, 0x8a),
    Rgb888::new(0xae, 0xa4, 0x70),
    Rgb888::new(0xd8, 0xbd, 0x5c),
];
/// A cell that is in use to the last frame.
pub const FULL: Rgb888 = YELLOW;

/// The colour for so much of `managed` in use.
pub fn fullness(used: u64, managed: u64) -> Rgb888 {
    match used {
        0 => FREE,
        used if used >= managed => FULL,
        used => PARTLY[(used * PARTLY.len() as u64 / managed) as usize],
    }
}
