//! Webhooks from the outside: signed deliveries to a running server, and the numbers they move.
#![allow(clippy::unwrap_used)] // A test stops at the first thing that is not as it should be.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Server, exits, log, ok, wait};

const SETTINGS: &str = r#"apiVersion: streamgauge/v1
kind: Settings
contracts: [pack:delivery, metrics.yaml]
data: data/
limits: { body: 64KiB }
sources:
  - { name: github, hook: { kind: github, secret_file: github.secret } }
  - { name: tracker, hook: { kind: standard, secret_env: [TRACKER_NEW, TRACKER_OLD], tolerance: 1m }, envelope: { id: event_id, type: event_type, time: timestamp } }
  - { name: chat, hook: { kind: slack, secret_env: CHAT } }
  - { name: jenkins, hook: { kind: jenkins, verify: none } }
"#;

const METRICS: &str = r#"apiVersion: streamgauge/v1
kind: Metric
name: deployments
version: 1.0.0
events: { deployment: { type: delivery.deployment, where: "status = 'success'" } }
dimensions:
  environment: { from: deployment.environment, max: 20 }
measures:
  deployments: { agg: count }
windows:
  all: { all: true }
---
apiVersion: streamgauge/v1
kind: Metric
name: commits
version: 1.0.0
events: { commit: { type: delivery.commit } }
measures:
  commits: { agg: count }
windows:
  all: { all: true }
"#;

const SECRET: &str = "It's a Secret to Everybody";
/// `whsec_` and base64 of `new key`, `old key`.
const NEW: &str = "whsec_bmV3IGtleQ==";
const OLD: &str = "whsec_b2xkIGtleQ==";

struct Hooks {
    folder: tempfile::TempDir,
}

impl Hooks {
    fn new() -> Hooks {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("streamgauge.yaml"), SETTINGS).unwrap();
        std::fs::write(folder.path().join("metrics.yaml"), METRICS).unwrap();
        std::fs::write(folder.path().join("github.secret"), format!("{SECRET}\n")).unwrap();
        Hooks { folder }
    }

    fn start(&self) -> Server {
        Server::start_with(
            self.folder.path(),
            &[("TRACKER_NEW", NEW), ("TRACKER_OLD", OLD), ("CHAT", "chat secret")],
        )
    }
}

struct Reply {
    status: u16,
    text: String,
    retry_after: Option<String>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{}", self.text))
    }
}

