//! One thread allocates, the other frees what it is handed, 64 frames at a time through a ring.

use std::hint::spin_loop;

use rtrb::{Consumer, Producer, RingBuffer};

use super::{side_by_side, take_surely};
use crate::allocator::{Allocator, Refusal};
use crate::harness::{Contestant, Entry, Patience};
use crate::machine::Sample;

/// What is handed over at a time.
const HANDFUL: usize = 64;
const RING: usize = 4096;

/// How the two are set up for each allocator.
pub struct CrossOf {
    pub frames: u64,
}

impl CrossOf {
    pub fn visit<A: Allocator>(&self) -> Entry {
        let contestant = A::new(self.frames).map(|allocator| {
            let (giver, taker) = RingBuffer::new(RING);
            let cross = Cross { allocator, parties: [Party::Giver(giver), Party::Taker(taker)] };
            Box::new(cross) as Box<dyn Contestant>
        });
        Entry { name: A::NAME, contestant }
    }
}

struct Cross<A> {
    allocator: A,
    parties: [Party; 2],
}

enum Party {
    Giver(Producer<u32>),
    Taker(Consumer<u32>),
}

impl<A: Allocator> Contestant for Cross<A> {
    fn block(&mut self, ops: u64, _: Patience) -> Result<Sample, Refusal> {
        let (allocator, handfuls) = (&self.allocator, ops.div_ceil(HANDFUL as u64));
        Ok(side_by_side(&mut self.parties, |party| {
            for _ in 0..handfuls {
                match party {
                    Party::Giver(ring) => {
                        let frames = [(); HANDFUL].map(|()| take_surely(allocator) as u32);
                        while ring.slots() < HANDFUL {
                            spin_loop();
                        }
                        let room = ring.write_chunk_uninit(HANDFUL).expect("room");
                        room.fill_from_iter(frames);
                    }
                    Party::Taker(ring) => {
                        while ring.slots() < HANDFUL {
                            spin_loop();
                        }
                        let frames = ring.read_chunk(HANDFUL).expect("frames");
                        frames.into_iter().for_each(|frame| allocator.free(frame.into()));
                    }
                }
            }
            handfuls * HANDFUL as u64
        }))
    }
}
