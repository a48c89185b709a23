//! How a pool begins: its metadata is carved from the map, or given, and laid out, once.

use super::FramePool;
use super::setup::{InitError, Metadata, Setup};
use super::shared::Shared;
use crate::arena::{Arena, PART_ALIGN};
use crate::budget::Budget;
use crate::frame::NumberRange;
#[cfg(feature = "hardened")]
use crate::geometry::BLOCK_FRAMES;
use crate::geometry::FRAME_SIZE;
#[cfg(feature = "hardened")]
use crate::hardened::Hardened;
use crate::layout::Layout;
use crate::map::MemoryMap;
use crate::slot::Slot;
use crate::tree::FrameTree;

impl<C> FramePool<C> {
    /// Takes over the usable frames of `map`, after carving the metadata from it.
    ///
    /// `to_virtual` translates the metadata's physical address to a pointer. Costs in entries
    /// and GiBs of the map, not in frames.
    ///
    /// # Errors
    /// See [`InitError`]; the pool is as before then. So is the map, unless the mapping was
    /// misaligned or carving left nothing usable: then the carved frames are gone from it.
    ///
    /// # Safety
    /// The usable frames of `map` are memory that nobody else uses or will use. The pointer that
    /// `to_virtual` returns is valid for reads and writes of the carved frames for ever, with
    /// provenance over all of them (for a fixed offset mapping:
    /// `core::ptr::with_exposed_provenance_mut`).
    ///
    /// # Examples
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let memory = [MemoryRegion { start: 0, length: 8 << 20, kind: RegionKind::Usable }];
    /// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(3)]; // two more to take out
    /// let mut map = MemoryMap::normalise(memory, &mut cells)?;
    /// map.reserve(0, 1 << 20)?;
    /// let pool = FramePool::new(example::One); // in a kernel: a `static`
    /// // SAFETY: what the map calls usable is nobody else's; `direct_map` maps all of it.
    /// let metadata = unsafe { pool.init(&mut map, Setup::new(1), example::direct_map) }?;
    /// assert_eq!(metadata.managed_frames, map.usable_frames());
    /// let frame = pool.alloc()?;
    /// # pool.free(frame)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn init(
        &self,
        map: &mut MemoryMap<'_>,
        setup: Setup,
        to_virtual: impl FnOnce(u64) -> *mut u8,
    ) -> Result<Metadata, InitError> {
        let metadata = self.once(|| {
            let layout = setup.layout(map)?;
            // Carving may cut a range in two: less than one more part, and one for a ledger. Of
            // clusters, giants and sections it leaves as many or fewer: fewer frames can't touch
            // more of them.
            let bytes = layout.bytes() + PART_ALIGN + setup.slack();
            let count = (bytes as u64).div_ceil(FRAME_SIZE);
            setup.check_reserve(layout.managed_frames().saturating_sub(count))?;
            let frames = map.carve(count, setup.metadata_below).map_err(InitError::Map)?;
            let start = to_virtual(frames.start().start_address());
            if !start.addr().is_multiple_of(PART_ALIGN) {
                return Err(InitError::Misaligned { address: start.addr() });
            }
            let rest = setup.layout(map)?;
            let (needed, given) = (rest.bytes(), (frames.len() * FRAME_SIZE) as usize);
            if needed > given {
                return Err(InitError::StorageTooSmall { needed, given });
            }
            // SAFETY: the caller vouches for the pointer; the frames were just carved out, so
            // they are nobody else's.
            let arena = unsafe { Arena::new(start, needed) };
            Ok(self.build(arena, map, rest, (frames, setup)))
        })?;
        #[cfg(feature = "log")]
        crate::observe::log_start(map, metadata.bytes, setup.cpus);
        Ok(metadata)
    }

    /// As [`FramePool::init`], with the metadata in memory that the caller gives, of
    /// [`Layout::bytes`] and 128 more for alignment.
    ///
    /// # Errors
    /// See [`InitError`].
    ///
    /// # Safety
    /// The usable frames of `map` are memory that nobody else uses or will use.
    ///
    /// # Examples
    /// A kernel that has no direct map, but a heap, or a place in its image:
    ///
    /// ```
    /// # mod example { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/common/pool.rs")); }
    /// # use frametree::*;
    /// let memory = [MemoryRegion { start: 1 << 20, length: 64 << 20, kind: RegionKind::Usable }];
    /// let mut cells = [MapEntry::EMPTY; MemoryMap::entries_needed(1)];
    /// let map = MemoryMap::normalise(memory, &mut cells)?;
    /// let words = Layout::new(&map, 1)?.bytes() / 8 + 16; // 128 bytes more
    /// let pool = FramePool::new(example::One);
    /// // SAFETY: what the map calls usable is nobody else's.
    /// unsafe { pool.init_in(&map, 1, vec![0; words].leak()) }?;
    /// assert_eq!(pool.stats().managed_frames, 64 << 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn init_in(
        &self,
        map: &MemoryMap<'_>,
        setup: impl Into<Setup>,
        storage: &'static mut [u64],
    ) -> Result<Metadata, InitError> {
        let setup = setup.into();
        let metadata = self.once(|| {
            let layout = setup.layout(map)?;
            setup.check_reserve(layout.managed_frames())?;
            let given = size_of_val(storage);
            let start = storage.as_mut_ptr().cast::<u8>();
            let skip = start.align_offset(PART_ALIGN);
            let needed = layout.bytes().saturating_add(skip);
            if needed > given {
                return Err(InitError::StorageTooSmall { needed, given });
            }
            // SAFETY: `skip + bytes` lies within `storage`, which is ours alone for ever.
            let arena = unsafe { Arena::new(start.add(skip), layout.bytes()) };
            Ok(self.build(arena, map, layout, (NumberRange::from_numbers(0, 0), setup)))
        })?;
        #[cfg(feature = "log")]
        crate::observe::log_start(map, metadata.bytes, setup.cpus);
        Ok(metadata)
    }

    /// Initialises the pool with what `build` makes. Who is not the first, also by a moment, does
    /// not get as far as touching the map.
    fn once(
        &self,
        build: impl FnOnce() -> Result<(Shared, Metadata), InitError>,
    ) -> Result<Metadata, InitError> {
        let mut built = None;
        self.shared.try_call_once(|| {
            let (shared, metadata) = build()?;
            built = Some(metadata);
            Ok(shared)
        })?;
        built.ok_or(InitError::AlreadyInitialised)
    }

    fn build(
        &self,
        mut arena: Arena<'static>,
        map: &MemoryMap<'_>,
        layout: Layout,
        (frames, setup): (NumberRange, Setup),
    ) -> (Shared, Metadata) {
        let (cpus, managed) = (layout.plan.cpus, layout.managed_frames());
        let tree = FrameTree::new(&mut arena, &layout.plan, map.usable());
        let tree = tree.with_low_end(setup.low_end);
        let budget = Budget::new(setup.rules, managed, cpus, tree.shared_journal());
        let budget = arena.deal_part(1).put(budget);
        let slots = arena.deal(cpus, |cpu| Slot::new(tree.journal_of(cpu), budget));
        // SAFETY: `once` calls this once with success, and what follows here can't fail.
        unsafe { self.slots.publish(slots) };
        #[cfg(feature = "hardened")]
        let hardened = setup.hardening.map(|how| {
            let low_end = setup.low_end.next_multiple_of(BLOCK_FRAMES);
            let sizes = (managed, layout.plan.ranges, cpus);
            let hardened = Hardened::new(&mut arena, (how, low_end), sizes, map.usable());
            hardened.seal(&tree);
            hardened
        });
        let metadata = Metadata { frames, bytes: layout.bytes(), managed_frames: managed };
        let shared = Shared {
            tree,
            slots,
            budget,
            #[cfg(feature = "hardened")]
            hardened,
        };
        (shared, metadata)
    }
}
