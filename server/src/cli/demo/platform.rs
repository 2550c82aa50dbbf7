//! Two weeks of what people say about a platform, for `streamgauge init --pack platform`.
//!
//! *In*: now. *Out*: events of `pack:platform`, and the deployments, builds, changes and reviews its scores read, as NDJSON in order
//! of time. *Never*: chance: the same instant gives the same events; an event ahead of now.

use serde_json::{Value, json};

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;
const DAYS: i64 = 14;
/// Respondents by team.
const TEAMS: [(&str, i64); 2] = [("core", 6), ("web", 8)];

/// The events that were until `now`, microseconds since 1970.
pub(super) fn sample(now: i64) -> String {
    let mut events: Vec<(i64, Value)> = Vec::new();
    for day in 0..DAYS {
        let at = now - (DAYS - day) * DAY;
        delivered(day, at, &mut events);
        for (team, people) in TEAMS {
            for person in 0..people {
                said((team, person), day, at, &mut events);
            }
        }
    }
    events.retain(|(at, _)| *at <= now);
    events.sort_by_key(|(at, _)| *at);
    events.iter().map(|(_, event)| format!("{event}\n")).collect()
}

fn event(kind: &str, id: String, at: i64, fields: Value) -> (i64, Value) {
    let time = contracts::value::time::format_timestamp(at);
    let mut event = json!({ "event_id": id, "event_type": kind, "timestamp": time });
    if let (Value::Object(event), Value::Object(fields)) = (&mut event, fields) {
        event.extend(fields);
    }
    (at, event)
}

/// What one person did and answered on one day.
fn said((team, person): (&str, i64), day: i64, at: i64, events: &mut Vec<(i64, Value)>) {
    let who = format!("{team}-{person}");
    let at = at + (1 + person) * HOUR;
    let time = contracts::value::time::format_timestamp(at);
    let active = json!({ "developer": who, "team": team, "kind": "commit", "ai_assisted": person % 3 == 0 });
    events.push(event("platform.activity", format!("activity/{who}/{day}"), at, active));
    if day == 1 {
        let sent =
            json!({ "request_id": format!("nps/{who}"), "survey": "nps", "team": team, "respondent": who });
        events.push(event("platform.survey_sent", format!("sent/nps/{who}"), at, sent));
    }
    if day == 2 && person % 4 != 3 {
        let score = [9, 10, 8, 4, 6][usize::try_from(person % 5).unwrap_or_default()];
        let answer = json!({ "response_id": format!("nps/{who}"), "responded_at": time, "team": team, "respondent": who, "score": score });
        events.push(event("platform.nps_response", format!("nps/{who}"), at, answer));
    }
    if day == 3 {
        let answer = json!({ "response_id": format!("pulse/{who}"), "responded_at": time, "team": team, "respondent": who,
            "satisfaction": 2 + person % 4, "valuable_work": 40 + 5 * person, "flow_days": person % 5, "cognitive_load": 1 + person % 5,
            "review_quality": 3 + person % 3 });
        events.push(event("platform.pulse_response", format!("pulse/{who}"), at, answer));
    }
    if (day + person) % 7 == 0 {
        let category = ["ci", "docs", "environments"][usize::try_from(person % 3).unwrap_or_default()];
        let report = json!({ "friction_id": format!("friction/{who}/{day}"), "reported_at": time, "team": team, "respondent": who,
            "category": category, "severity": "medium", "minutes": 15 * person });
        events.push(event("platform.friction", format!("friction/{who}/{day}"), at, report));
    }
}

/// What was built, reviewed and deployed on one day.
fn delivered(day: i64, at: i64, events: &mut Vec<(i64, Value)>) {
    let change = format!("acme/shop#{}", day + 1);
    let time = contracts::value::time::format_timestamp(at);
    let opened = json!({ "change_id": change, "repository": "acme/shop", "number": day + 1, "state": "open", "opened_at": time });
    events.push(event("delivery.change", format!("change/{change}"), at, opened));
    let review = json!({ "review_id": change, "change_id": change, "repository": "acme/shop", "number": day + 1, "by_author": false, "state": "approved" });
    events.push(event("delivery.review", format!("review/{change}"), at + (2 + day % 5) * HOUR, review));
    let built = if day % 6 == 4 { "failure" } else { "success" };
    let build = json!({ "build_id": format!("build/{day}"), "repository": "acme/shop", "pipeline": "test", "status": built });
    events.push(event("delivery.build", format!("build/{day}"), at + 6 * HOUR, build));
    let deployment = json!({ "deployment_id": format!("shop/{day}"), "service": "shop", "environment": "production", "repository": "acme/shop", "status": "success" });
    events.push(event("delivery.deployment", format!("deployment/{day}"), at + 8 * HOUR, deployment));
}
