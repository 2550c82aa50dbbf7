//! Two weeks of three small teams, for `streamgauge init --pack delivery`.
//!
//! *In*: now. *Out*: canonical events as NDJSON, in order of time. *Never*: chance: the same instant gives the
//! same events; an event ahead of now.
//!
//! Each team merges a change a day: two commits, a review, a merge, a deployment to staging and to production.
//! Every sixth deployment fails and is repeated; every fifth breaks something, which takes fifty minutes.

use serde_json::{Value, json};

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const DAYS: i64 = 14;

/// Service, team.
const SERVICES: [(&str, &str); 3] = [("shop", "storefront"), ("cart", "storefront"), ("search", "discovery")];

/// State, stage, meaning.
const STATES: [(&str, &str, &str); 8] = [
    ("Backlog", "Backlog", "wait"),
    ("Design", "Design", "active"),
    ("In Progress", "Development", "active"),
    ("In Review", "Code Review", "wait"),
    ("Testing", "Testing", "active"),
    ("Ready", "Deployment Approval", "wait"),
    ("Deploying", "Deploy", "active"),
    ("Done", "Production", "done"),
];

/// The events that were until `now`, microseconds since 1970.
pub(super) fn sample(now: i64) -> String {
    let mut story = Story { now, events: Vec::new() };
    story.mappings(now - (DAYS + 1) * DAY);
    for (index, (service, _)) in (0_i64..).zip(SERVICES) {
        let mut head = sha(index, 0, 0);
        for number in 1..=DAYS {
            let opened = now - (DAYS - number + 1) * DAY + (index * 3 + number * 5 % 7) * HOUR;
            head = story.change(index, service, number, opened, &head);
        }
        story.unfinished(index, service);
    }
    story.events.sort_by_key(|(at, _)| *at);
    story.events.iter().map(|(_, event)| format!("{event}\n")).collect()
}

