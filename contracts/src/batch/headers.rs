//! Headers of records that carry a part of their event in them: the attributes of a CloudEvent in binary mode, the
//! kind of a webhook.
//!
//! *In*: headers of records in offset order. *Out*: the headers of one record. *Never*: an allocation per record while
//! nobody asks.

use bytes::Bytes;

/// Names and values as they came.
pub type HeaderList = Vec<(String, Bytes)>;

/// The headers of many records of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Per header: length of the name, length of the value, name, value.
    bytes: Vec<u8>,
    /// Offset of the record, and where its headers begin and end in `bytes`; ascending.
    places: Vec<(i64, usize, usize)>,
}

impl Headers {
    /// Remembers the headers of the record at `offset`, which is not before the last one.
    pub fn push<'a>(&mut self, offset: i64, headers: impl Iterator<Item = (&'a str, &'a [u8])>) {
        let start = self.bytes.len();
        for (name, value) in headers {
            self.bytes.extend((name.len() as u64).to_le_bytes());
            self.bytes.extend((value.len() as u64).to_le_bytes());
            self.bytes.extend(name.as_bytes());
            self.bytes.extend(value);
        }
        if self.bytes.len() > start {
            self.places.push((offset, start, self.bytes.len()));
        }
    }

    /// No record has any.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The headers of the record at `offset`; none where none were remembered.
    pub fn get(&self, offset: i64) -> HeaderList {
        let Ok(at) = self.places.binary_search_by_key(&offset, |place| place.0) else { return Vec::new() };
        let (_, start, end) = self.places[at];
        let mut rest = &self.bytes[start..end];
        let mut headers = Vec::new();
        while let Some((head, tail)) = rest.split_first_chunk::<16>() {
            let length = |from: usize| {
                let mut number = [0; 8];
                number.copy_from_slice(&head[from..from + 8]);
                u64::from_le_bytes(number) as usize
            };
            let (name, tail) = tail.split_at(length(0));
            let (value, tail) = tail.split_at(length(8));
            headers.push((String::from_utf8_lossy(name).into_owned(), Bytes::copy_from_slice(value)));
            rest = tail;
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_gets_its_own_back() {
        let mut headers = Headers::default();
        assert!(headers.is_empty() && headers.get(0).is_empty());
        headers.push(3, [("ce-id", &b"a"[..]), ("ce-type", b"\xff")].into_iter());
        headers.push(7, [("", &b""[..])].into_iter());
        let list = |pairs: &[(&str, &'static [u8])]| -> HeaderList {
            pairs.iter().map(|(n, v)| ((*n).to_owned(), Bytes::from_static(v))).collect()
        };
        assert_eq!(headers.get(3), list(&[("ce-id", b"a"), ("ce-type", b"\xff")]));
        assert_eq!(headers.get(7), list(&[("", b"")]));
        assert_eq!(headers.get(5), list(&[]));
    }
}
