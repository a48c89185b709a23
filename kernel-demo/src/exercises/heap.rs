//! heap: `Vec` and `Box` on a heap that grows frame by frame, with the pool underneath.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::memory::{self, Purpose};
use crate::{heap, picture, println, text};

/// Numbers in the growing vector.
const NUMBERS: u64 = 100_000;
/// Boxes of growing size.
const BOXES: usize = 200;

/// Runs the exercise.
pub fn run() {
    println!("heap: Vec and Box on linked_list_allocator, which grows frame by frame");
    let numbers = grow_vector();
    let boxes = keep_boxes();
    picture::draw("heap in use");
    let (size, used) = heap::usage();
    println!(
        "  a Vec of {} numbers and {} Boxes: {} in use of {}, {} frames",
        numbers.len(),
        boxes.len(),
        text::Bytes(used as u64),
        text::Bytes(size as u64),
        memory::kept(Purpose::Heap),
    );
    drop((numbers, boxes));
    let (size, used) = heap::usage();
    assert!(used == 0, "{used} bytes of the heap are lost");
    assert!(size as u64 == memory::kept(Purpose::Heap) * frametree::FRAME_SIZE);
    println!("  all dropped: {used} bytes in use, the frames stay with the heap");
}

/// Pushes until the vector has moved several times, and checks its sum.
fn grow_vector() -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut moves = 0;
    for number in 0..NUMBERS {
        moves += u32::from(numbers.len() == numbers.capacity());
        numbers.push(number);
    }
    let sum: u64 = numbers.iter().sum();
    assert!(sum == NUMBERS * (NUMBERS - 1) / 2, "the vector's numbers add up to {sum}");
    println!("  a Vec grew to {NUMBERS} numbers, moved {moves} times, and adds up");
    numbers
}

/// Makes boxes of many sizes, drops every second one, and checks the others.
fn keep_boxes() -> Vec<Box<[u8]>> {
    let fill = |size: usize| alloc::vec![size as u8; size * 8].into_boxed_slice();
    let mut boxes: Vec<_> = (1..=BOXES).map(|size| Some(fill(size))).collect();
    boxes.iter_mut().step_by(2).for_each(|place| *place = None);
    let kept: Vec<_> = boxes.into_iter().flatten().collect();
    for (index, content) in kept.iter().enumerate() {
        let size = 2 * (index + 1);
        assert!(content.len() == size * 8 && content.iter().all(|&byte| byte == size as u8));
    }
    kept
}
