//! Which copies of an id did not count, as the lake tells it.

use super::*;

/// A tick whose rows `dropped` were duplicates.
fn judged(contracts: &Arc<Catalog>, number: i32, from: i64, to: i64, dropped: &[i64]) -> Fed {
    let duplicates = dropped.iter().map(|offset| (partition(number), *offset, 0)).collect();
    Fed { duplicates, ..tick(contracts, number, from, to) }
}

fn verdicts(decided: &Decided, number: i32, offsets: std::ops::Range<i64>) -> String {
    let of = partition(number);
    let verdict = |offset| match decided.verdicts(&of, offset).and_then(|known| known.was_dropped(offset, 0))
    {
        None => '?',
        Some(dropped) => ['-', 'd'][usize::from(dropped)],
    };
    offsets.map(verdict).collect()
}

#[tokio::test]
async fn duplicates_are_known_again_after_a_restart() {
    let home = Home::new(None);
    let config = home.fresh();
    let known = contracts(CONTRACT);
    let beginning = Offsets::default();
    let mut lake = Lake::open(config.clone(), &known).await.unwrap();
    assert_eq!(lake.decided(&beginning).await.unwrap(), Decided::default());
    lake.feed(&known, judged(&known, 0, 0, 4, &[2]));
    lake.round().await.unwrap();
    lake.feed(&known, judged(&known, 0, 4, 8, &[4, 7]));
    lake.feed(&known, judged(&known, 1, 0, 2, &[1]));
    // An engine that follows says the same once more, and may say it otherwise.
    lake.feed(&known, judged(&known, 0, 0, 8, &[0, 1]));
    for planned in [false, true] {
        if planned {
            lake.round().await.unwrap();
            lake = Lake::open(config.clone(), &known).await.unwrap();
        }
        let decided = lake.decided(&beginning).await.unwrap();
        assert_eq!(verdicts(&decided, 0, 0..9), "--d-d--d?", "{planned}");
        assert_eq!(verdicts(&decided, 1, 0..3), "-d?", "{planned}");
        assert!(decided.knows(&known.events[0]));
    }
    // Partitions that were read before there was a lake.
    lake.feed(&known, judged(&known, 2, 5, 9, &[6]));
    assert_eq!(verdicts(&lake.decided(&beginning).await.unwrap(), 2, 3..10), "??-d--?");
    // Rounds that end before it are not read.
    let since = Offsets(BTreeMap::from([(partition(0), 5), (partition(1), 1)]));
    assert_eq!(verdicts(&lake.decided(&since).await.unwrap(), 0, 0..9), "????d--d?");

    lake.round().await.unwrap();
    // Other contracts have judged otherwise; those of other events have not.
    let more = format!("{CONTRACT}---\n{}", CONTRACT.replace("shop.order", "shop.other"));
    let changed = contracts(&more.replacen("dedupe: 24h", "dedupe: 1h", 1));
    lake.feed(&changed, judged(&changed, 0, 8, 10, &[9]));
    for planned in [false, true] {
        if planned {
            lake.round().await.unwrap();
        }
        let decided = lake.decided(&beginning).await.unwrap();
        let order =
            |catalog: &Catalog| Arc::clone(&catalog.events[catalog.event_index("shop.order").unwrap()]);
        assert!(decided.knows(&order(&changed)) && !decided.knows(&order(&known)));
        assert_eq!(verdicts(&decided, 0, 6..11), "??-d?", "{planned}");
    }
}

#[tokio::test]
async fn a_plan_of_before_says_nothing_of_duplicates() {
    let home = Home::new(None);
    let config = home.fresh();
    let known = contracts(CONTRACT);
    let mut lake = Lake::open(config.clone(), &known).await.unwrap();
    lake.feed(&known, judged(&known, 0, 0, 4, &[2]));
    lake.round().await.unwrap();
    let place = Place::open(&config.warehouse).unwrap();
    let name = "streamgauge/_rounds/00000000000000000001.json";
    let mut plan: serde_json::Value = serde_json::from_slice(&place.get(name).await.unwrap()).unwrap();
    let plan = plan.as_object_mut().unwrap();
    assert!(plan.remove("dropped").is_some() && plan.remove("events").is_some());
    place.put(name, serde_json::to_vec(&plan).unwrap().into()).await.unwrap();
    let lake = Lake::open(config, &known).await.unwrap();
    let decided = lake.decided(&Offsets::default()).await.unwrap();
    assert!(!decided.knows(&known.events[0]), "{decided:?}");
}
