//! heap: `Vec` and `Box` on a heap that grows and shrinks, with the pool underneath.

use alloc::boxed::Box;
use alloc::vec::Vec;

use frametree::FRAME_SIZE;

use crate::{heap, picture, println, text};

/// Numbers in the growing vector.
const NUMBERS: u64 = 100_000;
/// Boxes of growing size.
const BOXES: usize = 200;

/// Runs the exercise.
pub fn run() {
    println!("heap: Vec and Box on linked_list_allocator, on frames of the pool");
    let numbers = grow_vector();
    let boxes = keep_boxes();
    picture::draw("heap in use");
    let used = heap::frames();
    println!(
        "  a Vec of {} numbers and {} Boxes: {used} frames, {}",
        numbers.len(),
        boxes.len(),
        text::Bytes(used * FRAME_SIZE),
    );
    assert!(used * FRAME_SIZE >= 8 * NUMBERS, "{used} frames hold {NUMBERS} numbers");
    drop((numbers, boxes));
    let spare = heap::frames();
    heap::trim();
    assert!(heap::frames() == 0, "{} frames of the heap are lost", heap::frames());
    println!("  all dropped: {spare} frames stay for next time, or none when asked for");
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