fn sha(service: i64, change: i64, part: i64) -> String {
    let seed = (service * 10_000 + change * 100 + part + 1).unsigned_abs();
    format!("{:024x}{:016x}", seed, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

struct Story {
    now: i64,
    events: Vec<(i64, Value)>,
}

impl Story {
    fn add(&mut self, kind: &str, id: String, at: i64, fields: Value) {
        if at > self.now {
            return;
        }
        let mut event = json!({ "event_id": id, "event_type": kind, "timestamp": time(at) });
        if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
            event.extend(fields);
        }
        self.events.push((at, event));
    }

    /// What belongs to whom, and what the states mean.
    fn mappings(&mut self, at: i64) {
        for (service, team) in SERVICES {
            let id = format!("repository/acme/{service}");
            let fields = json!({ "mapping_id": id, "by": "repository", "value": format!("acme/{service}"), "service": service, "team": team });
            self.add("delivery.mapping", format!("mapping/{id}"), at, fields);
        }
        for (environment, tier) in [("production", "production"), ("staging", "staging")] {
            let id = format!("environment/{environment}");
            let fields = json!({ "mapping_id": id, "by": "environment", "value": environment, "tier": tier });
            self.add("delivery.mapping", format!("mapping/{id}"), at, fields);
        }
        for (state, stage, means) in STATES {
            let fields =
                json!({ "map_id": format!("*/{state}"), "state": state, "stage": stage, "means": means });
            self.add("delivery.state_map", format!("state_map/*/{state}"), at, fields);
        }
    }

    /// One change from its first commit to what became of it; returns the new head of the main branch.
    fn change(&mut self, index: i64, service: &str, number: i64, opened: i64, base: &str) -> String {
        let repository = format!("acme/{service}");
        let written = opened - (2 + number % 5) * HOUR;
        let merged = opened + (3 + number % 4) * HOUR;
        let first = sha(index, number, 1);
        let second = sha(index, number, 2);
        let merge = sha(index, number, 3);
        let commits = [
            (&first, vec![base], written),
            (&second, vec![first.as_str()], written + HOUR),
            (&merge, vec![base, second.as_str()], merged),
        ];
        for (commit, parents, at) in &commits {
            let fields = json!({ "repository": repository, "sha": commit, "parents": parents, "author": "jo", "authored_at": time(*at), "committed_at": time(*at) });
            self.add("delivery.commit", format!("commit/{repository}@{commit}"), *at, fields);
        }
        self.pull_request(&repository, number, (opened, merged), (&first, &second, &merge));
        self.item(service, number, (written - DAY, opened, merged));
        self.deployments(service, number, merged, &merge);
        merge
    }

    fn pull_request(
        &mut self,
        repository: &str,
        number: i64,
        (opened, merged): (i64, i64),
        (first, second, merge): (&str, &str, &str),
    ) {
        let id = format!("{repository}#{number}");
        let change = |state: &str, merge: Option<&str>, merged: Option<String>| {
            json!({ "change_id": id, "repository": repository, "number": number, "title": format!("Change {number}"), "author": "jo",
                "state": state, "base_ref": "main", "head_ref": format!("change-{number}"), "head_sha": second, "merge_sha": merge,
                "opened_at": time(opened), "ready_at": time(opened), "merged_at": merged, "closed_at": merged, "commits": 2 })
        };
        self.add("delivery.change", format!("change/{id}/1"), opened, change("open", None, None));
        let closed = change("merged", Some(merge), Some(time(merged)));
        self.add("delivery.change", format!("change/{id}/2"), merged, closed);
        let written = opened - (2 + number % 5) * HOUR;
        for (commit, at) in [(first, written), (second, written + HOUR)] {
            let fields =
                json!({ "change_id": id, "repository": repository, "sha": commit, "authored_at": time(at) });
            self.add("delivery.change_commit", format!("change_commit/{id}/{commit}"), opened, fields);
        }
        let fields = json!({ "review_id": format!("{id}/1"), "change_id": id, "repository": repository, "number": number,
            "reviewer": "rev", "reviewer_is_bot": false, "by_author": false, "state": "approved" });
        self.add("delivery.review", format!("review/{id}/1"), opened + 2 * HOUR, fields);
    }

    /// The work item behind a change goes through all stages.
    fn item(&mut self, service: &str, number: i64, (created, opened, merged): (i64, i64, i64)) {
        let id = format!("{}-{number}", service.to_uppercase());
        let kind = ["feature", "feature", "defect", "debt"][usize::try_from(number % 4).unwrap_or_default()];
        let about = json!({ "item_id": id, "project": service, "title": format!("Change {number}"), "kind": kind, "state": "Backlog", "opened_at": time(created) });
        self.add("delivery.work_item", format!("item/{id}/1"), created, about);
        let times = [
            created,
            created + 4 * HOUR,
            created + 12 * HOUR,
            opened,
            opened + 2 * HOUR,
            merged,
            merged + 10 * MINUTE,
            merged + 25 * MINUTE,
        ];
        for (step, (state, _, _)) in STATES.iter().enumerate() {
            let from = step.checked_sub(1).map(|before| STATES[before].0);
            let fields = json!({ "item_id": id, "project": service, "kind": kind, "from_state": from, "state": state });
            self.add("delivery.work_item_state", format!("item_state/{id}/{step}"), times[step], fields);
        }
    }

    /// Items on their way: as many as the number of the service and one more, each in a later stage.
    fn unfinished(&mut self, index: i64, service: &str) {
        for item in 0..=index {
            let id = format!("{}-{}", service.to_uppercase(), 100 + item);
            for (step, (state, _, _)) in (0_i64..).zip(&STATES[..usize::try_from(2 + item).unwrap_or(2)]) {
                let fields = json!({ "item_id": id, "project": service, "kind": "feature", "state": state });
                let at = self.now - (6 - item) * DAY + step * DAY;
                self.add("delivery.work_item_state", format!("item_state/{id}/{step}"), at, fields);
            }
        }
    }

    /// Staging, production, and what goes wrong.
    fn deployments(&mut self, service: &str, number: i64, merged: i64, sha: &str) {
        let fails = number % 6 == 5;
        self.deployment(
            service,
            "staging",
            &format!("{service}/staging/{number}"),
            merged + 5 * MINUTE,
            sha,
            true,
        );
        let id = format!("{service}/production/{number}");
        self.deployment(service, "production", &id, merged + 20 * MINUTE, sha, !fails);
        if fails {
            self.deployment(service, "production", &format!("{id}-again"), merged + 50 * MINUTE, sha, true);
        }
        if number % 5 == 4 {
            let (opened, id) = (merged + 80 * MINUTE, format!("INC-{service}-{number}"));
            let incident = |status: &str, resolved: Option<String>| {
                json!({ "incident_id": id, "title": "It is slow", "service": service, "environment": "production", "severity": "high",
                    "status": status, "opened_at": time(opened), "resolved_at": resolved, "cause": "change" })
            };
            self.add("delivery.incident", format!("incident/{id}/1"), opened, incident("open", None));
            let closed = opened + 50 * MINUTE;
            self.add(
                "delivery.incident",
                format!("incident/{id}/2"),
                closed,
                incident("resolved", Some(time(closed))),
            );
        }
    }

    fn deployment(&mut self, service: &str, environment: &str, id: &str, at: i64, sha: &str, succeeds: bool) {
        let done = at + 6 * MINUTE;
        let fields = |status: &str, finished: Option<String>| {
            json!({ "deployment_id": id, "service": service, "environment": environment, "production": environment == "production",
                "repository": format!("acme/{service}"), "sha": sha, "ref": "main", "status": status, "created_at": time(at),
                "started_at": time(at), "finished_at": finished })
        };
        self.add("delivery.deployment", format!("deployment/{id}/1"), at, fields("running", None));
        let status = if succeeds { "success" } else { "failure" };
        self.add("delivery.deployment", format!("deployment/{id}/2"), done, fields(status, Some(time(done))));
    }
}

fn time(micros: i64) -> String {
    contracts::value::time::format_timestamp(micros)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_story_fits_the_contracts_of_the_pack() {
        const NOW: i64 = 1_772_452_800_000_000;
        let text = sample(NOW);
        assert_eq!(text, sample(NOW));
        let loaded = contracts::load(&contracts::pack("delivery").unwrap());
        let catalog = std::sync::Arc::new(loaded.catalog);
        let path = |key: &str| Some(vec![key.to_owned()]);
        let envelope = connectors::decode::Envelope {
            id: path("event_id"),
            event_type: path("event_type"),
            time: path("timestamp"),
            ..Default::default()
        };
        let spec = connectors::decode::DecodeSpec { envelope, ..Default::default() };
        let mut decoder = connectors::decode::Decoder::new(catalog.clone(), spec);
        for (offset, line) in (0..).zip(text.lines()) {
            let value = line.as_bytes();
            decoder.push(connectors::decode::Record { value, offset, received: NOW, headers: &[] });
        }
        let partition = contracts::batch::Partition { source: "s".into(), topic: "t".into(), number: 0 };
        let chunk = decoder.finish(&partition, 0, None);
        assert!(chunk.refused.is_empty(), "{:?}", chunk.refused[0].reasons);
        let ids: BTreeSet<String> = chunk
            .batches
            .iter()
            .flat_map(|batch| batch.ids.iter().map(|id| format!("{} {id:?}", batch.event)))
            .collect();
        assert_eq!(ids.len(), text.lines().count(), "ids are not unique");
        let kinds = chunk.batches.iter().map(|batch| catalog.events[batch.event].head.name.as_str());
        let kinds: BTreeSet<&str> = kinds.collect();
        for kind in ["commit", "change", "review", "deployment", "incident", "work_item_state", "mapping"] {
            assert!(kinds.contains(format!("delivery.{kind}").as_str()), "{kind}: {kinds:?}");
        }
    }
}
