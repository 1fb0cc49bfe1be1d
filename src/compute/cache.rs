//! Results that are kept from one run to the next, as long as they are worth their memory.
//!
//! A result is worth what it cost to make, by its size, and more the more often and the more lately
//! it was asked for:
//!
//! ```text
//! score = sum over all times it was put or got:  seconds / bytes * 2 ^ -(age / half-life)
//! ```
//!
//! Age is counted in puts and gets of the whole cache. This is the policy of cachey, in other
//! numbers: instead of letting what is added grow without end, until it is infinite, all scores
//! shrink together whenever it has doubled a few times.
//!
//! # Invariants
//!
//! 1. The bytes of what is kept are counted once each and never exceed the limit.
//! 2. Scores are finite, and only what is kept has one.
//! 3. A key stands for one content: the same expression over the same snapshot.

use std::collections::HashMap;
use std::time::Duration;

use super::value::Value;
use crate::sync::Mutex;

/// The name of a result by content: a digest of the expression, the block, and the tids of the
/// snapshots that it reads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct CacheKey(pub [u8; 16]);

/// Puts and gets after which the weight of an old one is a half, unless said otherwise.
const HALF_LIFE: f64 = 1000.0;
/// When what is added has grown by this factor, all scores are divided by it.
const GROWTH_MAX: f64 = 1e9;
/// What makes a result that cost nothing worth more the smaller it is.
const SECONDS_MIN: f64 = 1e-9;

/// Results by content. Shared by reference between runs and threads.
pub struct Cache {
    bytes_max: u64,
    growth: f64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: HashMap<CacheKey, Entry>,
    bytes: u64,
    // What the next put or get adds, relative to the first since the last division.
    weight: f64,
    hits: u64,
    misses: u64,
}

struct Entry {
    value: Value,
    worth: f64,
    score: f64,
}

impl Cache {
    /// A cache that keeps at most `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self::with_half_life(bytes_max, HALF_LIFE)
    }

    /// The same, of another half-life in puts and gets.
    #[must_use]
    pub fn with_half_life(bytes_max: u64, half_life: f64) -> Self {
        let growth = (1.0 / half_life.max(1.0)).exp2();
        let state = Mutex::new(State { weight: 1.0, ..State::default() });
        Self { bytes_max, growth, state }
    }

    /// The value of `key`, if it is kept.
    #[must_use]
    pub fn get(&self, key: CacheKey) -> Option<Value> {
        let mut state = self.state.lock();
        let weight = state.tick(self.growth);
        match state.kept.get_mut(&key) {
            Some(entry) => {
                entry.score += entry.worth * weight;
                let value = entry.value.clone();
                state.hits += 1;
                Some(value)
            }
            None => {
                state.misses += 1;
                None
            }
        }
    }

    /// Keeps `value`, which took `time` to make, if it is worth more than what must go for it.
    pub fn put(&self, key: CacheKey, value: Value, time: Duration) {
        let mut dropped = Vec::new();
        let mut state = self.state.lock();
        let weight = state.tick(self.growth);
        let bytes = value.bytes();
        if bytes > self.bytes_max {
            return;
        }
        let worth = time.as_secs_f64().max(SECONDS_MIN) / bytes.max(1) as f64;
        let mut score = worth * weight;
        if let Some(before) = state.kept.remove(&key) {
            state.bytes -= before.value.bytes();
            score += before.score;
            dropped.push(before.value);
        }
        state.bytes += bytes;
        state.kept.insert(key, Entry { value, worth, score });
        state.shrink(self.bytes_max, &mut dropped);
        // Large values are given back without the lock.
        drop(state);
        drop(dropped);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        let kept = std::mem::take(&mut state.kept);
        state.bytes = 0;
        drop(state);
        drop(kept);
    }

    /// Bytes of what is kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// How often a value was asked for and there, and asked for and not there.
    #[must_use]
    pub fn hits_and_misses(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.hits, state.misses)
    }
}

impl State {
    /// Goes on by one put or get; returns what it adds.
    fn tick(&mut self, growth: f64) -> f64 {
        self.weight *= growth;
        if self.weight > GROWTH_MAX {
            let weight = std::mem::replace(&mut self.weight, 1.0);
            self.kept.values_mut().for_each(|entry| entry.score /= weight);
        }
        self.weight
    }

    /// Drops what has the lowest scores until the rest fits.
    fn shrink(&mut self, bytes_max: u64, dropped: &mut Vec<Value>) {
        if self.bytes <= bytes_max {
            return;
        }
        let mut scores: Vec<(f64, CacheKey)> =
            self.kept.iter().map(|(&key, entry)| (entry.score, key)).collect();
        scores.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (_, key) in scores {
            if self.bytes <= bytes_max {
                break;
            }
            if let Some(entry) = self.kept.remove(&key) {
                self.bytes -= entry.value.bytes();
                dropped.push(entry.value);
            }
        }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        write!(formatter, "Cache({} values, {} bytes)", state.kept.len(), state.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> CacheKey {
        CacheKey([number; 16])
    }

    fn put(cache: &Cache, number: u8, bytes: u64, millis: u64) {
        cache.put(key(number), Value::new(number, bytes), Duration::from_millis(millis));
    }

    #[test]
    fn what_cost_least_for_its_bytes_goes_first() {
        let cache = Cache::new(100);
        put(&cache, 1, 50, 10);
        put(&cache, 2, 50, 30);
        put(&cache, 3, 50, 20);
        let kept = [1, 2, 3].map(|number| cache.get(key(number)).is_some());
        assert_eq!((kept, cache.bytes()), ([false, true, true], 100));
        put(&cache, 4, 101, 1000);
        assert_eq!(cache.bytes(), 100, "what is too large does not push anything out");
        put(&cache, 5, 1, 0);
        assert!(cache.get(key(5)).is_none(), "what is worth less than all others does not stay");
    }

    #[test]
    fn a_key_that_is_put_twice_is_counted_once() {
        let cache = Cache::new(100);
        for _ in 0..5 {
            put(&cache, 1, 60, 10);
        }
        assert_eq!(cache.bytes(), 60);
        cache.clear();
        assert_eq!((cache.bytes(), cache.get(key(1)).is_some()), (0, false));
    }

    #[test]
    fn old_uses_count_less_than_new_ones() {
        let cache = Cache::with_half_life(100, 4.0);
        put(&cache, 1, 50, 10);
        for _ in 0..3 {
            assert!(cache.get(key(1)).is_some());
        }
        for _ in 0..40 {
            assert!(cache.get(key(9)).is_none());
        }
        put(&cache, 2, 50, 5);
        put(&cache, 3, 50, 5);
        let kept = [1, 2, 3].map(|number| cache.get(key(number)).is_some());
        assert_eq!(kept, [false, true, true]);
    }

    #[test]
    fn thousands_of_half_lives_leave_scores_finite_and_in_order() {
        // A weight that only grew would be infinite after 1024 half-lives.
        let cache = Cache::with_half_life(100, 20.0);
        put(&cache, 1, 50, 10);
        put(&cache, 2, 50, 10);
        for _ in 0..40_000 {
            assert!(cache.get(key(1)).is_some());
        }
        assert!(cache.state.lock().kept.values().all(|entry| entry.score.is_finite()));
        put(&cache, 3, 50, 10);
        let kept = [1, 2, 3].map(|number| cache.get(key(number)).is_some());
        assert_eq!(kept, [true, false, true], "the one that was used most stays");
    }
}
