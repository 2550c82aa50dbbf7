//! State that has been bytes goes on as if it had not.

use super::*;

/// Gives `new`, which is empty, the state of `old` at the instant `now`, by way of bytes.
pub(crate) fn reborn(old: &mut dyn State, new: &mut dyn State, now: i64) {
    let Cut { tables, loose } = old.cut();
    let loose = loose.write().unwrap();
    let written = tables.into_iter().map(|(name, table)| {
        let mut sections = Sections::default();
        table.write(true, &mut sections).unwrap();
        (name, sections)
    });
    let written: Vec<(&str, Sections)> = written.collect();
    let sections = written.iter().flat_map(|(name, sections)| {
        (0..=u8::MAX).zip(&sections.bytes).map(|(shard, bytes)| (*name, Section { shard, bytes }))
    });
    let tables = sections.filter(|(_, section)| !section.bytes.is_empty());
    let found = Found { tables: tables.collect(), loose: vec![&loose], leads: true, now, parts: 3 };
    new.restore(&found).unwrap();
}

#[test]
fn counts_by_reason_come_back_and_others_are_refused() {
    let rest: Lost = [("late", 3), ("evaluation", 1)].into();
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Rest {
        #[serde(deserialize_with = "lost")]
        lost: Lost,
    }
    let mut bytes = Vec::new();
    put(&Rest { lost: rest.clone() }, &mut bytes).unwrap();
    assert_eq!(take::<Rest>(&mut bytes.as_slice()).unwrap().lost, rest);
    let many: std::collections::BTreeMap<String, u64> =
        (0..=MOST_REASONS as u64).map(|n| (format!("made up {n}"), n)).collect();
    let mut bytes = Vec::new();
    put(&many, &mut bytes).unwrap();
    assert!(take::<Rest>(&mut bytes.as_slice()).is_err());
}

#[test]
fn a_cut_is_of_its_tick_and_notes_what_changed() {
    #[derive(Debug, Clone, PartialEq)]
    struct Number(i64);
    impl Stored for Number {
        fn store(&self, out: &mut Vec<u8>) -> Result<(), StateError> {
            put(&self.0, out)
        }
        fn load(from: &mut &[u8]) -> Result<Self, StateError> {
            Ok(Self(take(from)?))
        }
    }
    type Numbers = Keyed<std::sync::Arc<str>, Number>;
    let mut numbers = Numbers::default();
    numbers.changed().loaded();
    numbers.insert("a".into(), Number(1));
    numbers.insert("b".into(), Number(2));
    let first = numbers.cut();
    numbers.get_mut(&"a".into()).unwrap().0 = 7;
    numbers.remove(&"b".into());
    numbers.insert("c".into(), Number(3));
    let second = numbers.cut();
    numbers.insert("d".into(), Number(4));
    let mut again = Numbers::default();
    let mut load = |cut: &dyn Table, whole: bool| {
        let mut sections = Sections::default();
        cut.write(whole, &mut sections).unwrap();
        sections.bytes.iter().for_each(|section| again.load(section).unwrap());
        let mut all: Vec<(String, i64)> = again.iter().map(|(key, n)| (key.to_string(), n.0)).collect();
        all.sort();
        (all, sections.count())
    };
    let pairs = |all: &[(&str, i64)]| all.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect::<Vec<_>>();
    assert_eq!(load(first.as_ref(), true), (pairs(&[("a", 1), ("b", 2)]), 2), "before the changes");
    assert!(!second.is_whole());
    assert_eq!(load(second.as_ref(), false), (pairs(&[("a", 7), ("c", 3)]), 3), "one of them is gone");
    numbers.changed().forget();
    assert!(numbers.cut().is_whole());
    assert!(again.load(&[1, 2, 3]).is_err());
}
