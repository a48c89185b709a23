//! A list of held memory that stands in held memory: whenever a page of it is full, one of the held
//! frames becomes the next. So it needs nothing from anybody, however much is held.
//!
//! Frames of one aligned group of 64 that come in one after the other share an item, as a mask:
//! 16 bytes for 256 KiB. Otherwise a list of all of memory would touch all of memory.

use bit_field::BitField;
use frametree::{Frame, FrameNumber};

use crate::paging::direct_map;

const ITEMS: usize = 254;
/// Frames that can share an item.
const GROUP: u64 = 64;

/// In which size something was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Size {
    /// 4 KiB.
    Frame,
    /// 2 MiB.
    Block,
    /// 1 GiB.
    Giant,
}

impl Size {
    /// How many frames it has.
    pub fn frames(self) -> u64 {
        match self {
            Self::Frame => 1,
            Self::Block => 512,
            Self::Giant => 512 * 512,
        }
    }
}

/// Something that is held, with a number that its holder wants to remember.
pub struct Held {
    /// Its first frame, which owns all of it.
    pub first: Frame,
    /// Its size.
    pub size: Size,
    /// The holder's number.
    pub note: u16,
}

/// What comes out of a ledger.
pub enum Entry {
    /// Something that was listed.
    Listed(Held),
    /// A frame in which the ledger stood.
    Page(Frame),
}

/// Some frames of a group, or one large piece.
#[derive(Clone, Copy)]
#[repr(C)]
struct Item {
    /// The group's first frame or the piece's, the size, the note.
    kind: u64,
    /// Which of the group's frames; 1 for a large piece.
    mask: u64,
}

/// A page of the ledger: exactly one frame.
#[repr(C, align(4096))]
struct Page {
    below: Option<FrameNumber>,
    length: usize,
    items: [Item; ITEMS],
}

const _: () = assert!(size_of::<Page>() == 4096);

impl Item {
    fn new(held: Held) -> Self {
        let number = held.first.into_number().get();
        let base = match held.size {
            Size::Frame => number - number % GROUP,
            Size::Block | Size::Giant => number,
        };
        let mut kind = 0;
        kind.set_bits(0..40, base);
        kind.set_bits(40..42, held.size as u64);
        kind.set_bits(42..58, u64::from(held.note));
        Self { kind, mask: 1 << (number - base) }
    }

    /// The highest frame of the mask, or the piece.
    fn first(self) -> FrameNumber {
        FrameNumber::new(self.kind.get_bits(0..40) + u64::from(self.mask.ilog2()))
    }

    fn take(&mut self) -> Held {
        let number = self.first();
        self.mask &= !(1 << self.mask.ilog2());
        let size = match self.kind.get_bits(40..42) {
            0 => Size::Frame,
            1 => Size::Block,
            _ => Size::Giant,
        };
        // SAFETY: `add` took it in, and it is no longer listed.
        let first = unsafe { Frame::from_number(number) };
        Held { first, size, note: self.kind.get_bits(42..58) as u16 }
    }
}

/// The list.
pub struct Ledger {
    top: Option<FrameNumber>,
    frames: u64,
}

impl Ledger {
    /// An empty list.
    pub const fn new() -> Self {
        Self { top: None, frames: 0 }
    }

    /// How many frames are held, those in which the list stands among them.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Whether the next entry may need a page first.
    pub fn is_full(&mut self) -> bool {
        self.top_page().is_none_or(|page| page.length == ITEMS)
    }

    /// Takes a frame to stand in.
    pub fn add_page(&mut self, frame: Frame) {
        let items = [Item { kind: 0, mask: 0 }; ITEMS];
        let page = Page { below: self.top, length: 0, items };
        let number = frame.into_number();
        // SAFETY: We own the frame, the direct map reaches it, and it is as large as a page.
        unsafe { direct_map(number.start_address()).cast::<Page>().write(page) };
        self.top = Some(number);
        self.frames += 1;
    }

    /// Lists something; the ledger is not full.
    pub fn add(&mut self, held: Held) {
        let frames = held.size.frames();
        let item = Item::new(held);
        let page = self.top_page().expect("add_page comes first");
        match page.items[..page.length].last_mut() {
            Some(last) if last.kind == item.kind => {
                assert!(last.mask & item.mask == 0, "handed out twice: {:?}", item.first());
                last.mask |= item.mask;
            }
            _ => {
                page.items[page.length] = item;
                page.length += 1;
            }
        }
        self.frames += frames;
    }

    /// Takes something out: not the last that came in, but one from the middle of its page.
    pub fn take(&mut self) -> Option<Entry> {
        let page = self.top_page()?;
        let Some(last) = page.length.checked_sub(1) else {
            let below = page.below;
            let number = self.top.take()?;
            self.top = below;
            self.frames -= 1;
            // SAFETY: `add_page` took the frame in, and it is no longer a page.
            return Some(Entry::Page(unsafe { Frame::from_number(number) }));
        };
        page.items.swap(last / 2, last);
        let held = page.items[last].take();
        if page.items[last].mask == 0 {
            page.length = last;
        }
        self.frames -= held.size.frames();
        Some(Entry::Listed(held))
    }

    fn top_page(&mut self) -> Option<&mut Page> {
        let address = self.top?.start_address();
        // SAFETY: `add_page` put a page there, and the ledger owns the frame.
        Some(unsafe { &mut *direct_map(address).cast::<Page>() })
    }
}
