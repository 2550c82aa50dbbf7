//! `lake:` - the long memory: admitted events as Iceberg tables.
//!
//! *In*: the section. *Out*: [`Lake`]. *Never*: a password in a message or in `doctor`'s output.

use std::time::Duration;

use lake::{Care, CatalogKind, LakeConfig};

use super::read::{Report, Section, bytes, duration, whole};
use super::secret::{self, Secret};
use super::tree::Origin;

/// Which catalog, as the settings say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    None,
    Sqlite,
    Postgres,
    Rest,
}

/// `lake:` settings.
#[derive(Debug, Clone)]
pub struct Lake {
    catalog: Word,
    uri: Option<String>,
    password: Option<Secret>,
    properties: Vec<(String, Secret)>,
    /// Folder or `s3://bucket/prefix`; `None`: `lake` in the data folder.
    warehouse: Option<String>,
    namespace: String,
    commit_every: Duration,
    buckets: u32,
    memory: usize,
}

impl Lake {
    /// No lake: for programs that read and answer only.
    pub fn none() -> Self {
        Self {
            catalog: Word::None,
            uri: None,
            password: None,
            properties: Vec::new(),
            warehouse: None,
            namespace: "streamgauge".to_owned(),
            commit_every: Duration::from_secs(10),
            buckets: 4,
            memory: 256 << 20,
        }
    }

    /// Reads the section.
    pub(super) fn read(root: &mut Section<'_>, base: &super::Base, report: &mut Report) -> Self {
        let known = Self::none();
        let mut section = root.section("lake", report);
        let words = [
            ("sqlite", Word::Sqlite),
            ("postgres", Word::Postgres),
            ("rest", Word::Rest),
            ("none", Word::None),
        ];
        let catalog = section.choice("catalog", "sqlite", &words, report);
        let uri = section.text("uri", report);
        if let Some((text, origin)) = &uri {
            // A password in it would be shown; it has a place of its own.
            section.effective("uri", text, origin, report);
        }
        let password = secret::read_password(&mut section, report);
        let properties = secret::read_properties(&mut section, report).into_iter().collect();
        let warehouse = section.place("warehouse", base, report);
        let plain = |text: &str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            (text.chars().all(plain) && !text.is_empty()).then(|| text.to_owned())
        };
        let name = ("streamgauge", known.namespace.clone());
        let namespace =
            section.value("namespace", name, "a name of small letters, digits and `_`", plain, report);
        let every = section.value(
            "commit_every",
            ("10s", known.commit_every),
            "a duration such as 10s",
            duration,
            report,
        );
        let count =
            |text: &str| whole(text).and_then(|n| u32::try_from(n).ok()).filter(|n| (1..=256).contains(n));
        let buckets =
            section.value("buckets", ("4", known.buckets), "a whole number from 1 to 256", count, report);
        let size = |text: &str| bytes(text).and_then(|n| usize::try_from(n).ok());
        let memory = section.value("memory", ("256MiB", known.memory), "a size such as 256MiB", size, report);
        let scheme = match catalog {
            Word::Postgres => Some(("postgres://", "uri: postgres://user@host/database")),
            Word::Rest => Some(("http", "uri: https://catalog.example.com")),
            Word::Sqlite | Word::None => None,
        };
        if let Some((scheme, fix)) = scheme
            && uri.as_ref().is_none_or(|(uri, _)| !uri.starts_with(scheme))
        {
            let at = uri
                .as_ref()
                .map_or_else(|| section.origin().clone(), |(_, origin): &(String, Origin)| origin.clone());
            report.mistake(
                "missing",
                &at,
                "this catalog needs its address in `lake.uri`".to_owned(),
                fix.to_owned(),
            );
        }
        section.done(report);
        let uri = uri.map(|(uri, _)| uri);
        Self {
            catalog,
            uri,
            password,
            properties,
            warehouse,
            namespace,
            commit_every: every,
            buckets,
            memory,
        }
    }

    /// For the lake; `None`: there is none.
    pub fn config(&self, data: &std::path::Path) -> Option<LakeConfig> {
        let folder = data.join("lake");
        let uri = self.uri.clone().unwrap_or_default();
        let catalog = match self.catalog {
            Word::None => return None,
            Word::Sqlite => CatalogKind::Sqlite(folder.join("catalog.db")),
            Word::Postgres => CatalogKind::Postgres(match (&self.password, uri.split_once('@')) {
                (Some(password), Some((user, host))) => {
                    format!("{user}:{}@{host}", escaped(password.reveal()))
                }
                _ => uri,
            }),
            Word::Rest => {
                let reveal = |(key, secret): &(String, Secret)| (key.clone(), secret.reveal().to_owned());
                let mut properties: Vec<_> = self.properties.iter().map(reveal).collect();
                let warehouse = properties.iter().position(|(key, _)| key == "warehouse");
                let warehouse = warehouse.map(|index| properties.swap_remove(index).1);
                CatalogKind::Rest { uri, warehouse, properties }
            }
        };
        Some(LakeConfig {
            catalog,
            warehouse: self.warehouse.clone().unwrap_or_else(|| folder.display().to_string()),
            namespace: self.namespace.clone(),
            buckets: self.buckets,
            commit_every: self.commit_every,
            // Half of what may wait: the other half comes in while it is written.
            commit_bytes: self.memory / 2,
            most_bytes: self.memory,
            care: Care::default(),
        })
    }
}

/// As part of an address.
fn escaped(password: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    password.bytes().map(one).collect()
}
