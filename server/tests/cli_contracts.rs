//! `check`, `test`, `diff`, `init`, `schema`, `completion`: what a user sees without a server.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use support::{exits, ok, run};

#[test]
fn a_starter_folder_is_checked_tested_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let said = ok(folder.path(), &["init", "shop"]);
    assert!(said.contains("streamgauge.yaml") && said.contains("streamgauge ingest events.ndjson"), "{said}");
    let shop = folder.path().join("shop");
    assert_eq!(
        ok(&shop, &["check"]).trim(),
        "2 files checked: 1 event, 0 entities, 0 tables, 1 metric; no mistakes"
    );
    let tested = ok(&shop, &["test"]);
    assert!(tested.contains("1 test passed, 0 failed") || tested.contains("1 tests passed"), "{tested}");
    let (_, again) = exits(&shop, &["init"], 2);
    assert!(again.contains("already there"), "{again}");
    let schema: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(shop.join(".schema/metric.v1.json")).unwrap()).unwrap();
    assert!(schema["properties"]["measures"].is_object(), "{schema}");
}

#[test]
fn all_mistakes_come_in_one_run_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let head = "apiVersion: streamgauge/v1\nversion: 1.0.0\n";
    let event =
        format!("{head}kind: Event\nname: a\nfields:\n  x: {{ type: strin }}\n  y: {{ typo: int }}\n");
    let metric = format!(
        "{head}kind: Metric\nname: m\nevents: {{ a: {{ type: b }} }}\nmeasures: {{ n: {{ agg: cont }} }}\n"
    );
    std::fs::write(folder.path().join("e.yaml"), event).unwrap();
    std::fs::write(folder.path().join("m.yaml"), metric).unwrap();
    let (_, plain) = exits(folder.path(), &["check", "."], 78);
    for part in ["e.yaml:6:", "e.yaml:7:", "m.yaml:5:", "m.yaml:6:", "did you mean"] {
        assert!(plain.contains(part), "{part} is not in\n{plain}");
    }
    let (json, _) = exits(folder.path(), &["check", ".", "--json"], 78);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["ok"], false);
    assert!(json["diagnostics"].as_array().unwrap().len() >= 4, "{json}");
    assert!(json["diagnostics"][0]["line"].is_number());
}

#[test]
fn a_failing_test_shows_expected_and_got() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["init"]);
    let path = folder.path().join("contracts/sales.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("amount: \"15.50\", orders: 2", "amount: \"15.51\", orders: 2"))
        .unwrap();
    let (out, _) = exits(folder.path(), &["test", "--junit", "report.xml"], 1);
    assert!(out.contains("1h [country=de] amount: expected \"15.51\", got \"15.50\""), "{out}");
    assert!(out.contains("given[3] (line ") && out.contains("dropped as a duplicate"), "{out}");
    let junit = std::fs::read_to_string(folder.path().join("report.xml")).unwrap();
    assert!(junit.contains("failures=\"1\""), "{junit}");
    let (json, _) = exits(folder.path(), &["test", "--json"], 1);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["failed"], 1);
    assert_eq!(
        ok(folder.path(), &["test", "-k", "nothing-of-that-name"]).trim(),
        "no tests: add `tests:` to a metric"
    );
}

#[test]
fn the_pack_passes_its_own_tests() {
    let folder = tempfile::tempdir().unwrap();
    let out = ok(folder.path(), &["test", "pack:commerce", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["failed"], 0, "{json}");
    assert!(json["passed"].as_u64().unwrap() >= 6, "{json}");
}

#[test]
fn a_breaking_change_needs_a_new_major_version() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["init", "old"]);
    ok(folder.path(), &["init", "new"]);
    assert_eq!(ok(folder.path(), &["diff", "old/contracts", "new/contracts"]).trim(), "no change of meaning");
    let path = folder.path().join("new/contracts/sales.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let more =
        text.replace("  largest:", "  smallest: { agg: min, value: placed.amount, unit: EUR }\n  largest:");
    std::fs::write(&path, &more).unwrap();
    let (out, said) = exits(folder.path(), &["diff", "old/contracts", "new/contracts"], 1);
    assert!(out.contains("compatible") && !out.contains("BREAKING") && said.contains("minor"), "{out}{said}");
    std::fs::write(&path, more.replace("version: 1.0.0", "version: 1.1.0")).unwrap();
    ok(folder.path(), &["diff", "old/contracts", "new/contracts"]);
    let text = text.replace("  largest: { agg: max, value: placed.amount, unit: EUR }\n", "");
    let text = text.replace(", largest: \"10.50\"", "").replace(", largest: \"20.00\"", "");
    std::fs::write(&path, &text).unwrap();
    let (out, _) = exits(folder.path(), &["diff", "old/contracts", "new/contracts"], 1);
    assert!(out.contains("BREAKING") && out.contains("raise it"), "{out}");
    std::fs::write(&path, text.replace("version: 1.0.0", "version: 2.0.0")).unwrap();
    let out = ok(folder.path(), &["diff", "old/contracts", "new/contracts", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["ok"], true, "{json}");
}

#[test]
fn usage_mistakes_exit_with_2_and_help_with_0() {
    let folder = tempfile::tempdir().unwrap();
    exits(folder.path(), &["serv"], 2);
    exits(folder.path(), &["query"], 2);
    exits(folder.path(), &["check"], 2);
    assert!(ok(folder.path(), &["--help"]).contains("Exit codes"));
    assert!(ok(folder.path(), &["--version"]).starts_with("streamgauge "));
    assert!(ok(folder.path(), &["completion", "bash"]).contains("streamgauge"));
    for kind in ["event", "entity", "table", "metric", "settings"] {
        let text = ok(folder.path(), &["schema", kind]);
        assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["properties"].is_object());
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_streamgauge");
    let shell = format!("{binary} completion bash | head -1 > out; {binary} schema metric | head -1 >> out");
    let output =
        std::process::Command::new("sh").arg("-c").arg(shell).current_dir(folder.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let _ = run(folder.path(), &["--version"]);
}