fn post(server: &Server, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
    let mut request = agent.post(format!("{}{path}", server.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = request.send(body).unwrap();
    let retry_after = answer.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
    Reply { status: answer.status().as_u16(), text: answer.body_mut().read_to_string().unwrap(), retry_after }
}

/// HMAC-SHA256 (RFC 2104) from SHA-256 alone, so that the tests do not sign with the code they test.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    assert!(key.len() <= 64);
    let pad = |with: u8| -> Vec<u8> {
        let mut block = [0; 64];
        block[..key.len()].copy_from_slice(key);
        block.iter().map(|byte| byte ^ with).collect()
    };
    let inner = Sha256::digest([&pad(0x36)[..], message].concat());
    Sha256::digest([&pad(0x5c)[..], &inner].concat()).to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn github(server: &Server, event: &str, delivery: &str, body: &str) -> Reply {
    let signature = format!("sha256={}", hex(&hmac(SECRET.as_bytes(), body.as_bytes())));
    let headers = [
        ("content-type", "application/json"),
        ("x-github-event", event),
        ("x-github-delivery", delivery),
        ("x-hub-signature-256", signature.as_str()),
    ];
    post(server, "/v1/hooks/github", &headers, body.as_bytes())
}

fn deployment(id: u32, state: &str, environment: &str) -> String {
    json!({
        "action": "created",
        "deployment_status": {"id": 1000 + id, "state": state, "environment": environment, "created_at": "2026-03-02T10:00:00Z"},
        "deployment": {"id": id, "sha": "f95f852bd8fca8fcc58a9a2d6c842781e32a215e", "ref": "main", "task": "deploy",
            "environment": environment, "created_at": "2026-03-02T09:59:00Z"},
        "repository": {"name": "shop", "full_name": "acme/shop"},
    })
    .to_string()
}

fn value(server: &Server, metric: &str, token: &Value) -> Value {
    let token = token.as_str().unwrap();
    server.get(&format!("/v1/metrics/{metric}?window=all&after={token}&wait=5s"))["value"].clone()
}

fn counters(server: &Server, source: &str) -> (u64, u64, u64, u64, u64) {
    let text = server.text("/metrics");
    let of = |outcome: &str| -> u64 {
        let lines = text.lines().filter(|line| {
            line.starts_with("streamgauge_events_total{")
                && line.contains(&format!("source=\"{source}\""))
                && line.contains(&format!("outcome=\"{outcome}\""))
        });
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    (of("received"), of("admitted"), of("refused"), of("duplicate"), of("skipped"))
}

#[test]
fn signed_deliveries_become_numbers_and_survive_kill_9() {
    let hooks = Hooks::new();
    let server = hooks.start();
    let body = deployment(1, "success", "production");
    let reply = github(&server, "deployment_status", "d-1", &body);
    assert_eq!(reply.status, 202, "{}", reply.text);
    let answer = reply.json();
    assert_eq!((&answer["delivery"], &answer["duplicate"]), (&json!("d-1"), &json!(false)));
    assert_eq!(value(&server, "deployments", &answer["token"]), 1);
    for (id, state, environment) in
        [(2, "in_progress", "production"), (3, "success", "staging"), (1, "inactive", "production")]
    {
        let name = format!("d-{id}-{state}");
        assert_eq!(
            github(&server, "deployment_status", &name, &deployment(id, state, environment)).status,
            202
        );
    }
    // The same again: known by its name and bytes, then by what it says.
    let again = github(&server, "deployment_status", "d-1", &body).json();
    assert_eq!((&again["duplicate"], &again["token"]), (&json!(true), &answer["token"]));
    let other = github(&server, "deployment_status", "d-1-by-another-hook", &body).json();
    assert_eq!(other["duplicate"], false);
    let ping = github(&server, "ping", "d-ping", "{\"zen\":\"x\"}").json();
    let star = github(&server, "star", "d-star", "{\"action\":\"created\"}").json();
    assert_eq!(value(&server, "deployments", &star["token"]), 2, "{ping}");
    let rows = server.get("/v1/metrics/deployments?window=all&by=environment")["rows"].clone();
    assert_eq!(
        rows,
        json!([{"environment": "production", "deployments": 1}, {"environment": "staging", "deployments": 1}])
    );
    // received = admitted + refused + duplicate + skipped
    assert_eq!(counters(&server, "github"), (7, 3, 0, 1, 3));

    server.signal("KILL");
    drop(server);
    let server = hooks.start();
    wait(Duration::from_secs(10), || counters(&server, "github") == (7, 3, 0, 1, 3))
        .unwrap_or_else(|()| panic!("{}", log(hooks.folder.path())));
    let again = github(&server, "deployment_status", "d-1", &body).json();
    assert_eq!(again["duplicate"], true, "{again}");
    assert_eq!(value(&server, "deployments", &again["token"]), 2);
    let text = server.text("/metrics");
    assert!(
        text.contains("streamgauge_hook_deliveries_total{source=\"github\",outcome=\"duplicate\"} 1"),
        "{text}"
    );
}

#[test]
fn a_push_is_one_delivery_and_many_events() {
    let hooks = Hooks::new();
    let server = hooks.start();
    let commit = |n: u32| json!({"id": format!("{n:040x}"), "message": "m", "timestamp": "2026-03-02T09:00:00Z", "author": {"name": "jo"}});
    let push = |commits: Vec<Value>, after: u32| {
        json!({"ref": "refs/heads/main", "before": format!("{:040x}", 1), "after": format!("{after:040x}"), "commits": commits,
            "repository": {"name": "shop", "full_name": "acme/shop", "pushed_at": 1_772_442_000, "default_branch": "main"}})
        .to_string()
    };
    let first = github(&server, "push", "p-1", &push((2..=30).map(commit).collect(), 30)).json();
    assert_eq!(value(&server, "commits", &first["token"]), 29);
    // The same commits arrive on another branch: they count once.
    let second = github(&server, "push", "p-2", &push((20..=31).map(commit).collect(), 31)).json();
    assert_eq!(value(&server, "commits", &second["token"]), 30);
    assert_eq!(counters(&server, "github"), (30 + 13, 30 + 2, 0, 11, 0));
}

#[test]
fn what_is_refused_can_be_corrected_and_replayed() {
    let hooks = Hooks::new();
    let server = hooks.start();
    let broken = deployment(9, "success", "production").replace("\"2026-03-02T10:00:00Z\"", "\"soon\"");
    assert_eq!(github(&server, "deployment_status", "r-1", &broken).status, 202);
    let letters = || server.get("/v1/deadletter?source=github");
    wait(Duration::from_secs(10), || letters()["pagination"]["total"] == 1)
        .unwrap_or_else(|()| panic!("{}", letters()));
    let letter = letters()["items"][0].clone();
    assert_eq!(letter["event_type"], "delivery.deployment", "{letter}");
    let id = letter["event_id"].as_str().unwrap().to_owned();
    let fix = json!({"corrected_payload": {"timestamp": "2026-03-02T10:00:00Z", "finished_at": "2026-03-02T10:00:00Z"}});
    let reply = post(
        &server,
        &format!("/v1/deadletter/{id}/replay"),
        &[("content-type", "application/json")],
        fix.to_string().as_bytes(),
    );
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["status"], "replayed", "{}", reply.text);
    assert_eq!(value(&server, "deployments", &reply.json()["token"]), 1);

    // A delivery that nobody understood is corrected as what it is: a delivery, with the headers it came with.
    let odd = github(&server, "deployment_status", "r-2", "[1]");
    assert_eq!(odd.status, 202, "{}", odd.text);
    let open = || server.get("/v1/deadletter?source=github&status=failed");
    wait(Duration::from_secs(10), || open()["pagination"]["total"] == 1)
        .unwrap_or_else(|()| panic!("{}", open()));
    let id = open()["items"][0]["event_id"].as_str().unwrap().to_owned();
    let fix = format!("{{\"payload\": {}}}", deployment(10, "success", "production"));
    let path = format!("/v1/deadletter/{id}/replay");
    let reply = post(&server, &path, &[("content-type", "application/json")], fix.as_bytes());
    assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("replayed")), "{}", reply.text);
    assert_eq!(value(&server, "deployments", &reply.json()["token"]), 2);
}

