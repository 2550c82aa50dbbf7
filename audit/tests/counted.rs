//! Which event types `why` counts as received.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

use contracts::SourceFile;

const LEAD: &str = "
apiVersion: streamgauge/v1
kind: Event
name: change.merged
version: 1.0.0
fields: { change: { type: string } }
---
apiVersion: streamgauge/v1
kind: Event
name: deployed
version: 1.0.0
fields: { change: { type: string }, service: { type: string } }
---
apiVersion: streamgauge/v1
kind: Event
name: service.owned
version: 1.0.0
fields: { service: { type: string }, team: { type: string } }
---
apiVersion: streamgauge/v1
kind: Table
name: owners
version: 1.0.0
key: service
fields: { service: { type: string, required: true }, team: { type: string } }
source: { event: service.owned }
---
apiVersion: streamgauge/v1
kind: Metric
name: lead_time
version: 1.0.0
events:
  merge: { type: change.merged }
  deploy: { type: deployed }
join:
  - { from: merge, to: deploy, match: merge.change = deploy.change, pick: first, within: 90d }
enrich:
  owner: { table: owners, match: deploy.service = owner.service, as_of: event }
dimensions:
  team: { from: owner.team, default: nobody, max: 50 }
measures:
  changes: { agg: count }
windows:
  7d: { sliding: 7d, every: 1m }
";

#[test]
fn what_only_tables_are_made_of_is_not_counted() {
    let loaded = contracts::load(&[SourceFile::new("case.yaml", LEAD)]);
    let mistakes: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    assert!(!loaded.has_errors(), "{}", mistakes.join("\n"));
    let catalog = &loaded.catalog;
    let names = |events: std::collections::BTreeSet<usize>| -> Vec<String> {
        events.into_iter().map(|event| catalog.events[event].head.name.to_string()).collect()
    };
    let metric = &catalog.metrics[0];
    // Rows that files bring have an event type of their own.
    let all = ["change.merged", "deployed", "service.owned", "streamgauge.table.owners"];
    assert_eq!(names(audit::reads(catalog, metric)), all);
    assert_eq!(names(audit::counted(catalog, metric)), ["change.merged", "deployed"]);
}
