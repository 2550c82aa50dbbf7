//! The running style guide: file heads, file sizes, banned words, documents that hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file without its tests, at most.
const LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the root of the repository")
}

/// All files below `folder` with this extension, but build output and hidden folders.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "node_modules" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// Tests and examples: exempt from heads, sizes and the ban on unwrap.
fn is_test(path: &Path) -> bool {
    let path = shown(path);
    let parts: Vec<&str> = path.split('/').collect();
    let inner = &parts[1..];
    inner.iter().any(|part| ["tests", "examples", "benches", "fuzz", "tests.rs", "testing.rs"].contains(part))
        || inner.last().is_some_and(|name| name.ends_with("_tests.rs"))
}

/// A file's lines before its own test module.
fn production(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    let inline = |i: usize| {
        let next = lines[i + 1..].iter().find(|line| !line.starts_with("#["));
        lines[i].trim() == "#[cfg(test)]"
            && next.is_some_and(|next| {
                next.trim_start_matches("pub(crate) ").starts_with("mod ") && next.ends_with('{')
            })
    };
    let end = (0..lines.len()).find(|&i| inline(i)).unwrap_or(lines.len());
    lines[..end].to_vec()
}

fn check(what: &str, wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

fn sources() -> Vec<(PathBuf, String)> {
    let files = files(&root(), "rs");
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("UTF-8"))).collect()
}

#[test]
fn files_say_what_goes_in_and_out_and_what_never_happens() {
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let words: BTreeSet<String> = head
            .iter()
            .flat_map(|line| line.split(|c: char| !c.is_alphanumeric()))
            .map(str::to_lowercase)
            .collect();
        let missing: Vec<&str> =
            ["in", "out", "never"].into_iter().filter(|word| !words.contains(*word)).collect();
        if !missing.is_empty() {
            wrong.push(format!("{}: its `//!` head does not say {}", shown(&path), missing.join(", ")));
        }
    }
    check("heads", wrong);
}

#[test]
fn files_stay_small() {
    let long = sources().into_iter().filter(|(path, _)| !is_test(path)).filter_map(|(path, text)| {
        let lines = production(&text).len();
        (lines > LINES).then(|| format!("{}: {lines} lines, at most {LINES}", shown(&path)))
    });
    check("files that grew without reason", long.collect());
}

#[test]
fn nothing_is_left_undone() {
    let words =
        [["to", "do!("], ["unimple", "mented!("], ["db", "g!("], ["FIX", "ME"]].map(|parts| parts.concat());
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        for (i, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                wrong.push(format!("{}:{}: {word}", shown(&path), i + 1));
            }
        }
    }
    check("banned words", wrong);
}

#[test]
fn nothing_panics_by_unwrap() {
    let call = [".unwr", "ap()"].concat();
    let mut wrong = Vec::new();
    for (path, text) in sources().into_iter().filter(|(path, _)| !is_test(path)) {
        for (i, line) in production(&text).iter().enumerate() {
            if line.contains(&call) && !line.trim_start().starts_with("//") {
                wrong.push(format!(
                    "{}:{}: say in `expect` why it cannot fail, or return an error",
                    shown(&path),
                    i + 1
                ));
            }
        }
    }
    check("unwrap outside of tests", wrong);
}

fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = files(&root().join("docs"), "md");
    pages.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let pages = pages.into_iter().filter(|path| path.exists());
    pages.map(|path| (path.clone(), fs::read_to_string(path).expect("UTF-8"))).collect()
}

/// Text outside of code blocks and code spans.
fn prose(page: &str) -> String {
    let mut out = String::new();
    let mut code = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        } else if !code {
            for (i, part) in line.split('`').enumerate() {
                out += if i % 2 == 0 { part } else { "code" };
            }
        }
        out.push('\n');
    }
    out
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn links_of_documents_resolve() {
    let mut wrong = Vec::new();
    for (path, text) in pages() {
        let prose = prose(&text);
        for (at, _) in prose.match_indices("](") {
            let target = prose[at + 2..].split(')').next().unwrap_or_default();
            let target = target.split_whitespace().next().unwrap_or_default();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let goal =
                if file.is_empty() { path.clone() } else { path.parent().expect("a folder").join(file) };
            if !goal.exists() {
                wrong.push(format!("{}: {target} is not there", shown(&path)));
            } else if !fragment.is_empty() && goal.extension().is_some_and(|e| e == "md") {
                let goal = fs::read_to_string(goal).expect("UTF-8");
                if !goal.lines().filter(|line| line.starts_with('#')).any(|line| anchor(line) == fragment) {
                    wrong.push(format!("{}: {target} has no such heading", shown(&path)));
                }
            }
        }
    }
    check("links", wrong);
}

/// The ```yaml blocks of a page that are whole contracts.
fn contracts_of(page: &str) -> String {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in page.lines() {
        match &mut block {
            None if line.trim() == "```yaml" => block = Some(String::new()),
            Some(text) if line.trim() == "```" => {
                let kinds = ["Event", "Entity", "Table", "Metric"];
                let whole = text.lines().any(|l| l.starts_with("apiVersion: streamgauge/v1"))
                    && text.lines().any(|l| kinds.iter().any(|kind| l.trim_end() == format!("kind: {kind}")));
                if whole {
                    blocks.push(std::mem::take(text));
                }
                block = None;
            }
            Some(text) => *text += &format!("{line}\n"),
            None => {}
        }
    }
    blocks.join("---\n")
}

#[test]
fn contracts_in_documents_load() {
    let mut wrong = Vec::new();
    let mut loaded = 0;
    for (path, text) in pages() {
        let yaml = contracts_of(&text);
        if yaml.is_empty() {
            continue;
        }
        loaded += 1;
        if let Err(mistakes) = tests::harness::catalog(&yaml) {
            wrong.push(format!("{}: {mistakes}", shown(&path)));
        }
    }
    check("contracts in documents", wrong);
    assert!(loaded > 0, "no document shows a contract");
}

#[test]
fn no_merge_is_half_done() {
    let mut found = Vec::new();
    for path in ["md", "rs", "sh", "toml", "yaml"].iter().flat_map(|extension| files(&root(), extension)) {
        let text = fs::read_to_string(&path).expect("text");
        let marks = |line: &&str| line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ");
        found.extend(text.lines().find(marks).map(|line| format!("{}: {line}", shown(&path))));
    }
    check("marks of a merge", found);
}
