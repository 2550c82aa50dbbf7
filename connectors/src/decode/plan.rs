//! Which paths of an event are wanted, compiled from the envelope and all event contracts.
//!
//! *In*: the catalog, the envelope's paths, where the fields are rooted. *Out*: a [`Plan`]: one walk
//! answers everything anybody asks of an event. *Never*: a path resolved per event.

use contracts::Catalog;

use super::raw::Raw;
use super::rows::{Envelope, Names};
use super::walk::{Walk, Walker};

/// A wanted path: the nodes of its keys, the wanted one last.
type Way = Vec<u32>;

/// See the module's words.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) walker: Walker,
    pub(super) root: u32,
    pub(super) event_type: Option<Way>,
    pub(super) id: Option<Way>,
    pub(super) time: Option<Way>,
    pub(super) tenant: Option<Way>,
    /// Of versions of rows: what they do.
    pub(super) op: Option<Way>,
    /// By event, by field.
    fields: Vec<Vec<Way>>,
    /// By event, by field: the last of its way.
    slots: Vec<Vec<u32>>,
    pub(super) names: Names,
}

impl Plan {
    /// `below`: the key that holds the fields (`data` of a CloudEvent); nothing: the event itself.
    pub(super) fn new(catalog: &Catalog, envelope: &super::Envelope, below: Option<&str>) -> Self {
        let mut walker = Walker::new();
        let root = walker.root();
        let mut want = |path: &Option<Vec<String>>| {
            path.as_ref().filter(|path| !path.is_empty()).map(|path| walker.want(root, path))
        };
        let event_type = want(&envelope.event_type);
        let id = want(&envelope.id);
        let time = want(&envelope.time);
        let tenant = want(&envelope.tenant);
        let mut fields = Vec::with_capacity(catalog.events.len());
        for event in &catalog.events {
            let ways = event.fields.iter().map(|field| {
                let path: Vec<String> =
                    below.iter().map(|key| (*key).to_owned()).chain(field.path.iter().cloned()).collect();
                walker.want(root, &path)
            });
            fields.push(ways.collect::<Vec<Way>>());
        }
        let last = |way: &Way| *way.last().unwrap_or(&root);
        let slots = fields.iter().map(|ways| ways.iter().map(last).collect()).collect();
        Self { walker, root, event_type, id, time, tenant, op: None, fields, slots, names: names(envelope) }
    }

    /// Wants the operation of versions of rows at `path`.
    pub(super) fn want_op(&mut self, path: &Option<Vec<String>>) {
        let path = path.as_ref().filter(|path| !path.is_empty());
        self.op = path.map(|path| self.walker.want(self.root, path));
    }

    /// What the envelope's paths lead to.
    #[inline]
    pub(super) fn envelope<'a>(&self, walk: Walk, buf: &'a [u8]) -> Envelope<'a> {
        Envelope {
            event_type: self.at(walk, &self.event_type, buf),
            id: self.at(walk, &self.id, buf),
            time: self.at(walk, &self.time, buf),
            tenant: self.at(walk, &self.tenant, buf),
        }
    }

    #[inline]
    pub(super) fn at<'a>(&self, walk: Walk, way: &Option<Way>, buf: &'a [u8]) -> Raw<'a> {
        match way.as_ref().and_then(|way| way.last()) {
            Some(node) => self.walker.raw(walk, *node, buf),
            None => Raw::Absent,
        }
    }

    /// What each field of event `event` leads to, by its index.
    #[inline]
    pub(super) fn fields_of<'a>(
        &'a self,
        walk: Walk,
        event: usize,
        buf: &'a [u8],
    ) -> impl Fn(usize) -> Raw<'a> + 'a {
        let slots = &self.slots[event];
        move |field| self.walker.raw(walk, slots[field], buf)
    }

    /// The first path of the envelope that came twice.
    pub(super) fn envelope_twice(&self, walk: Walk) -> Option<&str> {
        let ways = [
            (&self.event_type, &self.names.event_type),
            (&self.id, &self.names.id),
            (&self.time, &self.names.time),
        ];
        let mut ways = ways.into_iter().filter_map(|(way, name)| Some((way.as_ref()?, name)));
        ways.find(|(way, _)| self.walker.twice(walk, way)).map(|(_, name)| name.as_str())
    }

    /// The first field of event `event` that came twice.
    #[inline]
    pub(super) fn field_twice(&self, walk: Walk, event: usize) -> Option<usize> {
        if !self.walker.any_twice() {
            return None;
        }
        self.fields[event].iter().position(|way| self.walker.twice(walk, way))
    }
}

fn names(envelope: &super::Envelope) -> Names {
    let name = |path: &Option<Vec<String>>, default: &str| match path {
        Some(path) if !path.is_empty() => path.join("."),
        _ => default.to_owned(),
    };
    Names {
        event_type: name(&envelope.event_type, "type"),
        id: name(&envelope.id, "id"),
        time: name(&envelope.time, "time"),
    }
}
