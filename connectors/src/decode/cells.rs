//! Growing columns that can take their last row back.
//!
//! *In*: values and nulls, one row after the other. *Out*: Arrow arrays. *Never*: text that is not UTF-8,
//! an offset beyond 31 bits (a chunk takes at most 1 GiB of input).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanBufferBuilder, DictionaryArray, Int32Array, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::Int32Type;

use super::words::WordMap;

/// Which rows are null, as a growing list.
#[derive(Debug, Default)]
pub(super) struct Nulls(Vec<u32>);

impl Nulls {
    pub(super) fn push(&mut self, row: usize) {
        self.0.push(row as u32);
    }

    pub(super) fn has(&self, row: usize) -> bool {
        self.0.last() == Some(&(row as u32))
    }

    /// Forgets the rows from `len` on.
    #[inline]
    pub(super) fn truncate(&mut self, len: usize) {
        while self.0.last().is_some_and(|row| *row as usize >= len) {
            self.0.pop();
        }
    }

    /// `None` when no row is null.
    pub(super) fn take(&mut self, len: usize) -> Option<NullBuffer> {
        if self.0.is_empty() {
            return None;
        }
        let mut valid = BooleanBufferBuilder::new(len);
        valid.append_n(len, true);
        for row in self.0.drain(..) {
            valid.set_bit(row as usize, false);
        }
        Some(NullBuffer::new(valid.finish()))
    }
}

/// Values of a fixed size.
#[derive(Debug, Default)]
pub(super) struct Cells<T> {
    values: Vec<T>,
    nulls: Nulls,
}

impl<T: Copy + Default> Cells<T> {
    #[inline]
    pub(super) fn push(&mut self, value: T) {
        self.values.push(value);
    }

    pub(super) fn push_null(&mut self) {
        self.nulls.push(self.values.len());
        self.values.push(T::default());
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    #[inline]
    pub(super) fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.nulls.truncate(len);
    }

    /// The last value, unless it is null.
    pub(super) fn last(&self) -> Option<T> {
        let row = self.values.len().checked_sub(1)?;
        if self.nulls.has(row) { None } else { Some(self.values[row]) }
    }

    /// Gives `value` to the last row if it is null.
    pub(super) fn fill_last(&mut self, value: T) {
        if self.last().is_none() && !self.values.is_empty() {
            self.truncate(self.values.len() - 1);
            self.push(value);
        }
    }

    pub(super) fn take(&mut self) -> (Vec<T>, Option<NullBuffer>) {
        let nulls = self.nulls.take(self.values.len());
        let next = Vec::with_capacity(self.values.len());
        (std::mem::replace(&mut self.values, next), nulls)
    }
}

/// Text end to end.
#[derive(Debug)]
pub(super) struct Texts {
    data: Vec<u8>,
    /// Where each row ends; starts with 0.
    ends: Vec<i32>,
    nulls: Nulls,
}

impl Texts {
    pub(super) fn new() -> Self {
        Self { data: Vec::new(), ends: vec![0], nulls: Nulls::default() }
    }

    #[inline]
    pub(super) fn push(&mut self, text: &[u8]) {
        self.data.extend_from_slice(text);
        self.ends.push(self.data.len() as i32);
    }

    pub(super) fn push_null(&mut self) {
        self.nulls.push(self.len());
        self.ends.push(self.data.len() as i32);
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    #[inline]
    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.ends.truncate(len + 1);
            self.data.truncate(self.ends[len] as usize);
            self.nulls.truncate(len);
        }
    }

    pub(super) fn take(&mut self) -> StringArray {
        let nulls = self.nulls.take(self.len());
        let mut ends = Vec::with_capacity(self.ends.len());
        ends.push(0);
        let ends = std::mem::replace(&mut self.ends, ends);
        let data = Vec::with_capacity(self.data.len());
        let data = std::mem::replace(&mut self.data, data);
        StringArray::try_new(OffsetBuffer::new(ScalarBuffer::from(ends)), Buffer::from_vec(data), nulls)
            .expect("only UTF-8 is pushed, and offsets only grow")
    }
}

/// Values remembered per field; beyond it the field starts anew with the next chunk.
const MAX_INTERNED: usize = 65_536;
/// The same for the length of all values together.
const MAX_INTERNED_BYTES: usize = 16 << 20;

/// Text of few values: codes, and the values behind them across chunks.
#[derive(Debug)]
pub(super) struct Codes {
    codes: Cells<i32>,
    values: WordMap,
    /// By code: its checks hold.
    good: Vec<bool>,
    /// `values` as handed out last; made anew when it has grown.
    shared: Arc<StringArray>,
}

impl Codes {
    pub(super) fn new() -> Self {
        Self {
            codes: Cells::default(),
            values: WordMap::new(),
            good: Vec::new(),
            shared: Arc::new(StringArray::from(Vec::<&str>::new())),
        }
    }

    /// Adds a row; whether its value is good, where that is known already.
    #[inline]
    pub(super) fn push(&mut self, text: &[u8]) -> Option<bool> {
        let code = self.values.add(text);
        self.codes.push(code as i32);
        self.good.get(code as usize).copied()
    }

    /// What `push` did not know about its value, the newest one.
    pub(super) fn judge(&mut self, good: bool) {
        self.good.push(good);
    }

    pub(super) fn push_null(&mut self) {
        self.codes.push_null();
    }

    pub(super) fn len(&self) -> usize {
        self.codes.len()
    }

    #[inline]
    pub(super) fn truncate(&mut self, len: usize) {
        self.codes.truncate(len);
    }

    pub(super) fn take(&mut self) -> ArrayRef {
        if self.shared.len() < self.values.len() {
            let (bytes, ends) = self.values.parts();
            let ends: Vec<i32> = ends.iter().map(|end| *end as i32).collect();
            let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
            let values = StringArray::try_new(ends, Buffer::from(bytes), None)
                .expect("only UTF-8 is interned, and offsets only grow");
            self.shared = Arc::new(values);
        }
        let (codes, nulls) = self.codes.take();
        let codes = Int32Array::new(ScalarBuffer::from(codes), nulls);
        let array = DictionaryArray::<Int32Type>::try_new(codes, self.shared.clone())
            .expect("every code has a value");
        if self.values.len() > MAX_INTERNED || self.values.parts().0.len() > MAX_INTERNED_BYTES {
            *self = Self { codes: Cells::default(), ..Self::new() };
        }
        Arc::new(array)
    }
}
