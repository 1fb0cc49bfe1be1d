//! Arrangements of numbers in which compression finds more.
//!
//! ```text
//! shuffle   a0 a1 a2 a3 | b0 b1 b2 b3 | c0 ..   ->   a0 b0 c0 .. | a1 b1 c1 .. | a2 .. | a3 ..
//! delta     a | b | c ..                        ->   a | b - a | c - b ..
//! ```
//!
//! Eight elements of eight bytes are eight rows of a square whose sides are swapped in registers
//! (Warren, *Hacker's Delight*, 7-3); elements of other sizes are halves or pairs of such rows.

/// Rows and columns of a square.
const SIDE: usize = 8;

/// Byte `i` of all elements together; what is left behind the last whole element stays there.
pub(super) fn shuffle(from: &[u8], to: &mut [u8], width: usize) {
    let count = from.len() / width;
    let (planes, rest) = to.split_at_mut(count * width);
    let (elements, left) = from.split_at(count * width);
    let done = match width {
        2 => shuffle_squares::<2>(elements, planes, count),
        4 => shuffle_squares::<4>(elements, planes, count),
        8 => shuffle_squares::<8>(elements, planes, count),
        16 => shuffle_squares::<16>(elements, planes, count),
        _ => 0,
    };
    for (byte, plane) in planes.chunks_exact_mut(count.max(1)).enumerate() {
        for (into, element) in plane.iter_mut().zip(elements.chunks_exact(width)).skip(done) {
            *into = element[byte];
        }
    }
    rest.copy_from_slice(left);
}

/// What [`shuffle`] was given.
pub(super) fn unshuffle(from: &[u8], to: &mut [u8], width: usize) {
    let count = from.len() / width;
    let (planes, left) = from.split_at(count * width);
    let (elements, rest) = to.split_at_mut(count * width);
    let done = match width {
        2 => unshuffle_squares::<2>(planes, elements, count),
        4 => unshuffle_squares::<4>(planes, elements, count),
        8 => unshuffle_squares::<8>(planes, elements, count),
        16 => unshuffle_squares::<16>(planes, elements, count),
        _ => 0,
    };
    for (byte, plane) in planes.chunks_exact(count.max(1)).enumerate() {
        for (&from, element) in plane.iter().zip(elements.chunks_exact_mut(width)).skip(done) {
            element[byte] = from;
        }
    }
    rest.copy_from_slice(left);
}

/// Where row `row` of a square lies that begins at `element`: its plane, and which eight elements.
const fn row_at<const WIDTH: usize>(row: usize, half: usize) -> (usize, usize) {
    if WIDTH < SIDE { (row % WIDTH, row / WIDTH * SIDE) } else { (half * SIDE + row, 0) }
}

/// Elements of one square, and squares that they need.
const fn square<const WIDTH: usize>() -> (usize, usize) {
    if WIDTH < SIDE { (SIDE * SIDE / WIDTH, 1) } else { (SIDE, WIDTH / SIDE) }
}

