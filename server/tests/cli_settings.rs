//! Settings and `doctor`, and the reference pages that are made from the code.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use std::path::PathBuf;

use clap::CommandFactory;
use support::{exits, ok, streamgauge};

fn docs(page: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/reference").join(page)
}

/// Compares a page with what the code says; `STREAMGAUGE_UPDATE=1` writes it.
fn hold(page: &str, text: &str) {
    let path = docs(page);
    if std::env::var_os("STREAMGAUGE_UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "docs/reference/{page} is not what the code says; write it again with\n  \
         STREAMGAUGE_UPDATE=1 cargo test -p server --test cli_settings"
    );
}

#[test]
fn the_settings_page_is_made_from_the_code() {
    hold("settings.md", &server::settings::keys::reference());
}

#[test]
fn the_command_page_is_made_from_the_code() {
    let mut text = String::from(
        "# Command line\n\nMade from the program's own help; a test fails when this page and the program differ\n\
         (`STREAMGAUGE_UPDATE=1 cargo test -p server --test cli_settings` writes it again).\n\n\
         | exit code | means |\n|---|---|\n| 0 | all went well |\n| 1 | a test or comparison failed, or the server refused the request |\n\
         | 2 | the command line is wrong |\n| 69 | a dependency (the server, Kafka) is unreachable |\n| 70 | a bug of ours |\n\
         | 78 | contracts or settings are wrong |\n| 130 | interrupted |\n",
    );
    let mut root = server::cli::Cli::command().term_width(100).disable_help_subcommand(true);
    root.build();
    for command in root.get_subcommands_mut() {
        let name = command.get_name().to_owned();
        let help = command.clone().term_width(100).render_long_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        text.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    }
    hold("cli.md", &text);
}

#[test]
fn doctor_tells_where_a_setting_came_from() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["init"]);
    let output = streamgauge()
        .args(["doctor", "--json"])
        .current_dir(folder.path())
        .env("STREAMGAUGE_SERVER__LISTEN", "127.0.0.1:0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let origin = |name: &str| {
        let all = json["settings"].as_array().unwrap();
        all.iter().find(|s| s["setting"] == name).unwrap()["origin"].as_str().unwrap().to_owned()
    };
    assert_eq!(origin("server.listen"), "environment STREAMGAUGE_SERVER__LISTEN");
    assert_eq!(origin("workers"), "streamgauge.yaml:6:10");
    assert_eq!(origin("limits.memory"), "default");
    assert_eq!(json["ok"], true, "{json}");
    assert!(!folder.path().join("data").exists(), "doctor changes nothing");
}

#[test]
fn doctor_exits_with_69_when_no_broker_answers() {
    let folder = tempfile::tempdir().unwrap();
    let text = "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [pack:commerce]\n\
                sources: [{ name: orders, kafka: { brokers: 127.0.0.1:1, topics: [t] } }]\n";
    std::fs::write(folder.path().join("streamgauge.yaml"), text).unwrap();
    let (out, _) = exits(folder.path(), &["doctor", "--timeout", "2"], 69);
    assert!(out.contains("FAIL  source orders: 127.0.0.1:1"), "{out}");
}

#[test]
fn wrong_settings_exit_with_78_and_name_every_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let text = "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [nowhere]\nworker: 2\nserver: { listen: 0.0.0.0:80 }\n";
    std::fs::write(folder.path().join("streamgauge.yaml"), text).unwrap();
    for command in ["serve", "doctor"] {
        let (_, said) = exits(folder.path(), &[command], 78);
        for part in ["no_such_path", "did you mean: workers", "open_on_network", "3 mistakes in the settings"]
        {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
    }
    let (_, said) = exits(folder.path(), &["serve", "-c", "none.yaml"], 78);
    assert!(said.contains("streamgauge init"), "{said}");
}

#[test]
fn contracts_with_mistakes_do_not_start() {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["init"]);
    let path = folder.path().join("contracts/sales.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("agg: sum", "agg: summ")).unwrap();
    let (_, said) = exits(folder.path(), &["serve"], 78);
    assert!(said.contains("sales.yaml:") && said.contains("did you mean: sum"), "{said}");
}
