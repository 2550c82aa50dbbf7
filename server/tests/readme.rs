//! README and docs are run: their marked shell blocks, and every YAML block that is a contract or settings.
//!
//! A block opened with ```` ```sh run=NAME ```` is run by bash as it stands, with the ports and folders of the
//! text replaced by free ones, so that tests can run beside each other.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

use std::path::{Path, PathBuf};
use std::process::Command;

use contracts::text::SourceFile;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// `(info, text)` of every fenced block.
fn blocks(markdown: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in markdown.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((info.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

fn shell(name: &str) -> String {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let info = format!("sh run={name}");
    blocks(&readme)
        .into_iter()
        .find(|(i, _)| *i == info)
        .unwrap_or_else(|| panic!("README.md has no block {info}"))
        .1
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn bash(script: &str, folder: &Path, port: u16) -> String {
    let binaries = Path::new(env!("CARGO_BIN_EXE_streamgauge")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    // Whatever happens, nothing is left running.
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}");
    let output = Command::new("timeout")
        .args(["240", "bash", "-c", &script])
        .current_dir(folder)
        .env("PATH", path)
        .env("STREAMGAUGE_URL", format!("http://127.0.0.1:{port}"))
        .env("STREAMGAUGE_SERVER__LISTEN", format!("127.0.0.1:{port}"))
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{:?}\n--- script\n{script}\n--- stdout\n{out}\n--- stderr\n{err}",
        output.status
    );
    out
}

#[test]
fn the_starter_block_runs() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let script = shell("starter").replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
    let out = bash(&script, folder.path(), port);
    for part in [
        "no mistakes",
        "1 test passed, 0 failed",
        "accepted 40, refused 0, duplicate 0",
        "sales (24h) = ",
        "\"metric_name\":\"sales\"",
    ] {
        assert!(out.contains(part), "{part} is not in\n{out}");
    }
}

#[test]
fn the_kafka_block_runs_on_real_kafka() {
    let missing =
        ["java", "mvn"].into_iter().find(|tool| Command::new(tool).arg("-version").output().is_err());
    if let Some(tool) = missing {
        assert!(std::env::var_os("CI").is_none(), "CI needs {tool}");
        eprintln!("skipped: {tool} is missing");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (http, kafka) = (free_port(), free_port());
    let data = folder.path().join("kafka");
    let shop = folder.path().join("shop");
    let kafka_sh = format!("scripts/kafka.sh produce --dir {}", data.display());
    let script = shell("kafka")
        .replace("make kafka\n", &format!("make kafka PORT={kafka} KAFKA_DIR={}\n", data.display()))
        .replace("make kafka-stop", &format!("make kafka-stop KAFKA_DIR={}", data.display()))
        .replace("scripts/kafka.sh produce", &kafka_sh)
        .replace("target/kafka-shop", &shop.display().to_string())
        .replace("127.0.0.1:9092", &format!("127.0.0.1:{kafka}"))
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{http}"));
    let stop = format!(
        "trap 'kill $(jobs -p) 2>/dev/null || true; scripts/kafka.sh stop --now --dir {}' EXIT\n",
        data.display()
    );
    let out = bash(&format!("{stop}{script}"), &root(), http);
    assert!(out.contains("\"metric_name\":\"revenue\"") && out.contains("\"currency\":"), "{out}");
}

fn markdown_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            markdown_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "md") {
            found.push(path);
        }
    }
}

#[test]
fn every_yaml_block_is_right() {
    let mut files = vec![root().join("README.md")];
    markdown_files(&root().join("docs"), &mut files);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("contracts")).unwrap();
    let mut checked = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for (info, block) in blocks(&text) {
            if info != "yaml" || !block.contains("apiVersion:") {
                continue;
            }
            checked += 1;
            let mistakes = if block.contains("kind: Settings") {
                let loaded = server::settings::load_text("block", &block, folder.path(), []);
                // A secret that the reader's machine has and ours has not.
                loaded.mistakes.into_iter().filter(|m| m.code != "secret_not_found").collect()
            } else {
                contracts::load(&[SourceFile::new("block", block.as_str())]).diagnostics
            };
            let shown = contracts::diagnostic::render(&mistakes);
            assert!(mistakes.is_empty(), "{}\n{shown}\n{block}", file.display());
        }
    }
    assert!(checked >= 5, "only {checked} blocks were found");
}

#[test]
fn links_in_the_readme_lead_somewhere() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for part in readme.split("](").skip(1) {
        let target = part.split(')').next().unwrap();
        if !target.contains("://") {
            assert!(root().join(target).exists(), "README.md: {target} does not exist");
        }
    }
}
