//! Ready-made contracts inside the binary.
//!
//! *In*: a name. *Out*: the pack's files. *Never*: a pack that does not load clean (a test holds that).

use crate::text::SourceFile;

/// One pack: its name and its files.
type Pack = (&'static str, &'static [(&'static str, &'static str)]);

const PACKS: &[Pack] = &[
    (
        "commerce",
        &[
            ("events.yaml", include_str!("../packs/commerce/events.yaml")),
            ("entities.yaml", include_str!("../packs/commerce/entities.yaml")),
            ("metrics.yaml", include_str!("../packs/commerce/metrics.yaml")),
        ],
    ),
    ("delivery", &[("events.yaml", include_str!("../packs/delivery/events.yaml"))]),
];

/// The files of a pack, with paths like `pack:commerce/events.yaml`; `None`: there is no such pack.
pub fn pack(name: &str) -> Option<Vec<SourceFile>> {
    let (name, files) = PACKS.iter().find(|(known, _)| *known == name)?;
    Some(files.iter().map(|(file, text)| SourceFile::new(format!("pack:{name}/{file}"), *text)).collect())
}

/// The names of all packs.
pub fn pack_names() -> impl Iterator<Item = &'static str> {
    PACKS.iter().map(|(name, _)| *name)
}
