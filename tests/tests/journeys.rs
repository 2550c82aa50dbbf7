//! Golden journeys: contracts and events in, answers out, the same by every road.
//!
//! `UPDATE=1 cargo test -p tests --test journeys` writes the answers anew; the oracle must agree even then.

use std::path::{Path, PathBuf};

use tests::harness::journey::{Journey, Road, Step};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/journeys");
    let entries = std::fs::read_dir(&folder).expect("the journeys");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    if let Ok(only) = std::env::var("ONLY") {
        files.retain(|path| path.to_string_lossy().contains(&only));
    }
    files.sort();
    files
}

#[test]
fn journeys_give_the_same_answers_by_every_road() {
    let files = files();
    assert!(std::env::var("ONLY").is_ok() || files.len() >= 15, "only {} journeys", files.len());
    let failures: Vec<String> = files
        .iter()
        .filter_map(|path| walk(path).err().map(|e| format!("{}: {e}", path.display())))
        .collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
}

fn walk(path: &Path) -> Result<(), String> {
    let mut journey = Journey::parse(&std::fs::read_to_string(path).map_err(|e| e.to_string())?);
    let straight = journey.run(Road::Straight)?;
    if std::env::var("UPDATE").is_ok() {
        std::fs::write(path, journey.with_answers(&straight)).map_err(|e| e.to_string())?;
        journey.answers = straight.clone();
    }
    agree("straight", &journey.answers, &straight)?;
    for seed in 0..3 {
        let road = Road::Cut(seed);
        agree(&format!("{road:?}"), &journey.answers, &journey.run(road)?)?;
    }
    let middle = journey.steps.len() / 2;
    // The restart stands right before a record or a question, so that the clock is where it was.
    let middle =
        (middle..journey.steps.len()).find(|&i| !matches!(journey.steps[i], Step::Clock(_))).unwrap_or(0);
    let road = Road::Restart(middle);
    agree(&format!("{road:?}"), &journey.answers_from(middle), &journey.run(road)?)?;
    for at in [middle / 2, middle, (middle + journey.steps.len()) / 2] {
        let road = Road::Lost(at);
        agree(&format!("{road:?}"), &journey.answers, &journey.run(road)?)?;
    }
    Ok(())
}

fn agree(road: &str, wanted: &str, got: &str) -> Result<(), String> {
    if wanted == got {
        return Ok(());
    }
    let differ = wanted.lines().zip(got.lines()).position(|(a, b)| a != b);
    let at = differ.unwrap_or_else(|| wanted.lines().count().min(got.lines().count()));
    let show = |text: &str| text.lines().skip(at.saturating_sub(3)).take(8).collect::<Vec<_>>().join("\n  ");
    Err(format!(
        "{road} differs at line {} of the answers\n  {}\ninstead of\n  {}",
        at + 1,
        show(got),
        show(wanted)
    ))
}
