//! The packs: they load clean, alone and together, and `docs/reference/packs.md` says what is in them.
//!
//! *In*: the packs inside the library. *Out*: passes, or what is wrong; with `UPDATE=1` the page. *Never*: a
//! word of the page that is not in a contract, but for the few of its head.
#![allow(clippy::unwrap_used)] // A test fails where it unwraps.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use contracts::diagnostic::render;
use contracts::pack::{about, pack, pack_names};
use contracts::text::SourceFile;
use contracts::yaml::{Node, documents};
use contracts::{Catalog, load};

/// A pack's contracts, without mistakes.
fn loaded(what: &str, files: &[SourceFile]) -> Catalog {
    let loaded = load(files);
    assert!(loaded.diagnostics.is_empty(), "{what}: {}", render(&loaded.diagnostics));
    loaded.catalog
}

#[test]
fn packs_load_clean_alone_and_together() {
    let mut all: Vec<SourceFile> = Vec::new();
    for name in pack_names() {
        let files = pack(name).unwrap();
        for metric in &loaded(name, &files).metrics {
            let head = &metric.head;
            assert!(!metric.tests.is_empty(), "{} has no tests", head.name);
            assert!(
                head.title != head.name && !head.description.is_empty(),
                "{} does not say what it is",
                head.name
            );
        }
        for file in files {
            if !all.iter().any(|known| known.path == file.path) {
                all.push(file);
            }
        }
    }
    loaded("all", &all);
}

#[test]
fn the_page_says_what_is_in_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/packs.md");
    let text = page();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let old = fs::read_to_string(&path).unwrap_or_default();
    assert!(old == text, "docs/reference/packs.md is old; UPDATE=1 writes it again");
}

const HEAD: &str = "# Packs\n\nGenerated from the contracts of the packs; do not edit.\n\n\
`contracts: [pack:delivery]` in `streamgauge.yaml` takes a pack as it is, `streamgauge init FOLDER --pack delivery` copies its contracts into a folder where \
you may change them. Packs can be named together; what one needs of another comes with it.\n\n\
In the tables below `p50` is the median, `lower` takes the lower of two middle values, `linear` interpolates between them; a measure that is *hidden* is \
answered when it is asked for by name. `null` is never 0: a measure over nothing says null.\n";

fn page() -> String {
    let mut out = HEAD.to_owned();
    for name in pack_names() {
        writeln!(out, "\n## `pack:{name}`\n\n{}", about(name).unwrap()).unwrap();
        let own = format!("pack:{name}/");
        let files: Vec<SourceFile> =
            pack(name).unwrap().into_iter().filter(|f| f.path.starts_with(&own)).collect();
        let nodes: Vec<Node> = files.iter().flat_map(|file| documents(file).0).collect();
        for kind in ["Event", "Entity", "Table"] {
            list(&mut out, kind, &nodes);
        }
        for node in nodes.iter().filter(|node| text(node, "kind") == "Metric") {
            metric(&mut out, node);
        }
    }
    out
}

fn text<'n>(node: &'n Node, key: &str) -> &'n str {
    node.get(key).and_then(Node::scalar).unwrap_or_default()
}

/// A text in a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn list(out: &mut String, kind: &str, nodes: &[Node]) {
    let of_kind: Vec<&Node> = nodes.iter().filter(|node| text(node, "kind") == kind).collect();
    if of_kind.is_empty() {
        return;
    }
    writeln!(out, "\n| {} | |\n|---|---|", kind.to_lowercase()).unwrap();
    for node in of_kind {
        let title = cell(text(node, "title"));
        let said = cell(text(node, "description"));
        let said = if said.is_empty() { title } else { format!("{title}. {said}") };
        writeln!(out, "| `{}` | {said} |", text(node, "name")).unwrap();
    }
}

fn metric(out: &mut String, node: &Node) {
    writeln!(
        out,
        "\n### `{}`: {}\n\n{}\n",
        text(node, "name"),
        text(node, "title"),
        cell_free(text(node, "description"))
    )
    .unwrap();
    let names = |key: &str| {
        let names: Vec<String> = node
            .get(key)
            .map(Node::entries)
            .unwrap_or_default()
            .iter()
            .map(|e| format!("`{}`", e.key))
            .collect();
        names.join(", ")
    };
    let mut facts: Vec<String> = Vec::new();
    for (word, key) in [("By", "dimensions"), ("Windows", "windows")] {
        let names = names(key);
        if !names.is_empty() {
            facts.push(format!("{word}: {names}."));
        }
    }
    if let Some(better) = node.get("better").and_then(Node::scalar) {
        facts.push(format!("Better: {better}."));
    }
    if let Some(levels) = node.get("levels") {
        let bands = levels.get("bands").map(Node::entries).unwrap_or_default().iter();
        let bands: Vec<String> =
            bands.map(|band| format!("{} `{}`", band.key, band.value.scalar().unwrap_or_default())).collect();
        facts.push(format!("Levels ({}): {}.", text(levels, "source"), bands.join(", ")));
    }
    writeln!(out, "{}\n\n| measure | unit | rule |\n|---|---|---|", facts.join(" ")).unwrap();
    for entry in node.get("measures").map(Node::entries).unwrap_or_default() {
        let hidden = if text(&entry.value, "hidden") == "true" { " (hidden)" } else { "" };
        let said = cell(text(&entry.value, "description"));
        let said = if said.is_empty() { said } else { format!("{said} ") };
        writeln!(
            out,
            "| `{}`{hidden} | {} | {said}{} |",
            entry.key,
            cell(text(&entry.value, "unit")),
            rule(&entry.value)
        )
        .unwrap();
    }
}

fn cell_free(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How a measure is computed, in the words of its contract.
fn rule(measure: &Node) -> String {
    let code = |key: &str| format!("`{}`", cell(text(measure, key)));
    if let Some(ratio) = measure.get("ratio") {
        let parts: Vec<&str> = ratio.items().iter().filter_map(Node::scalar).collect();
        return format!("`{}`", parts.join(" / "));
    }
    if measure.get("expr").is_some() {
        return code("expr");
    }
    if measure.get("shift").is_some() {
        return format!("{}, {} earlier", code("shift"), text(measure, "by"));
    }
    let mut out = match text(measure, "agg") {
        "quantile" => format!(
            "p{} {}",
            (text(measure, "q").parse::<f64>().unwrap_or(0.0) * 100.0).round(),
            text(measure, "method")
        ),
        agg => agg.to_owned(),
    };
    for (word, key) in [
        (" over the last", "last"),
        (" windows", "window"),
        (" of", "over"),
        (" per", "per"),
        (" of", "value"),
        (" of rows of", "of"),
        (" where", "where"),
    ] {
        if measure.get(key).is_some() {
            let shown = code(key);
            write!(out, "{word} {shown}").unwrap();
        }
    }
    out
}