/// As far as there are whole squares; how many elements those are.
fn shuffle_squares<const WIDTH: usize>(elements: &[u8], planes: &mut [u8], count: usize) -> usize {
    let (len, halves) = square::<WIDTH>();
    let done = count / len * len;
    for first in (0..done).step_by(len) {
        let tile = &elements[first * WIDTH..(first + len) * WIDTH];
        for half in 0..halves {
            let column = |at: usize| {
                let mut bytes = [0; SIDE];
                if WIDTH < SIDE {
                    for (group, piece) in bytes.as_chunks_mut::<WIDTH>().0.iter_mut().enumerate() {
                        let element = group * SIDE + at;
                        piece.copy_from_slice(&tile[element * WIDTH..(element + 1) * WIDTH]);
                    }
                } else {
                    let from = at * WIDTH + half * SIDE;
                    bytes.copy_from_slice(&tile[from..from + SIDE]);
                }
                u64::from_le_bytes(bytes)
            };
            let rows = transposed(std::array::from_fn(column));
            for (row, word) in rows.into_iter().enumerate() {
                let (plane, element) = row_at::<WIDTH>(row, half);
                let into = plane * count + first + element;
                planes[into..into + SIDE].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
    done
}

/// The same backwards.
fn unshuffle_squares<const WIDTH: usize>(
    planes: &[u8],
    elements: &mut [u8],
    count: usize,
) -> usize {
    let (len, halves) = square::<WIDTH>();
    let done = count / len * len;
    for first in (0..done).step_by(len) {
        let tile = &mut elements[first * WIDTH..(first + len) * WIDTH];
        for half in 0..halves {
            let row = |row: usize| {
                let (plane, element) = row_at::<WIDTH>(row, half);
                let from = plane * count + first + element;
                let mut bytes = [0; SIDE];
                bytes.copy_from_slice(&planes[from..from + SIDE]);
                u64::from_le_bytes(bytes)
            };
            let columns = transposed(std::array::from_fn(row));
            for (at, word) in columns.into_iter().enumerate() {
                let bytes = word.to_le_bytes();
                if WIDTH < SIDE {
                    for (group, piece) in bytes.as_chunks::<WIDTH>().0.iter().enumerate() {
                        let element = group * SIDE + at;
                        tile[element * WIDTH..(element + 1) * WIDTH].copy_from_slice(piece);
                    }
                } else {
                    let into = at * WIDTH + half * SIDE;
                    tile[into..into + SIDE].copy_from_slice(&bytes);
                }
            }
        }
    }
    done
}

/// Byte `j` of row `i` as byte `i` of row `j`.
#[inline]
fn transposed(rows: [u64; SIDE]) -> [u64; SIDE] {
    let rows = swapped::<4>(rows, 0xffff_ffff);
    let rows = swapped::<2>(rows, 0x0000_ffff_0000_ffff);
    swapped::<1>(rows, 0x00ff_00ff_00ff_00ff)
}

/// Swaps what lies `APART` rows below with what lies `APART` bytes beside.
#[inline]
fn swapped<const APART: usize>(mut rows: [u64; SIDE], mask: u64) -> [u64; SIDE] {
    for row in (0..SIDE).filter(|row| row & APART == 0) {
        let both = ((rows[row] >> (APART * 8)) ^ rows[row + APART]) & mask;
        rows[row + APART] ^= both;
        rows[row] ^= both << (APART * 8);
    }
    rows
}

/// Replaces each element, as a little-endian integer of 2, 4 or 8 bytes, by what it is more than
/// the one before; elements of other widths byte by byte.
pub(super) fn delta(bytes: &mut [u8], width: usize) {
    fn each<const WIDTH: usize>(
        bytes: &mut [u8],
        minus: fn([u8; WIDTH], [u8; WIDTH]) -> [u8; WIDTH],
    ) {
        let mut before = [0; WIDTH];
        for element in bytes.as_chunks_mut::<WIDTH>().0 {
            let now = *element;
            *element = minus(now, before);
            before = now;
        }
    }
    match width {
        2 => each(bytes, |a, b| {
            u16::from_le_bytes(a).wrapping_sub(u16::from_le_bytes(b)).to_le_bytes()
        }),
        4 => each(bytes, |a, b| {
            u32::from_le_bytes(a).wrapping_sub(u32::from_le_bytes(b)).to_le_bytes()
        }),
        8 => each(bytes, |a, b| {
            u64::from_le_bytes(a).wrapping_sub(u64::from_le_bytes(b)).to_le_bytes()
        }),
        _ => {
            for at in (width..bytes.len()).rev() {
                bytes[at] = bytes[at].wrapping_sub(bytes[at - width]);
            }
        }
    }
}

/// What [`delta`] was given.
pub(super) fn undelta(bytes: &mut [u8], width: usize) {
    fn each<const WIDTH: usize>(
        bytes: &mut [u8],
        plus: fn([u8; WIDTH], [u8; WIDTH]) -> [u8; WIDTH],
    ) {
        let mut before = [0; WIDTH];
        for element in bytes.as_chunks_mut::<WIDTH>().0 {
            before = plus(*element, before);
            *element = before;
        }
    }
    match width {
        2 => each(bytes, |a, b| {
            u16::from_le_bytes(a).wrapping_add(u16::from_le_bytes(b)).to_le_bytes()
        }),
        4 => each(bytes, |a, b| {
            u32::from_le_bytes(a).wrapping_add(u32::from_le_bytes(b)).to_le_bytes()
        }),
        8 => each(bytes, |a, b| {
            u64::from_le_bytes(a).wrapping_add(u64::from_le_bytes(b)).to_le_bytes()
        }),
        _ => {
            for at in width..bytes.len() {
                bytes[at] = bytes[at].wrapping_add(bytes[at - width]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_lie_where_their_number_in_the_element_says_and_come_back() {
        for width in [2, 3, 4, 5, 8, 12, 16, 24] {
            for len in
                [0_usize, 1, width - 1, width, 7 * width, 64, 64 * width, 67 * width + 1, 4096]
            {
                let from: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
                let mut to = vec![0; len];
                shuffle(&from, &mut to, width);
                let count = len / width;
                for (at, &it) in from.iter().enumerate().take(count * width) {
                    let (element, byte) = (at / width, at % width);
                    assert_eq!(to[byte * count + element], it, "{width}, {len}, {at}");
                }
                assert_eq!(to[count * width..], from[count * width..]);
                let mut back = vec![0; len];
                unshuffle(&to, &mut back, width);
                assert_eq!(back, from, "{width}, {len}");
            }
        }
    }
}