#[test]
fn what_is_not_signed_right_is_denied_without_a_hint() {
    let hooks = Hooks::new();
    let server = hooks.start();
    let body = deployment(1, "success", "production");
    let good = format!("sha256={}", hex(&hmac(SECRET.as_bytes(), body.as_bytes())));
    let wrong = format!("sha256={}", hex(&hmac(b"another", body.as_bytes())));
    let json_type = ("content-type", "application/json");
    let event = ("x-github-event", "deployment_status");
    let mut details = std::collections::BTreeSet::new();
    for (headers, body) in [
        (vec![json_type, event], body.clone()),
        (vec![json_type, event, ("x-hub-signature-256", wrong.as_str())], body.clone()),
        (
            vec![json_type, event, ("x-hub-signature-256", good.as_str())],
            body.replace("production", "Production"),
        ),
        (vec![json_type, event, ("x-hub-signature-256", "sha256=")], body.clone()),
        (vec![json_type, event, ("x-hub-signature", good.as_str())], body.clone()),
    ] {
        let reply = post(&server, "/v1/hooks/github", &headers, body.as_bytes());
        assert_eq!((reply.status, &reply.json()["code"]), (401, &json!("bad_signature")), "{}", reply.text);
        details.insert(reply.text);
    }
    assert_eq!(details.len(), 1, "every denial reads the same: {details:?}");
    assert_eq!(counters(&server, "github").0, 0);
    let said = log(hooks.folder.path());
    assert!(!said.contains(SECRET) && !said.contains(&good), "{said}");
    let page = server.text("/readyz?verbose");
    assert!(!page.contains(SECRET) && !page.contains(NEW), "{page}");
}

#[test]
fn the_other_refusals() {
    let hooks = Hooks::new();
    let server = hooks.start();
    let reply = post(&server, "/v1/hooks/githup", &[], b"{}");
    assert_eq!(reply.status, 404, "{}", reply.text);
    assert!(reply.json()["detail"].as_str().unwrap().contains("Did you mean `github`?"), "{}", reply.text);
    let send = |headers: &[(&str, &str)], body: &[u8]| post(&server, "/v1/hooks/jenkins", headers, body);
    let json_type = ("content-type", "application/json");
    assert_eq!(send(&[json_type], &vec![b' '; 70_000]).status, 413);
    assert_eq!(send(&[("content-type", "text/plain")], b"{}").status, 415);
    assert_eq!(send(&[("content-type", "application/vnd.streamgauge.event+json")], b"{}").status, 415);
    assert_eq!(send(&[json_type, ("content-encoding", "gzip")], b"{}").status, 415);
    assert_eq!(send(&[json_type], b" ").status, 400);
    // Without a signature nothing gets in by the front door, either.
    let reply = post(&server, "/v1/events?source=jenkins", &[json_type], b"{}");
    assert_eq!((reply.status, &reply.json()["code"]), (422, &json!("signed_source")), "{}", reply.text);
    // Jira adds parameters of its own to the URL it is given.
    let reply202 = post(&server, "/v1/hooks/jenkins?user_id=7", &[json_type], b"{\"not\":\"a build\"}");
    assert_eq!(reply202.status, 202, "{}", reply202.text);
    wait(Duration::from_secs(10), || counters(&server, "jenkins") == (1, 0, 1, 0, 0)).unwrap();
    assert!(reply.retry_after.is_none());
}

