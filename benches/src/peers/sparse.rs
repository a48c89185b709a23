//! Address space that costs memory only where it is written, for peers that keep their metadata
//! in the memory that they manage.

use std::ptr::{self, NonNull};

use crate::allocator::{GIANT, Refusal};

const GIB: usize = 1 << 30;

/// A range of addresses that begins at a multiple of 1 GiB.
pub struct Sparse {
    whole: *mut libc::c_void,
    length: usize,
    start: NonNull<u8>,
}

// SAFETY: it is only an address range; who uses it sees to the rest.
unsafe impl Sync for Sparse {}
// SAFETY: as above.
unsafe impl Send for Sparse {}

impl Sparse {
    /// Room for so many frames.
    pub fn new(frames: u64) -> Result<Self, Refusal> {
        let length = (frames.next_multiple_of(GIANT) as usize * 4096) + GIB;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let how = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: new memory, wherever the system likes.
        let whole = unsafe { libc::mmap(ptr::null_mut(), length, access, how, -1, 0) };
        if whole == libc::MAP_FAILED {
            return Err(Refusal::NotInitialised("no address space".into()));
        }
        whole.expose_provenance();
        let start = whole.cast::<u8>().map_addr(|address| address.next_multiple_of(GIB));
        Ok(Self { whole, length, start: NonNull::new(start).expect("not at 0") })
    }

    /// Its first address.
    pub fn start(&self) -> usize {
        self.start.addr().get()
    }

    /// All of it, for so many frames.
    pub fn bytes(&mut self, frames: u64) -> &mut [u8] {
        // SAFETY: mapped, zeroed, at least so long, and borrowed with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), frames as usize * 4096) }
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        // SAFETY: what `new` mapped, and its user is gone.
        unsafe { libc::munmap(self.whole, self.length) };
    }
}
