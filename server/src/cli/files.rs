//! Contracts from folders, files and packs.
//!
//! *In*: paths and `pack:NAME`. *Out*: [`SourceFile`]s in a stable order, the catalog they make.
//! *Never*: a hidden file or folder (`.schema/`), a file that is not `.yaml` or `.yml`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use contracts::Catalog;
use contracts::diagnostic::Diagnostic;
use contracts::text::SourceFile;

use super::exit::{Exit, Failure, diagnostics, io};
use crate::settings::ContractSource;

/// Folders nested deeper than this are not searched: stops a loop of links.
const MAX_DEPTH: usize = 16;

/// Reads `path`: a file, or every contract file below a folder, sorted by path.
pub fn read_path(path: &Path) -> Result<Vec<SourceFile>, Failure> {
    let mut files = Vec::new();
    if path.is_dir() {
        let mut paths = Vec::new();
        walk(path, 0, &mut paths)?;
        paths.sort();
        for path in paths {
            files.push(read_file(&path)?);
        }
    } else {
        files.push(read_file(path)?);
    }
    Ok(files)
}

fn read_file(path: &Path) -> Result<SourceFile, Failure> {
    let bytes = std::fs::read(path).map_err(|error| io(Exit::Config, "read", path, &error))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| Failure::new(Exit::Config, format!("{} is not UTF-8: {error}", path.display())))?;
    Ok(SourceFile::new(path.to_string_lossy(), text))
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    let entries = std::fs::read_dir(folder).map_err(|error| io(Exit::Config, "read", folder, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| io(Exit::Config, "read", folder, &error))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        if path.is_dir() {
            walk(&path, depth + 1, found)?;
        } else if yaml {
            found.push(path);
        }
    }
    Ok(())
}

/// The files of a pack.
pub fn read_pack(name: &str) -> Result<Vec<SourceFile>, Failure> {
    contracts::pack(name).ok_or_else(|| {
        Failure::new(Exit::Config, format!("there is no pack `{name}`"))
            .help(format!("packs: {}", contracts::pack::pack_names().collect::<Vec<_>>().join(", ")))
    })
}

/// Reads what `contracts:` of the settings names, in order; settings files among them are left out.
pub fn read_all(sources: &[ContractSource]) -> Result<Vec<SourceFile>, Failure> {
    let mut files: Vec<SourceFile> = Vec::new();
    for source in sources {
        let more = match source {
            ContractSource::Path(path) => read_path(path)?,
            ContractSource::Pack(name) => read_pack(name)?,
        };
        for file in more {
            if !is_settings(&file) && !files.iter().any(|f| f.path == file.path) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// A `kind: Settings` file that lies among contracts (`contracts: [.]`).
fn is_settings(file: &SourceFile) -> bool {
    file.text.lines().any(|line| line.split('#').next().unwrap_or("").trim_end() == "kind: Settings")
}

/// Arguments of a command on contracts: `PATH` or `pack:NAME`; without any, what the settings file of
/// the working folder names, else `contracts/`.
pub fn from_arguments(arguments: &[String]) -> Result<Vec<SourceFile>, Failure> {
    if !arguments.is_empty() {
        let sources: Vec<ContractSource> = arguments.iter().map(|a| source(a)).collect();
        return read_all(&sources);
    }
    let settings = Path::new(crate::settings::DEFAULT_FILE);
    if settings.exists() {
        return read_all(&super::serve::settings(settings)?.contracts);
    }
    if Path::new("contracts").is_dir() {
        return read_path(Path::new("contracts"));
    }
    Err(Failure::new(
        Exit::Usage,
        "no contracts are named, and there is no streamgauge.yaml and no contracts/ here",
    )
    .help("name a folder, a file or pack:commerce; `streamgauge init` makes a starter folder"))
}

fn source(argument: &str) -> ContractSource {
    match argument.strip_prefix("pack:") {
        Some(name) => ContractSource::Pack(name.to_owned()),
        None => ContractSource::Path(PathBuf::from(argument)),
    }
}

/// A catalog without mistakes, with the warnings; else all mistakes are said and the code is 78.
pub fn catalog(files: &[SourceFile]) -> Result<(Arc<Catalog>, Vec<Diagnostic>), Failure> {
    let loaded = contracts::load(files);
    if loaded.diagnostics.iter().any(Diagnostic::is_error) {
        diagnostics(&loaded.diagnostics, files);
        let count = loaded.diagnostics.iter().filter(|d| d.is_error()).count();
        return Err(Failure::new(Exit::Config, summary(count, files.len())));
    }
    Ok((Arc::new(loaded.catalog), loaded.diagnostics))
}

/// `3 mistakes in 2 files`.
pub fn summary(mistakes: usize, files: usize) -> String {
    format!("{} in {}", plural(mistakes, "mistake"), plural(files, "file"))
}

/// `1 file`, `2 files`.
pub fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