#[test]
fn standard_webhooks_rotate_and_slack_is_answered() {
    use base64::Engine as _;
    let hooks = Hooks::new();
    let server = hooks.start();
    let now = jiff::Timestamp::now().as_second();
    let send = |id: &str, at: i64, key: &[u8]| {
        let body = json!({"event_type": "delivery.mapping", "event_id": id, "timestamp": "2026-03-02T00:00:00Z",
            "mapping_id": "repository/acme/shop", "by": "repository", "value": "acme/shop", "service": "shop", "team": "core"})
        .to_string();
        let signed = format!("{id}.{at}.{body}");
        let encoded = base64::engine::general_purpose::STANDARD.encode(hmac(key, signed.as_bytes()));
        let (at, signature) = (at.to_string(), format!("v1,{encoded}"));
        let headers = [
            ("content-type", "application/json"),
            ("webhook-id", id),
            ("webhook-timestamp", at.as_str()),
            ("webhook-signature", signature.as_str()),
        ];
        post(&server, "/v1/hooks/tracker", &headers, body.as_bytes())
    };
    assert_eq!(send("m-1", now, b"new key").status, 202);
    assert_eq!(send("m-2", now, b"old key").status, 202);
    assert_eq!(send("m-3", now, b"no key").status, 401);
    assert_eq!(send("m-4", now - 120, b"new key").status, 401);
    assert_eq!(send("m-5", now - 30, b"new key").status, 202);
    assert_eq!(send("m-1", now, b"new key").json()["duplicate"], true);
    wait(Duration::from_secs(10), || counters(&server, "tracker") == (3, 3, 0, 0, 0))
        .unwrap_or_else(|()| panic!("{:?}", counters(&server, "tracker")));

    let body = r#"{"token":"t","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#;
    let signature = format!("v0={}", hex(&hmac(b"chat secret", format!("v0:{now}:{body}").as_bytes())));
    let at = now.to_string();
    let headers = [
        ("content-type", "application/json"),
        ("x-slack-request-timestamp", at.as_str()),
        ("x-slack-signature", signature.as_str()),
    ];
    let reply = post(&server, "/v1/hooks/chat", &headers, body.as_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["challenge"], "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P");
}

#[test]
fn an_adapter_of_ones_own_needs_no_line_of_rust() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [pack:delivery, metrics.yaml]\nsources:\n  \
                    - { name: tool, hook: { kind: token, secret_env: TOOL, adapter: tool.yaml } }\n";
    let adapter = "adapter: tool\ndescription: Our own deploy tool.\nheaders: []\nrules:\n  - when: { kind: deployed }\n    \
                   emit: delivery.deployment\n    fields:\n      event_id: { versioned: { join: [{ const: tool }, id], with: / } }\n      \
                   timestamp: { time: at }\n      deployment_id: { join: [{ const: tool }, id], with: / }\n      \
                   environment: { lower: target }\n      status: { map: { OK: success, KO: failure }, of: result }\n";
    std::fs::write(folder.path().join("streamgauge.yaml"), settings).unwrap();
    std::fs::write(folder.path().join("metrics.yaml"), METRICS).unwrap();
    std::fs::write(folder.path().join("tool.yaml"), adapter.replace("time: at", "tyme: at")).unwrap();
    let output =
        support::streamgauge().arg("serve").current_dir(folder.path()).env("TOOL", "t").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("tool.yaml:9:20") && said.contains("did you mean: time"), "{said}");

    std::fs::write(folder.path().join("tool.yaml"), adapter).unwrap();
    let server = Server::start_with(folder.path(), &[("TOOL", "a token")]);
    let send = |token: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("authorization", token)];
        post(&server, "/v1/hooks/tool", &headers, body.as_bytes())
    };
    let body = r#"{"kind":"deployed","id":7,"at":1772442000,"target":"PROD","result":"OK"}"#;
    assert_eq!(send("Bearer no token", body).status, 401);
    let answer = send("Bearer a token", body).json();
    assert_eq!(value(&server, "deployments", &answer["token"]), 1, "{answer}");
    let other = r#"{"kind":"deployed","id":8,"at":1772442000,"target":"PROD","result":"fine"}"#;
    let answer = send("Bearer a token", other).json();
    assert_eq!(value(&server, "deployments", &answer["token"]), 1, "{answer}");
    assert_eq!(counters(&server, "tool"), (2, 1, 1, 0, 0));
    drop(server);

    // A better adapter restates history: deliveries are kept as they came.
    let better = adapter
        .replace("OK: success", "OK: success, fine: success")
        .replace("lower: target", "const: production");
    std::fs::write(folder.path().join("tool.yaml"), better).unwrap();
    let server = Server::start_with(folder.path(), &[("TOOL", "a token")]);
    let rows = || server.get("/v1/metrics/deployments?window=all&by=environment")["rows"].clone();
    wait(Duration::from_secs(10), || rows() == json!([{"environment": "production", "deployments": 2}]))
        .unwrap_or_else(|()| panic!("{}", rows()));
    assert_eq!(counters(&server, "tool"), (2, 2, 0, 0, 0));
}

