//! Avro by the schema it was written with.
//!
//! *In*: a datum in Avro's binary encoding. *Out*: JSON: unions without their branch, decimals and times by
//! their logical type, or by the name Kafka Connect and Debezium give it, as text.
//! *Never*: a value read beyond the datum's end, bytes left over, recursion without end.
//!
//! Our own reader, because `apache-avro` forgets what stands beside a primitive type (`connect.name`), which is
//! where Debezium says what a number means, and because a tree of values per record is what we do not need.

mod schema;

use super::text::Text;
use crate::decode::debezium::{Shape, shown, unscaled};

pub(super) use schema::Schema;
use schema::{Node, Nodes};

/// Values inside of values.
const MOST_DEPTH: u32 = 100;

impl Schema {
    /// Writes the datum in `data`.
    pub(super) fn write(&self, data: &[u8], out: &mut Text) -> Result<(), String> {
        let mut reader = Reader { data, at: 0, nodes: self.nodes() };
        reader.value(self.root(), 0, out)?;
        if reader.at < data.len() {
            return Err(format!("{} bytes are left over", data.len() - reader.at));
        }
        Ok(())
    }
}

struct Reader<'d, 's> {
    data: &'d [u8],
    at: usize,
    nodes: &'s Nodes,
}

impl<'d> Reader<'d, '_> {
    fn take(&mut self, len: usize) -> Result<&'d [u8], String> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.data.len());
        let end = end.ok_or_else(|| format!("byte {}: ends where {len} more bytes are expected", self.at))?;
        let bytes = &self.data[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn long(&mut self) -> Result<i64, String> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(format!("byte {}: a number of more than 10 bytes", self.at))
    }

    fn length(&mut self) -> Result<usize, String> {
        let at = self.at;
        let length = self.long()?;
        usize::try_from(length).map_err(|_| format!("byte {at}: a length of {length}"))
    }

    fn bytes(&mut self) -> Result<&'d [u8], String> {
        let length = self.length()?;
        self.take(length)
    }

    fn text(&mut self) -> Result<&'d str, String> {
        let at = self.at;
        std::str::from_utf8(self.bytes()?).map_err(|_| format!("byte {at}: text that is not UTF-8"))
    }

    fn value(&mut self, node: u32, depth: u32, out: &mut Text) -> Result<(), String> {
        if depth > MOST_DEPTH {
            return Err(format!("byte {}: nested deeper than {MOST_DEPTH} levels", self.at));
        }
        let nodes = self.nodes;
        match &nodes[node as usize] {
            Node::Null => out.raw(b"null"),
            Node::Bool => match self.take(1)?[0] {
                0 => out.raw(b"false"),
                1 => out.raw(b"true"),
                other => return Err(format!("byte {}: a boolean that is {other}", self.at - 1)),
            },
            Node::Integer => {
                let value = self.long()?;
                out.number(value);
            }
            Node::Float => {
                let bytes = self.take(4)?.try_into().unwrap_or_default();
                out.single(f32::from_le_bytes(bytes));
            }
            Node::Double => {
                let bytes = self.take(8)?.try_into().unwrap_or_default();
                out.float(f64::from_le_bytes(bytes));
            }
            Node::Bytes => out.base64(self.bytes()?),
            Node::Fixed(size) => out.base64(self.take(*size)?),
            Node::Text => out.string(self.text()?),
            Node::Enum(symbols) => {
                let at = self.at;
                let symbol = usize::try_from(self.long()?).ok().and_then(|symbol| symbols.get(symbol));
                out.string(symbol.ok_or_else(|| format!("byte {at}: an enum has no such symbol"))?);
            }
            Node::Union(branches) => {
                let at = self.at;
                let branch = usize::try_from(self.long()?).ok().and_then(|branch| branches.get(branch));
                let branch = *branch.ok_or_else(|| format!("byte {at}: a union has no such branch"))?;
                self.value(branch, depth + 1, out)?;
            }
            Node::Record(fields) => {
                for (i, (name, field)) in fields.iter().enumerate() {
                    out.raw(if i == 0 { b"{" } else { b"," });
                    out.raw(name);
                    self.value(*field, depth + 1, out)?;
                }
                out.raw(if fields.is_empty() { b"{}" } else { b"}" });
            }
            Node::Array(item) => {
                out.raw(b"[");
                self.blocks(out, |reader, out| reader.value(*item, depth + 1, out))?;
                out.raw(b"]");
            }
            Node::Map(item) => {
                out.raw(b"{");
                self.blocks(out, |reader, out| {
                    out.string(reader.text()?);
                    out.raw(b":");
                    reader.value(*item, depth + 1, out)
                })?;
                out.raw(b"}");
            }
            Node::Meaning(shape, fixed) => self.meaning(shape, *fixed, out)?,
        }
        out.room()
    }

    /// The blocks of an array or a map, with commas between the items.
    fn blocks(
        &mut self,
        out: &mut Text,
        mut item: impl FnMut(&mut Self, &mut Text) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut first = true;
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // The block's size in bytes follows, for readers that skip it.
                self.length()?;
            }
            for _ in 0..count.unsigned_abs() {
                if !std::mem::take(&mut first) {
                    out.raw(b",");
                }
                item(self, out)?;
                out.room()?;
            }
        }
    }

    /// A value whose type says what it means.
    fn meaning(&mut self, shape: &Shape, fixed: Option<usize>, out: &mut Text) -> Result<(), String> {
        match shape {
            Shape::Decimal { scale } => {
                let bytes = match fixed {
                    Some(size) => self.take(size)?,
                    None => self.bytes()?,
                };
                self.decimal(bytes, *scale, out)
            }
            Shape::VariableDecimal => {
                let scale = self.long()?;
                let bytes = self.bytes()?;
                self.decimal(bytes, scale, out)
            }
            Shape::Instant(unit) => {
                let count = self.long()?;
                out.instant(unit.micros(count));
                Ok(())
            }
            Shape::Day => {
                let days = self.long()?;
                out.day(days);
                Ok(())
            }
            Shape::TimeOfDay(unit) => {
                let count = self.long()?;
                match unit.micros(count).filter(|micros| (0..=86_400_000_000).contains(micros)) {
                    Some(micros) => out.time_of_day(micros),
                    None => out.number(count),
                }
                Ok(())
            }
            // Texts with a meaning are texts.
            _ => {
                out.string(self.text()?);
                Ok(())
            }
        }
    }

    fn decimal(&self, bytes: &[u8], scale: i64, out: &mut Text) -> Result<(), String> {
        let text = unscaled(bytes).and_then(|unscaled| shown(unscaled, scale));
        out.plain(&text.ok_or_else(|| format!("byte {}: a decimal of more than 38 digits", self.at))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(schema: &str, references: &[(&str, &str)], data: &[u8]) -> Result<String, String> {
        let references: Vec<(String, String)> =
            references.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let schema = Schema::parse(schema, &references)?;
        let mut out = Text::default();
        schema.write(data, &mut out)?;
        Ok(String::from_utf8_lossy(out.bytes()).into_owned())
    }

    /// The examples of Avro's specification, section "Binary Encoding".
    #[test]
    fn the_specification_s_examples() {
        for (data, value) in [
            (&b"\x00"[..], "0"),
            (b"\x01", "-1"),
            (b"\x02", "1"),
            (b"\x03", "-2"),
            (b"\x7f", "-64"),
            (b"\x80\x01", "64"),
        ] {
            assert_eq!(write(r#""int""#, &[], data).unwrap(), value);
        }
        assert_eq!(write(r#""string""#, &[], b"\x06foo").unwrap(), r#""foo""#);
        let test = r#"{"type":"record","name":"test","fields":[{"name":"a","type":"long"},{"name":"b","type":"string"}]}"#;
        assert_eq!(write(test, &[], b"\x36\x06foo").unwrap(), r#"{"a":27,"b":"foo"}"#);
        let list = r#"{"type":"array","items":"long"}"#;
        assert_eq!(write(list, &[], b"\x04\x06\x36\x00").unwrap(), "[3,27]");
        assert_eq!(write(list, &[], b"\x03\x04\x06\x36\x00").unwrap(), "[3,27]", "a block with its size");
        assert_eq!(write(r#"["null","string"]"#, &[], b"\x00").unwrap(), "null");
        assert_eq!(write(r#"["null","string"]"#, &[], b"\x02\x02a").unwrap(), r#""a""#);
        let cards = r#"{"type":"enum","name":"Foo","symbols":["A","B","C","D"]}"#;
        assert_eq!(write(cards, &[], b"\x06").unwrap(), r#""D""#);
    }

    #[test]
    fn logical_types_and_those_of_debezium() {
        let field = |ty: &str, data: &[u8]| write(ty, &[], data).unwrap();
        let micros = |n: i64| {
            let mut zigzag = ((n << 1) ^ (n >> 63)) as u64;
            let mut bytes = Vec::new();
            while zigzag >= 0x80 {
                bytes.push(zigzag as u8 | 0x80);
                zigzag >>= 7;
            }
            bytes.push(zigzag as u8);
            bytes
        };
        let at = micros(1_767_225_600_000_001);
        assert_eq!(
            field(r#"{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}"#, b"\x0409"),
            r#""123.45""#
        );
        assert_eq!(
            field(
                r#"{"type":"fixed","name":"f","size":2,"logicalType":"decimal","precision":4,"scale":2}"#,
                b"\xff\xff"
            ),
            r#""-0.01""#
        );
        assert_eq!(
            field(r#"{"type":"long","logicalType":"timestamp-micros"}"#, &at),
            r#""2026-01-01T00:00:00.000001Z""#
        );
        let debezium =
            r#"{"type":"long","connect.version":1,"connect.name":"io.debezium.time.MicroTimestamp"}"#;
        assert_eq!(field(debezium, &at), r#""2026-01-01T00:00:00.000001Z""#);
        assert_eq!(field(r#"{"type":"int","logicalType":"date"}"#, &micros(20454)), r#""2026-01-01""#);
        assert_eq!(
            field(r#"{"type":"int","connect.name":"io.debezium.time.Date"}"#, &micros(-1)),
            r#""1969-12-31""#
        );
        assert_eq!(
            field(r#"{"type":"long","logicalType":"time-micros"}"#, &micros(43_200_000_001)),
            r#""12:00:00.000001""#
        );
        let variable = r#"{"type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data","fields":[{"name":"scale","type":"int"},{"name":"value","type":"bytes"}],"connect.name":"io.debezium.data.VariableScaleDecimal"}"#;
        assert_eq!(field(variable, b"\x02\x0409"), r#""1234.5""#);
        assert_eq!(field(r#"{"type":"double"}"#, &5f64.to_le_bytes()), "5.0");
        assert_eq!(field(r#""double""#, &f64::NAN.to_le_bytes()), r#""NaN""#);
        assert_eq!(field(r#""bytes""#, b"\x0409"), r#""MDk=""#);
        assert_eq!(field(r#"{"type":"map","values":"int"}"#, b"\x02\x02a\x04\x00"), r#"{"a":2}"#);
    }

    #[test]
    fn names_references_and_types_that_hold_themselves() {
        let tree = r#"{"type":"record","name":"Tree","namespace":"t","fields":[{"name":"n","type":"int"},{"name":"next","type":["null","Tree"]}]}"#;
        assert_eq!(write(tree, &[], b"\x02\x02\x04\x00").unwrap(), r#"{"n":1,"next":{"n":2,"next":null}}"#);
        let main = r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"money","type":"shop.Money"},{"name":"again","type":"Money"}]}"#;
        let money = r#"{"type":"record","name":"Money","namespace":"shop","fields":[{"name":"cents","type":"long"}]}"#;
        let text = write(main, &[("shop.Money", money)], b"\x02\x04").unwrap();
        assert_eq!(text, r#"{"money":{"cents":1},"again":{"cents":2}}"#);
        assert!(write(main, &[], b"").unwrap_err().contains("shop.Money"));
        let deep: Vec<u8> = std::iter::repeat_n([2u8, 2], 5000).flatten().collect();
        assert!(write(tree, &[], &deep).unwrap_err().contains("nested deeper"));
    }

    #[test]
    fn hostile_data_ends_in_words() {
        let nulls = r#"{"type":"array","items":"null"}"#;
        let endless = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert!(write(nulls, &[], endless).unwrap_err().contains("more than"));
        for (schema, data) in [
            (r#""string""#, &b"\x06fo"[..]),
            (r#""string""#, b"\x01"),
            (r#""string""#, b"\x02\xff"),
            (r#""long""#, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            (r#""int""#, b""),
            (r#""int""#, b"\x02\x02"),
            (r#""boolean""#, b"\x02"),
            (r#"["null"]"#, b"\x02"),
            (r#"["null"]"#, b"\x01"),
            (r#"{"type":"enum","name":"e","symbols":["A"]}"#, b"\x02"),
            (r#""bytes""#, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ] {
            assert!(write(schema, &[], data).is_err(), "{schema} {data:?}");
        }
        for schema in [
            "",
            "7",
            r#""nothing""#,
            r#"{"type":"record","name":"r"}"#,
            r#"{"type":"fixed","name":"f","size":-1}"#,
        ] {
            assert!(write(schema, &[], b"").is_err(), "{schema}");
        }
    }

    #[test]
    fn random_bytes_never_panic_and_what_is_read_is_json() {
        let schema = r#"{"type":"record","name":"R","fields":[
            {"name":"a","type":["null","string",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]},
            {"name":"b","type":{"type":"array","items":{"type":"map","values":"double"}}},
            {"name":"c","type":{"type":"long","logicalType":"timestamp-micros"}},
            {"name":"d","type":{"type":"int","logicalType":"date"}},
            {"name":"e","type":{"type":"int","logicalType":"time-millis"}},
            {"name":"f","type":{"type":"enum","name":"E","symbols":["X","Y"]}},
            {"name":"g","type":["null","R"]}]}"#;
        let schema = Schema::parse(schema, &[]).unwrap();
        let good =
            [b"\x02\x04ab\x02\x02\x02k".to_vec(), 1.5f64.to_le_bytes().to_vec(), vec![0, 0, 2, 2, 2, 0, 0]]
                .concat();
        assert!(schema.write(&good, &mut Text::default()).is_ok());
        let mut random = fastrand::Rng::with_seed(5);
        let mut read = 0;
        for _ in 0..50_000 {
            let mut data = good.clone();
            for _ in 0..random.usize(0..3) {
                let at = random.usize(0..data.len());
                data[at] = random.u8(..) >> random.u8(0..8);
            }
            let mut out = Text::default();
            let end = schema.write(&data, &mut out);
            if end.is_ok() || end.is_err_and(|why| why.contains("left over")) {
                read += 1;
                let text = String::from_utf8_lossy(out.bytes());
                assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
            }
        }
        assert!(read > 100, "{read} were read");
    }
}
