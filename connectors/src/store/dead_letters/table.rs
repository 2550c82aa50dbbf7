//! The rows on disk.
//!
//! *In*: rows. *Out*: rows. *Never*: a head without its payload: both are written in one transaction.

use bytes::Bytes;
use contracts::batch::{HeaderList, Partition, Reason, Refused};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use sha2::{Digest, Sha256};

use super::index::{Index, Key};
use super::{DeadLetter, Status, format_id};

/// (received, id) -> head as JSON.
const HEADS: TableDefinition<'static, (i64, u64), &[u8]> = TableDefinition::new("heads");
/// id -> payload.
const PAYLOADS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("payloads");
/// Partition -> (offset, received) of the newest dropped row: what is not newer does not come back.
const FLOORS: TableDefinition<'static, (&str, &str, i32), (i64, i64)> = TableDefinition::new("floors");
/// `format`, `dropped`.
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const FORMAT: u64 = 1;

/// A row without its payload, as it lies on disk.
#[derive(serde::Serialize, serde::Deserialize)]
struct Head {
    source: String,
    topic: String,
    number: i32,
    offset: i64,
    part: u32,
    event_type: Option<String>,
    event_id: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: HeaderList,
    reasons: Vec<Reason>,
    status: Status,
    retry_count: u32,
    last_retried_at: Option<i64>,
    note: Option<String>,
    payload_len: u64,
    fingerprint: u64,
}

impl Head {
    fn letter(self, key: Key) -> DeadLetter {
        DeadLetter {
            id: format_id(key.1),
            partition: Partition {
                source: self.source.into(),
                topic: self.topic.into(),
                number: self.number,
            },
            offset: self.offset,
            part: self.part,
            received: key.0,
            event_type: self.event_type,
            event_id: self.event_id,
            headers: self.headers,
            reasons: self.reasons,
            status: self.status,
            retry_count: self.retry_count,
            last_retried_at: self.last_retried_at,
            note: self.note,
            payload_len: self.payload_len,
            payload: None,
        }
    }

    fn of(letter: &DeadLetter, fingerprint: u64) -> Self {
        Self {
            source: letter.partition.source.to_string(),
            topic: letter.partition.topic.to_string(),
            number: letter.partition.number,
            offset: letter.offset,
            part: letter.part,
            event_type: letter.event_type.clone(),
            event_id: letter.event_id.clone(),
            headers: letter.headers.clone(),
            reasons: letter.reasons.clone(),
            status: letter.status,
            retry_count: letter.retry_count,
            last_retried_at: letter.last_retried_at,
            note: letter.note.clone(),
            payload_len: letter.payload_len,
            fingerprint,
        }
    }

    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a head is plain data with text keys")
    }

    fn decode(bytes: &[u8]) -> Result<Head, redb::Error> {
        serde_json::from_slice(bytes).map_err(|e| redb::Error::Corrupted(format!("a row's head: {e}")))
    }
}

fn first8(digest: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(bytes)
}

/// The stable number of a position.
pub(super) fn id_of(row: &Refused) -> u64 {
    id_at(&row.partition, row.offset, row.part)
}