#[test]
fn a_hook_needs_a_secret_that_does_not_stand_in_the_file() {
    let refused = |hook: &str, code: &str, part: &str| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        let text = format!(
            "apiVersion: streamgauge/v1\nkind: Settings\ncontracts: [pack:delivery]\nsources:\n  - {{ name: h, hook: {hook} }}\n"
        );
        std::fs::write(folder.path().join("streamgauge.yaml"), text).unwrap();
        let (_, said) = exits(folder.path(), &["serve"], 78);
        assert!(said.contains(code) && said.contains(part), "{hook}\n{said}");
        said
    };
    refused("{ kind: github }", "hook_without_secret", "secret_env");
    refused("{ kind: github, secret_env: NOT_SET_ANYWHERE }", "secret_not_found", "NOT_SET_ANYWHERE");
    refused("{ kind: github, secret_file: empty }", "secret_not_found", "empty");
    refused("{ kind: githob, verify: none }", "not_allowed", "did you mean: github");
    refused("{ verify: none }", "missing", "`hook` needs a `kind`");
    refused("{ kind: github, verify: none, tolerance: 2d }", "not_allowed", "24h");
    let said = refused("{ kind: github, secret: hunter2 }", "secret_in_file", "secret_file");
    assert!(!said.contains("hunter2"), "{said}");
}

/// What `init --pack` makes is checked, served and fed with its own events, and the pack's metrics say something.
#[test]
fn starter_folders_of_the_packs_run() {
    let packs: [(&str, &[&str]); 4] = [
        (
            "delivery",
            &[
                "dora_deployment_frequency",
                "dora_lead_time",
                "dora_change_fail_rate",
                "dora_recovery_time",
                "dora_rework_rate",
            ],
        ),
        ("delivery-devlake", &["devlake_change_failure_rate", "devlake_recovery_time", "devlake_lead_time"]),
        ("flow", &["flow_velocity", "flow_time", "flow_efficiency", "flow_stage"]),
        ("platform", &["platform_nps", "platform_space", "platform_friction"]),
    ];
    for (pack, metrics) in packs {
        let folder = tempfile::tempdir().unwrap();
        ok(folder.path(), &["init", "--pack", pack]);
        ok(folder.path(), &["check"]);
        let server = Server::start(folder.path());
        let said = ok(folder.path(), &["ingest", "events.ndjson", "--url", &server.url, "--json"]);
        let said: Value = serde_json::from_str(&said).unwrap();
        assert!(said["accepted"].as_u64().unwrap() > 200, "{pack}: {said}");
        assert_eq!((&said["refused"], &said["duplicate"]), (&json!(0), &json!(0)), "{pack}: {said}");
        for metric in metrics {
            let path = format!("/v1/metrics/{metric}?window=30d");
            let done = wait(Duration::from_secs(20), || server.get(&path)["value"].is_number());
            assert!(done.is_ok(), "{}", server.get(&path));
        }
    }
}

#[test]
fn the_delivery_pack_is_clean_and_doctor_names_the_hooks() {
    let folder = Hooks::new().folder;
    ok(folder.path(), &["check", "pack:delivery"]);
    let doctor = support::streamgauge()
        .args(["doctor"])
        .current_dir(folder.path())
        .env("STREAMGAUGE_SERVER__LISTEN", "127.0.0.1:0")
        .envs([("TRACKER_NEW", NEW), ("TRACKER_OLD", OLD), ("CHAT", "chat secret")])
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(out.contains("takes github webhooks at POST /v1/hooks/github"), "{out}");
    assert!(
        out.contains("from anybody (verify: none)") && !out.contains(SECRET) && !out.contains(NEW),
        "{out}"
    );
}
