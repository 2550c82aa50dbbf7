//! Values as a checkpoint has them.
//!
//! *In*: serialised texts and keys. *Out*: the shared values. *Never*: a copy in between: state is millions of them.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::Value;

/// A text.
pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = Arc<str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Arc<str>, E> {
            Ok(Arc::from(text))
        }
    }
    from.deserialize_str(Text)
}

/// Values that lie together, such as a key. Keys of one or two values are made in place.
pub fn values<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<[Value]>, D::Error> {
    struct Values;
    impl<'de> Visitor<'de> for Values {
        type Value = Arc<[Value]>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("values")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Arc<[Value]>, A::Error> {
            let Some(first) = from.next_element()? else { return Ok(Arc::new([])) };
            let Some(second) = from.next_element()? else { return Ok(Arc::new([first])) };
            let Some(third) = from.next_element()? else { return Ok(Arc::new([first, second])) };
            let mut all = vec![first, second, third];
            while let Some(next) = from.next_element()? {
                all.push(next);
            }
            Ok(all.into())
        }
    }
    from.deserialize_seq(Values)
}
