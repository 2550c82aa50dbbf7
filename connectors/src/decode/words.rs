//! A map from short byte strings to the order in which they were added.
//!
//! *In*: keys, event types, values of low-cardinality fields. *Out*: their number, 0, 1, 2, ...
//! *Never*: a number that changes while the map lives, a comparison that is not exact.
//!
//! Up to 16 bytes a text is two overlapping words and its length, which decide equality alone; longer
//! ones are compared byte by byte. The hash is seeded, because values come from strangers.

/// See the module's words.
#[derive(Debug, Clone)]
pub(super) struct WordMap {
    slots: Vec<Slot>,
    /// All texts, one after the other.
    bytes: Vec<u8>,
    /// `ends[i]` is where text `i - 1` ends in `bytes`; starts with 0.
    ends: Vec<u32>,
    seed: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    head: u64,
    tail: u64,
    len: u32,
    id: u32,
}

const EMPTY: u32 = u32::MAX;
const FREE: Slot = Slot { head: 0, tail: 0, len: EMPTY, id: 0 };
const FIRST_SLOTS: usize = 16;

impl WordMap {
    pub(super) fn new() -> Self {
        Self {
            slots: vec![FREE; FIRST_SLOTS],
            bytes: Vec::new(),
            ends: vec![0],
            seed: ahash::RandomState::new().hash_one(0u8) | 1,
        }
    }

    /// Number of texts.
    pub(super) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// All texts end to end, and where each starts and ends (`len() + 1` positions).
    pub(super) fn parts(&self) -> (&[u8], &[u32]) {
        (&self.bytes, &self.ends)
    }

    /// Text number `id`.
    pub(super) fn text(&self, id: u32) -> &[u8] {
        let (from, to) = (self.ends[id as usize], self.ends[id as usize + 1]);
        &self.bytes[from as usize..to as usize]
    }

    #[cold]
    fn is(&self, id: u32, text: &[u8]) -> bool {
        self.text(id) == text
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.slots = vec![FREE; FIRST_SLOTS];
        self.bytes = Vec::new();
        self.ends = vec![0];
    }

    /// The number of `text`, if it is known.
    #[inline]
    pub(super) fn get(&self, text: &[u8]) -> Option<u32> {
        let (head, tail) = words(text, self.seed);
        let mask = self.slots.len() - 1;
        let mut at = self.hash(head, tail, text.len());
        loop {
            let slot = &self.slots[at & mask];
            if slot.len == EMPTY {
                return None;
            }
            if slot.head == head
                && slot.tail == tail
                && slot.len as usize == text.len()
                && (text.len() <= 16 || self.is(slot.id, text))
            {
                return Some(slot.id);
            }
            at += 1;
        }
    }

    /// The number of `text`, adding it if need be.
    #[inline]
    pub(super) fn add(&mut self, text: &[u8]) -> u32 {
        match self.get(text) {
            Some(id) => id,
            None => self.insert(text),
        }
    }

    #[cold]
    fn insert(&mut self, text: &[u8]) -> u32 {
        if (self.len() + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let id = self.len() as u32;
        let (head, tail) = words(text, self.seed);
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len() as u32);
        self.place(Slot { head, tail, len: text.len() as u32, id });
        id
    }

    fn grow(&mut self) {
        let bigger = vec![FREE; self.slots.len() * 4];
        for slot in std::mem::replace(&mut self.slots, bigger) {
            if slot.len != EMPTY {
                self.place(slot);
            }
        }
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = self.hash(slot.head, slot.tail, slot.len as usize);
        while self.slots[at & mask].len != EMPTY {
            at += 1;
        }
        self.slots[at & mask] = slot;
    }

    #[inline]
    fn hash(&self, head: u64, tail: u64, len: usize) -> usize {
        // Half of usize, so that `at += 1` above never overflows.
        (fold(head ^ self.seed, tail ^ self.seed.rotate_left(32) ^ len as u64) >> 1) as usize
    }
}

/// Two words that are different for different texts of one length up to 16 bytes.
#[inline]
fn words(text: &[u8], seed: u64) -> (u64, u64) {
    let len = text.len();
    if len > 16 {
        return long_words(text, seed);
    }
    if len >= 4 {
        // Four overlapping loads cover 4 to 16 bytes without a branch on the length.
        let head = half(text, 0) | half(text, 4.min(len - 4)) << 32;
        return (head, half(text, len.max(8) - 8) | half(text, len - 4) << 32);
    }
    let word = text.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    (word, 0)
}

/// The hash of all but the last words, and the last word.
#[cold]
fn long_words(text: &[u8], seed: u64) -> (u64, u64) {
    let chunks = text.as_chunks::<8>().0;
    let head = chunks
        .iter()
        .fold(seed, |head, chunk| fold(head ^ u64::from_le_bytes(*chunk), 0x9E37_79B9_7F4A_7C15));
    (head, half(text, text.len() - 8) | half(text, text.len() - 4) << 32)
}

/// The four bytes from `at`.
#[inline(always)]
fn half(text: &[u8], at: usize) -> u64 {
    match text.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        Some(bytes) => u64::from(u32::from_le_bytes(*bytes)),
        None => 0,
    }
}

/// Folded multiplication: every bit of both factors reaches every bit of the result.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::WordMap;

    #[test]
    fn numbers_follow_the_order_of_arrival_and_texts_of_all_lengths_differ() {
        let mut map = WordMap::new();
        let mut texts: Vec<Vec<u8>> = (0..40).map(|n| vec![b'a'; n]).collect();
        texts.extend((0..3000).map(|n| format!("value-{n}-of-a-long-list").into_bytes()));
        texts.extend((0..3000).map(|n| format!("{n}").into_bytes()));
        for (id, text) in texts.iter().enumerate() {
            assert_eq!(map.get(text), None);
            assert_eq!(map.add(text), id as u32);
        }
        for (id, text) in texts.iter().enumerate() {
            assert_eq!(map.add(text), id as u32);
            assert_eq!(map.text(id as u32), text.as_slice());
        }
        map.clear();
        assert_eq!(map.add(b"x"), 0);
    }
}
