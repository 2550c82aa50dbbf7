//! What users read about their contracts, as text. `UPDATE=1 cargo test -p contracts --test golden` refreshes.

#![allow(clippy::unwrap_used)] // a test fails where it unwraps

use std::fs;
use std::path::{Path, PathBuf};

use contracts::diagnostic::render;
use contracts::{Diagnostic, Kind, SourceFile, diff, json_schema, load, pack, reference};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn source(path: &Path) -> SourceFile {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    SourceFile::new(name, fs::read_to_string(path).unwrap())
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(golden().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

/// Compares with the file, or writes it; the paths that differ are collected.
fn expect(path: &Path, got: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, got).unwrap();
        return;
    }
    let want = fs::read_to_string(path).unwrap_or_default();
    if want != got {
        wrong.push(format!("{}\n--- wanted\n{want}\n--- got\n{got}", path.display()));
    }
}

fn holds(wrong: &[String]) {
    assert!(wrong.is_empty(), "refresh with UPDATE=1 if this is meant\n{}", wrong.join("\n\n"));
}

#[test]
fn every_mistake_has_its_message() {
    let prelude = source(&golden().join("prelude.yaml"));
    let (mut wrong, mut codes) = (Vec::new(), Vec::new());
    let files = yaml_files("mistakes");
    for path in &files {
        let loaded = load(&[prelude.clone(), source(path)]);
        assert!(!loaded.diagnostics.is_empty(), "{} has no mistake", path.display());
        let stray: Vec<&Diagnostic> =
            loaded.diagnostics.iter().filter(|d| d.file == "prelude.yaml").collect();
        assert!(stray.is_empty(), "{}: {stray:?}", path.display());
        codes.extend(loaded.diagnostics.iter().map(|d| d.code));
        expect(&path.with_extension("txt"), &render(&loaded.diagnostics), &mut wrong);
    }
    holds(&wrong);
    codes.sort_unstable();
    codes.dedup();
    assert!(files.len() >= 60 && codes.len() >= 30, "{} files, {codes:?}", files.len());
}

#[test]
fn many_files_many_mistakes_one_run() {
    let files: Vec<SourceFile> = yaml_files("many").iter().map(|path| source(path)).collect();
    let loaded = load(&files);
    let mut wrong = Vec::new();
    expect(&golden().join("many/all.txt"), &render(&loaded.diagnostics), &mut wrong);
    holds(&wrong);
    // What is sound runs all the same.
    assert!(loaded.catalog.metric_index("sound").is_some());
    assert!(loaded.catalog.event_index("c.happened").is_some());
    assert_eq!(loaded.catalog.metrics.len(), 1);
}

#[test]
fn the_design_examples_run() {
    let files: Vec<SourceFile> = yaml_files("examples").iter().map(|path| source(path)).collect();
    let loaded = load(&files);
    let other: Vec<&Diagnostic> = loaded.diagnostics.iter().filter(|d| d.code != "not_yet").collect();
    assert!(other.is_empty(), "{other:#?}");
    let mut wrong = Vec::new();
    expect(&golden().join("examples/examples.txt"), &render(&loaded.diagnostics), &mut wrong);
    holds(&wrong);
    assert!(!loaded.has_errors());
    assert_eq!(loaded.catalog.metrics.len(), 2);
}

#[test]
fn changes_say_what_they_mean() {
    let mut wrong = Vec::new();
    for path in yaml_files("diff") {
        let name = path.to_string_lossy().into_owned();
        let Some(base) = name.strip_suffix(".old.yaml") else { continue };
        let catalog = |suffix: &str| {
            let loaded = load(&[source(Path::new(&format!("{base}.{suffix}.yaml")))]);
            assert!(!loaded.has_errors(), "{base}.{suffix}: {}", render(&loaded.diagnostics));
            loaded.catalog
        };
        let text: String = diff(&catalog("old"), &catalog("new"))
            .iter()
            .map(|c| {
                let version = if c.version_ok { "ok" } else { "raise the version" };
                format!(
                    "{} {} {} {}: {:?} {:?} ({version}): {}\n",
                    c.kind, c.name, c.path, c.what, c.class, c.effect, c.message
                )
            })
            .collect();
        expect(Path::new(&format!("{base}.txt")), &text, &mut wrong);
    }
    holds(&wrong);
}

#[test]
fn schema_and_reference() {
    let mut wrong = Vec::new();
    for kind in Kind::ALL {
        let text = serde_json::to_string_pretty(&json_schema(kind)).unwrap() + "\n";
        let name = format!("schema/{}.json", kind.name().to_lowercase());
        fs::create_dir_all(golden().join("schema")).unwrap();
        expect(&golden().join(name), &text, &mut wrong);
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/contracts.md");
    expect(&docs, &reference(), &mut wrong);
    holds(&wrong);
}

#[test]
fn packs_load_clean() {
    let files = pack("commerce").unwrap();
    let loaded = load(&files);
    assert!(loaded.diagnostics.is_empty(), "{}", render(&loaded.diagnostics));
    let catalog = &loaded.catalog;
    assert_eq!(catalog.events.len(), 11, "ten and streamgauge.row");
    assert_eq!((catalog.entities.len(), catalog.metrics.len()), (4, 6));
    for metric in &catalog.metrics {
        assert!(!metric.tests.is_empty(), "{} has no tests", metric.head.name);
        for window in ["5m", "15m", "1h", "6h", "24h"] {
            assert!(metric.windows.iter().any(|w| w.name == window), "{} {window}", metric.head.name);
        }
    }
    assert!(pack("nope").is_none());
}

/// Whatever is typed, nothing panics and what is wrong is said.
#[test]
fn mangled_contracts_never_panic() {
    let mut files: Vec<SourceFile> = yaml_files("sound").iter().map(|path| source(path)).collect();
    files.extend(pack("commerce").unwrap());
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..120 {
        let file = &files[round % files.len()];
        let mut lines: Vec<String> = file.text.lines().map(str::to_string).collect();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(0..lines.len());
            let other = lines[random.usize(0..lines.len())].clone();
            match random.u8(0..6) {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, other),
                2 => lines[at] = other,
                3 => {
                    let cut = lines[at].char_indices().map(|(i, _)| i).nth(random.usize(0..30));
                    lines[at].truncate(cut.unwrap_or(0));
                }
                4 => lines[at] = lines[at].replace(": ", ": é"),
                _ => lines[at].push_str([" }", ":", " 'x", " &a *a", "\t- ["][random.usize(0..5)]),
            }
        }
        let mangled = SourceFile::new("mangled.yaml", lines.join("\n"));
        let loaded = load(std::slice::from_ref(&mangled));
        for diagnostic in &loaded.diagnostics {
            assert!(diagnostic.line >= 1 && diagnostic.column >= 1, "{diagnostic}");
            assert!(!format!("{:?}", diagnostic.report(&mangled)).is_empty());
        }
    }
}