pub(super) fn id_at(partition: &Partition, offset: i64, part: u32) -> u64 {
    let mut hash = Sha256::new();
    for text in [&partition.source, &partition.topic] {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(partition.number.to_le_bytes());
    hash.update(offset.to_le_bytes());
    hash.update(part.to_le_bytes());
    first8(&hash.finalize())
}

pub(super) fn fingerprint(payload: &[u8]) -> u64 {
    first8(&Sha256::digest(payload))
}

pub(super) fn create(db: &Database) -> Result<(), redb::Error> {
    let txn = db.begin_write()?;
    txn.open_table(HEADS)?;
    txn.open_table(PAYLOADS)?;
    txn.open_table(FLOORS)?;
    let mut meta = txn.open_table(META)?;
    meta.insert("format", FORMAT)?;
    meta.insert("dropped", 0)?;
    drop(meta);
    txn.commit()?;
    Ok(())
}

/// Reads the heads of all rows. The inner error: a file of another kind.
pub(super) fn load(db: &Database) -> Result<Result<Index, String>, redb::Error> {
    let txn = db.begin_read()?;
    let meta = txn.open_table(META)?;
    let format = meta.get("format")?.map(|v| v.value());
    if format != Some(FORMAT) {
        let found = format.map_or("none".into(), |f| f.to_string());
        return Ok(Err(format!("format {found} is not known to this program (it knows {FORMAT})")));
    }
    let mut index = Index::default();
    index.dropped = meta.get("dropped")?.map_or(0, |v| v.value());
    for entry in txn.open_table(HEADS)?.iter()? {
        let (key, head) = entry?;
        let head = Head::decode(head.value())?;
        let fingerprint = head.fingerprint;
        index.insert(key.value(), &head.letter(key.value()), fingerprint);
    }
    Ok(Ok(index))
}

/// The rows of `keys` that are still there, in that order.
pub(super) fn heads(db: &Database, keys: &[Key]) -> Result<Vec<DeadLetter>, redb::Error> {
    let table = db.begin_read()?.open_table(HEADS)?;
    let mut out = Vec::with_capacity(keys.len());
    for key in keys {
        if let Some(head) = table.get(key)? {
            out.push(Head::decode(head.value())?.letter(*key));
        }
    }
    Ok(out)
}

/// One row with its payload.
pub(super) fn letter(db: &Database, key: Key) -> Result<Option<DeadLetter>, redb::Error> {
    let txn = db.begin_read()?;
    let Some(head) = txn.open_table(HEADS)?.get(key)?.map(|v| Head::decode(v.value())).transpose()? else {
        return Ok(None);
    };
    let payload = txn.open_table(PAYLOADS)?.get(key.1)?.map(|v| Bytes::copy_from_slice(v.value()));
    Ok(Some(DeadLetter { payload, ..head.letter(key) }))
}

/// Changes one row.
pub(super) fn change(
    db: &Database,
    key: Key,
    change: impl FnOnce(&mut DeadLetter),
) -> Result<Option<DeadLetter>, redb::Error> {
    let txn = db.begin_write()?;
    let mut heads = txn.open_table(HEADS)?;
    let Some(head) = heads.get(key)?.map(|v| Head::decode(v.value())).transpose()? else {
        return Ok(None);
    };
    let fingerprint = head.fingerprint;
    let mut letter = head.letter(key);
    change(&mut letter);
    heads.insert(key, &Head::of(&letter, fingerprint).encode()[..])?;
    drop(heads);
    txn.commit()?;
    Ok(Some(letter))
}

/// All tables, open for writing.
pub(super) struct Tables<'a> {
    heads: Table<'a, (i64, u64), &'static [u8]>,
    payloads: Table<'a, u64, &'static [u8]>,
    floors: Table<'a, (&'static str, &'static str, i32), (i64, i64)>,
    meta: Table<'a, &'static str, u64>,
}

impl<'a> Tables<'a> {
    pub(super) fn open(txn: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            heads: txn.open_table(HEADS)?,
            payloads: txn.open_table(PAYLOADS)?,
            floors: txn.open_table(FLOORS)?,
            meta: txn.open_table(META)?,
        })
    }

    /// The row was dropped before, because of the limits.
    pub(super) fn was_dropped(&self, row: &Refused) -> Result<bool, redb::Error> {
        let p = &row.partition;
        let floor = self.floors.get((&*p.source, &*p.topic, p.number))?.map(|v| v.value());
        Ok(floor.is_some_and(|(offset, received)| row.offset <= offset && row.received <= received))
    }

    pub(super) fn insert(
        &mut self,
        key: Key,
        row: Refused,
        fingerprint: u64,
    ) -> Result<DeadLetter, redb::Error> {
        let letter = DeadLetter {
            id: format_id(key.1),
            partition: row.partition,
            offset: row.offset,
            part: row.part,
            received: row.received,
            event_type: row.event_type,
            event_id: row.event_id,
            headers: row.headers,
            reasons: row.reasons,
            status: Status::Failed,
            retry_count: 0,
            last_retried_at: None,
            note: None,
            payload_len: row.payload.len() as u64,
            payload: None,
        };
        self.heads.insert(key, &Head::of(&letter, fingerprint).encode()[..])?;
        self.payloads.insert(key.1, &row.payload[..])?;
        Ok(letter)
    }

    pub(super) fn remove(&mut self, key: Key) -> Result<(), redb::Error> {
        self.heads.remove(key)?;
        self.payloads.remove(key.1)?;
        Ok(())
    }

    /// Removes a row because of the limits, and remembers that it was there.
    pub(super) fn drop_row(&mut self, key: Key) -> Result<(), redb::Error> {
        let Some(head) = self.heads.remove(key)?.map(|v| Head::decode(v.value())).transpose()? else {
            return Ok(());
        };
        self.payloads.remove(key.1)?;
        self.remember((&head.source, &head.topic, head.number), head.offset, key.0)
    }

    /// A row that is too old already when it comes counts as dropped, once.
    pub(super) fn skip(&mut self, row: &Refused) -> Result<(), redb::Error> {
        let p = &row.partition;
        self.remember((&p.source, &p.topic, p.number), row.offset, row.received)
    }

    fn remember(&mut self, place: (&str, &str, i32), offset: i64, received: i64) -> Result<(), redb::Error> {
        let floor = self.floors.get(place)?.map_or((i64::MIN, i64::MIN), |v| v.value());
        self.floors.insert(place, (floor.0.max(offset), floor.1.max(received)))?;
        Ok(())
    }

    pub(super) fn set_dropped(&mut self, dropped: u64) -> Result<(), redb::Error> {
        self.meta.insert("dropped", dropped)?;
        Ok(())
    }
}
