//! Who may use whom: docs/architecture.md section 2, and one version of Arrow in the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// The only arrows between crates. `features` holds nothing but a list of Cargo features.
const ARROWS: &[(&str, &[&str])] = &[
    ("features", &[]),
    // Places where a test ends the process; nothing in a release build.
    ("faults", &[]),
    ("contracts", &["features"]),
    ("connectors", &["features", "faults", "contracts"]),
    ("operators", &["features", "contracts"]),
    // Its tests decode what they store.
    ("lake", &["features", "faults", "contracts", "connectors"]),
    ("engine", &["features", "faults", "contracts", "operators"]),
    ("audit", &["features", "contracts"]),
    ("bench", &["features", "contracts", "connectors", "operators", "engine", "audit", "server"]),
    (
        "server",
        &["features", "faults", "contracts", "connectors", "operators", "engine", "audit", "lake", "bench"],
    ),
    ("tests", &["features", "contracts", "connectors", "operators", "engine", "audit", "server", "bench"]),
];

/// Libraries that belong to some crates only; `features` may name them, because it has no code.
const HOMES: &[(&str, &[&str])] = &[
    // DataFusion and Iceberg run on tokio; `audit` has a runtime of one thread per question, `lake` one of its own.
    ("tokio", &["server", "audit", "lake"]),
    ("tokio-stream", &["server"]),
    ("tokio-util", &["server"]),
    ("axum", &["server"]),
    ("tower-http", &["server"]),
    ("timely", &["operators", "engine", "bench"]),
    ("differential-dataflow", &["bench"]),
    ("rdkafka", &["connectors", "bench", "tests"]),
    ("datafusion", &["audit"]),
    ("iceberg", &["lake"]),
    ("sqlx", &["lake"]),
    ("object_store", &["lake"]),
    ("datafusion-sql", &["contracts"]),
    ("datafusion-physical-expr", &["operators", "engine"]),
];

fn metadata() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let mut command = MetadataCommand::new();
    command.manifest_path(manifest).no_deps().other_options(vec!["--offline".to_string()]);
    command.exec().expect("cargo metadata")
}

#[test]
fn crates_use_only_what_they_may() {
    let metadata = metadata();
    let ours: BTreeSet<String> = metadata.packages.iter().map(|p| p.name.to_string()).collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name.as_str()) else {
            wrong.push(format!("{} is not in the list of crates: say what it may use", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if ours.contains(name) && !allowed.contains(&name) {
                wrong.push(format!("{} -> {name}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that the architecture does not have:\n{}", wrong.join("\n"));
}

#[test]
fn libraries_stay_at_home() {
    let mut wrong = Vec::new();
    for package in metadata().packages.iter().filter(|p| p.name.as_str() != "features") {
        // Tests may use a plain client of the real component.
        let shipped = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        for dependency in shipped {
            let home = HOMES.iter().find(|(name, _)| *name == dependency.name.as_str());
            if home.is_some_and(|(_, homes)| !homes.contains(&package.name.as_str())) {
                wrong.push(format!("{} -> {}", package.name, dependency.name));
            }
        }
    }
    assert!(wrong.is_empty(), "libraries outside of their crates:\n{}", wrong.join("\n"));
}

#[test]
fn code_of_features_is_none() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../features/src/lib.rs"))
        .expect("the source of `features`");
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with("//")), "`features` holds code");
}

/// Decision 0005: else every change between one crate and all builds third-party code, and our own, once more.
#[test]
fn one_crate_alone_is_built_as_all_are() {
    let features = |of: &[&str]| -> BTreeSet<String> {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args([
            "tree",
            "--offline",
            "--locked",
        ]);
        command.args(["-e", "normal,dev,build", "--prefix", "none", "-f", "{p} [{f}]"]).args(of);
        let output = command.output().expect("cargo tree");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
    };
    let all = features(&["--workspace"]);
    let mut wrong = Vec::new();
    // The list itself is never built alone.
    for package in metadata().packages.iter().filter(|p| p.name.as_str() != "features") {
        let alone = features(&["--package", package.name.as_str()]);
        wrong.extend(alone.difference(&all).map(|line| format!("{}: {line}", package.name)));
    }
    let wrong = wrong.join("\n");
    assert!(
        wrong.is_empty(),
        "add to features/Cargo.toml what `cargo tree --workspace` has of these:\n{wrong}"
    );
}

#[test]
fn one_version_of_arrow_and_datafusion() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock"))
        .expect("the lock file");
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix("name = ") else { continue };
        let version =
            lines.next().and_then(|line| line.strip_prefix("version = ")).expect("a version follows");
        let name = name.trim_matches('"');
        if ["arrow", "parquet", "datafusion"].iter().any(|family| name.starts_with(family)) {
            versions.entry(name).or_default().insert(version);
        }
    }
    assert!(
        versions.contains_key("arrow") && versions.contains_key("parquet"),
        "not in the lock file: {versions:?}"
    );
    versions.retain(|_, versions| versions.len() > 1);
    assert!(versions.is_empty(), "several versions in the tree: {versions:?}");
}
