//! Seeded changes of bytes, for runs without a fuzzer.
//!
//! Numbers are replaced by those at which counts, lengths and offsets go wrong, in the widths that
//! our files use; pieces are copied, cut out and doubled.
//!
//! # Invariants
//!
//! 1. The same seed makes the same changes, on every machine.

/// Numbers at which arithmetic goes wrong.
pub(crate) const EXTREMES: [u64; 24] = [
    0,
    1,
    2,
    3,
    7,
    8,
    63,
    64,
    255,
    256,
    4095,
    4096,
    0xFFFF,
    0x1_0000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    1 << 40,
    1 << 51,
    1 << 52,
    1 << 60,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// A sequence of numbers without pattern: splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// The sequence of this seed.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x1234_5678_9ABC_DEF1))
    }

    /// The next number.
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let n = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        n ^ (n >> 31)
    }

    /// A number below `limit`, or 0 if that is 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        match limit as u64 {
            0 => 0,
            limit => usize::try_from(self.roll() % limit).unwrap_or(0),
        }
    }
}

/// Changes `bytes` here and there; `other` is another seed to take pieces from.
pub(crate) fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..1 + dice.below(4) {
        change(dice, bytes, other);
    }
}

fn change(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = near_content(dice, bytes);
    match dice.below(10) {
        0 => with(bytes, at, |byte| *byte ^= 1 << dice.below(8)),
        1 => with(bytes, at, |byte| *byte = dice.roll().to_le_bytes()[0]),
        2..=5 => {
            let number = EXTREMES[dice.below(EXTREMES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][dice.below(4)];
            let end = bytes.len().min(at + width);
            let at = at.min(end);
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
        6 => bytes.truncate(at),
        7 => {
            let end = bytes.len().min(at + dice.below(64));
            bytes.drain(at.min(end)..end);
        }
        8 => {
            let from = dice.below(other.len());
            let piece = &other[from..other.len().min(from + 1 + dice.below(64))];
            let end = bytes.len().min(at + piece.len());
            let is_insert = dice.below(2) == 0;
            bytes.splice(at.min(end)..if is_insert { at.min(end) } else { end }, piece.to_vec());
        }
        _ => {
            let end = bytes.len().min(at + 1 + dice.below(64));
            let piece = bytes[at.min(end)..end].to_vec();
            let to = dice.below(bytes.len());
            bytes.splice(to..to, piece);
        }
    }
}

/// A place that is not in the middle of long padding: files are mostly that.
fn near_content(dice: &mut Dice, bytes: &[u8]) -> usize {
    for _ in 0..32 {
        let at = dice.below(bytes.len());
        let around = &bytes[at.saturating_sub(4)..bytes.len().min(at + 4)];
        if around.iter().any(|byte| !matches!(byte, 0 | b' ')) {
            return at;
        }
    }
    dice.below(bytes.len())
}

fn with(bytes: &mut [u8], at: usize, change: impl FnOnce(&mut u8)) {
    if let Some(byte) = bytes.get_mut(at) {
        change(byte);
    }
}
