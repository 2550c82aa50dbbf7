//! Ready-made contracts inside the binary.
//!
//! *In*: a name. *Out*: the pack's files, and those of other packs that it needs. *Never*: a pack that does not load
//! clean (a test holds that).

use crate::text::SourceFile;

/// One pack: its name, what it is for, its files, and which files of which packs it reads.
struct Pack {
    name: &'static str,
    about: &'static str,
    files: &'static [(&'static str, &'static str)],
    needs: &'static [(&'static str, &'static [&'static str])],
}

/// The files of a pack, by name.
macro_rules! files {
    ($pack:literal: $($file:literal),+ $(,)?) => {
        &[$(($file, include_str!(concat!("../packs/", $pack, "/", $file)))),+]
    };
}

const PACKS: &[Pack] = &[
    Pack {
        name: "commerce",
        about: "A shop: orders, payments, products and clicks; six metrics of the last minutes and hours.",
        files: files!("commerce": "events.yaml", "entities.yaml", "metrics.yaml"),
        needs: &[],
    },
    Pack {
        name: "delivery",
        about: "Software delivery: the canonical events that adapters make of webhooks, the five DORA metrics, and how \
            changes get to their merge.",
        files: files!(
            "delivery": "events.yaml", "tables.yaml", "frequency.yaml", "lead_time.yaml", "fail_rate.yaml", "recovery.yaml",
            "changes.yaml"
        ),
        needs: &[],
    },
    Pack {
        name: "delivery-devlake",
        about: "The DORA metrics by Apache DevLake's rules, over the same events: to move with equal numbers, and to \
            compare.",
        files: files!("delivery-devlake": "tables.yaml", "metrics.yaml", "lead_time.yaml"),
        needs: &[("delivery", &["events.yaml", "tables.yaml"])],
    },
    Pack {
        name: "flow",
        about: "The value stream: work items through the eight stages from Backlog to Production; velocity, time, \
            efficiency, load, distribution, stages and ageing.",
        files: files!("flow": "tables.yaml", "metrics.yaml"),
        needs: &[("delivery", &["events.yaml"])],
    },
    Pack {
        name: "platform",
        about: "What people say about a platform and how much they use it: NPS, surveys, task load, feedback, friction, \
            SPACE and other composite scores.",
        files: files!("platform": "events.yaml", "surveys.yaml", "composite.yaml"),
        needs: &[("delivery", &["events.yaml"])],
    },
];

/// The files of a pack, with paths like `pack:commerce/events.yaml`, then those of other packs that it needs, under
/// their own paths: who reads several packs keeps one file of each path. `None`: there is no such pack.
pub fn pack(name: &str) -> Option<Vec<SourceFile>> {
    let pack = known(name)?;
    let needed = pack.needs.iter().flat_map(|(other, files)| {
        let own = known(other).map(|other| (other, *files)).into_iter();
        own.flat_map(|(other, files)| {
            other.files.iter().map(move |file| (other, file)).filter(|(_, f)| files.contains(&f.0))
        })
    });
    let own = pack.files.iter().map(|file| (pack, file));
    let file = |(pack, (file, text)): (&Pack, &(&str, &'static str))| {
        SourceFile::new(format!("pack:{}/{file}", pack.name), *text)
    };
    Some(own.chain(needed).map(file).collect())
}

fn known(name: &str) -> Option<&'static Pack> {
    PACKS.iter().find(|pack| pack.name == name)
}

/// The names of all packs.
pub fn pack_names() -> impl Iterator<Item = &'static str> {
    PACKS.iter().map(|pack| pack.name)
}

/// What a pack is for, in a sentence; `None`: there is no such pack.
pub fn about(name: &str) -> Option<&'static str> {
    known(name).map(|pack| pack.about)
}
