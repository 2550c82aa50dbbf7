//! A real repository with merges, squashes, rebases, hotfixes and rollbacks: lead times by the engine, and by `git rev-list`.
//!
//! Git decides what a deployment ships (`git rev-list tag ^tag-before`); the engine hears of the same repository by
//! events only: commits, pushes, changes, deployments, in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use contracts::value::Value;
use engine::MetricQuery;
use serde_json::{Value as Json, json};
use tests::harness::{Rig, catalog};
use tests::oracle::admit::Raw;
use tests::oracle::val::instant;

const EVENTS: &str = include_str!("../../contracts/packs/delivery/events.yaml");

const METRICS: &str = r#"
---
apiVersion: streamgauge/v1
kind: Metric
name: commits
version: 1.0.0
events:
  commit: { type: delivery.commit }
  push: { type: delivery.branch_push }
  deploy: { type: delivery.deployment, where: deploy.status = 'success' }
join:
  - from: commit
    to: deploy
    match: commit.repository = deploy.repository
    within: 3650d
    ships:
      commit: commit.sha
      head: deploy.sha
      line: [deploy.service, deploy.environment]
      history:
        - { of: commit, sha: commit.sha, parents: commit.parents }
        - { of: push, graph: push.repository, before: "CASE WHEN push.forced THEN NULL ELSE push.before END", commits: push.shas }
dimensions:
  sha: { from: commit.sha, max: 100000 }
  line: { from: "deploy.service || '/' || deploy.environment", max: 100 }
measures: { rows: { agg: count }, lead: { agg: max, value: deploy.time - commit.time } }
retain: { live: 3650d }
---
apiVersion: streamgauge/v1
kind: Metric
name: changes
version: 1.0.0
events:
  change: { type: delivery.change, where: change.state = 'merged' }
  commit: { type: delivery.commit }
  push: { type: delivery.branch_push, where: NOT push.forced }
  deploy: { type: delivery.deployment, where: deploy.status = 'success' }
join:
  - from: change
    to: deploy
    match: change.repository = deploy.repository
    within: 3650d
    ships:
      commit: [change.merge_sha, change.head_sha]
      head: deploy.sha
      line: [deploy.service, deploy.environment]
      history:
        - { of: commit, graph: commit.repository, sha: commit.sha, parents: commit.parents }
        - { of: push, graph: push.repository, before: push.before, commits: push.shas }
dimensions:
  sha: { from: change.change_id, max: 100000 }
  line: { from: "deploy.service || '/' || deploy.environment", max: 100 }
measures: { rows: { agg: count }, lead: { agg: max, value: deploy.time - change.time } }
retain: { live: 3650d }
"#;

const HOUR: i64 = 3_600;
const LINES: [(&str, &str); 3] = [("shop", "production"), ("shop", "staging"), ("cart", "production")];

/// A repository that people work in.
struct Repository {
    folder: tempfile::TempDir,
    rng: fastrand::Rng,
    /// Seconds since the epoch.
    now: i64,
    files: u32,
    deployments: Vec<Deployment>,
    changes: Vec<Change>,
    pushes: Vec<Json>,
}

struct Deployment {
    line: usize,
    sha: String,
    time: i64,
    success: bool,
}

struct Change {
    merge_sha: String,
    head_sha: String,
    time: i64,
}

impl Repository {
    fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let rng = fastrand::Rng::with_seed(seed);
        let mut repository = Self {
            folder,
            rng,
            now: 1_767_225_600,
            files: 0,
            deployments: Vec::new(),
            changes: Vec::new(),
            pushes: Vec::new(),
        };
        repository.git(&["init", "-q", "-b", "main"]);
        repository.commit();
        repository
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(self.folder.path(), self.now, arguments)
    }

    fn head(&self, name: &str) -> String {
        self.git(&["rev-parse", name])
    }

    fn later(&mut self) {
        self.now += self.rng.i64(60..9 * HOUR);
    }

    /// A commit of a new file on the branch that is checked out.
    fn commit(&mut self) {
        self.later();
        self.files += 1;
        let name = format!("file{}", self.files);
        std::fs::write(self.folder.path().join(&name), &name).expect("a file");
        self.git(&["add", &name]);
        self.git(&["commit", "-q", "-m", &name]);
    }

    /// A branch with some commits, from where `main` is or was; its name.
    fn branch(&mut self, number: usize) -> String {
        let name = format!("feature{number}");
        let commits: i64 =
            self.git(&["rev-list", "--count", "--first-parent", "main"]).parse().expect("a count");
        let back = self.rng.i64(0..commits.min(4));
        self.git(&["checkout", "-q", "-b", &name, &format!("main~{back}")]);
        for _ in 0..self.rng.usize(1..4) {
            self.commit();
        }
        name
    }

    /// The branch goes to `main`, or stays.
    fn land(&mut self, name: &str) {
        let head_sha = self.head(name);
        self.git(&["branch", &format!("{name}-as-pushed"), name]);
        self.later();
        let how = self.rng.u32(..4);
        if how == 3 {
            self.git(&["checkout", "-q", "main"]);
            return;
        }
        if how == 2 {
            let fork = self.git(&["merge-base", "main", name]);
            self.git(&["rebase", "-q", "main", name]);
            let shas = self.git(&["rev-list", "--reverse", &format!("main..{name}")]);
            let shas: Vec<&str> = shas.split_whitespace().collect();
            if fork != self.head("main") {
                // What was pushed before is no ancestor of what is pushed now.
                let push = self.push(&head_sha, &shas, true);
                self.pushes.push(push);
            }
        }
        self.git(&["checkout", "-q", "main"]);
        match how {
            0 => self.git(&["merge", "-q", "--no-ff", "-m", name, name]),
            1 => {
                self.git(&["merge", "-q", "--squash", name]);
                self.git(&["commit", "-q", "-m", name])
            }
            _ => self.git(&["merge", "-q", "--ff-only", name]),
        };
        let change = Change { merge_sha: self.head("main"), head_sha, time: self.now };
        self.changes.push(change);
    }

    fn push(&self, before: &str, shas: &[&str], forced: bool) -> Json {
        json!({
            "type": "delivery.branch_push", "event_id": format!("push/{before}/{}/{forced}", shas.join("/")),
            "timestamp": instant(self.now * 1_000_000), "repository": "acme/shop", "ref": "refs/heads/x",
            "before": before, "after": shas.last(), "forced": forced, "shas": shas,
        })
    }

    fn deploy(&mut self, line: usize, name: &str) {
        self.later();
        let success = self.rng.u32(..8) > 0;
        let sha = self.head(name);
        if success {
            self.git(&["tag", &format!("deploy-{}", self.deployments.len()), &sha]);
        }
        self.deployments.push(Deployment { line, sha, time: self.now, success });
    }

    /// Somebody deploys: `main`, what ran before, a fix on top of it.
    fn deploy_something(&mut self, number: usize) {
        let line = self.rng.usize(..LINES.len());
        let before: Vec<String> =
            self.deployments.iter().filter(|d| d.line == line && d.success).map(|d| d.sha.clone()).collect();
        match (self.rng.u32(..10), before.last()) {
            (0..2, Some(_)) => {
                let old = before[self.rng.usize(..before.len())].clone();
                self.deploy(line, &old);
            }
            (2, Some(last)) => {
                let name = format!("hotfix{number}");
                let last = last.clone();
                self.git(&["checkout", "-q", "-b", &name, &last]);
                self.commit();
                self.deploy(line, &name);
                self.land(&name);
            }
            _ => self.deploy(line, "main"),
        }
    }

    fn work(&mut self, steps: usize) {
        for number in 0..steps {
            match self.rng.u32(..4) {
                0 => self.commit(),
                _ => {
                    let name = self.branch(number);
                    if self.rng.u32(..5) == 0 {
                        self.deploy(1, &name);
                    }
                    self.land(&name);
                }
            }
            if self.rng.u32(..3) > 0 {
                self.deploy_something(number);
            }
        }
    }

    /// Hash, parents, time of every commit.
    fn commits(&self) -> Vec<(String, Vec<String>, i64)> {
        let text = self.git(&["log", "--all", "--format=%H,%P,%ct"]);
        let commit = |line: &str| {
            let parts: Vec<&str> = line.split(',').collect();
            let parents = parts[1].split_whitespace().map(str::to_string).collect();
            (parts[0].to_string(), parents, parts[2].parse().expect("a time"))
        };
        text.lines().map(commit).collect()
    }

    /// What the engine hears; of some commits a push knows the parent and the commit does not.
    fn events(&mut self) -> Vec<Json> {
        let mut events = self.pushes.clone();
        let commits = self.commits();
        let silent: BTreeMap<String, String> = commits
            .iter()
            .filter(|(_, parents, _)| parents.len() == 1 && self.rng.u32(..3) == 0)
            .map(|(sha, parents, _)| (sha.clone(), parents[0].clone()))
            .collect();
        for (sha, parents, time) in &commits {
            let mut event = json!({
                "type": "delivery.commit", "event_id": format!("commit/acme/shop@{sha}"),
                "timestamp": instant(time * 1_000_000), "repository": "acme/shop", "sha": sha,
            });
            match silent.get(sha) {
                None => event["parents"] = json!(parents),
                Some(parent) => events.push(match silent.get(parent) {
                    Some(before) => self.push(before, &[parent, sha], false),
                    None => self.push(parent, &[sha], false),
                }),
            }
            events.push(event);
        }
        for (number, deployment) in self.deployments.iter().enumerate() {
            let (service, environment) = LINES[deployment.line];
            events.push(json!({
                "type": "delivery.deployment", "event_id": format!("deploy/{number}"), "deployment_id": number.to_string(),
                "timestamp": instant(deployment.time * 1_000_000), "repository": "acme/shop",
                "service": service, "environment": environment, "sha": deployment.sha,
                "status": if deployment.success { "success" } else { "failure" },
            }));
        }
        for (number, change) in self.changes.iter().enumerate() {
            events.push(json!({
                "type": "delivery.change", "event_id": format!("change/{number}"), "change_id": format!("acme/shop#{number}"),
                "timestamp": instant(change.time * 1_000_000), "repository": "acme/shop", "number": number + 1,
                "state": "merged", "merge_sha": change.merge_sha, "head_sha": change.head_sha,
            }));
        }
        events
    }

    /// Per line, the deployments with what Git says they shipped.
    fn shipped(&self) -> Vec<Vec<(i64, BTreeSet<String>)>> {
        let of_line = |line: usize| {
            let all = self.deployments.iter().enumerate();
            let numbers: Vec<usize> =
                all.filter(|(_, d)| d.line == line && d.success).map(|(n, _)| n).collect();
            let mut shipped = Vec::new();
            for (at, number) in numbers.iter().enumerate() {
                let tag = format!("deploy-{number}");
                let text = match at.checked_sub(1) {
                    Some(before) => self.git(&["rev-list", &tag, &format!("^deploy-{}", numbers[before])]),
                    None => self.git(&["rev-list", &tag]),
                };
                let set = text.split_whitespace().map(str::to_string).collect();
                shipped.push((self.deployments[*number].time, set));
            }
            shipped
        };
        (0..LINES.len()).map(of_line).collect()
    }
}

fn git(folder: &Path, now: i64, arguments: &[&str]) -> String {
    let date = format!("@{now} +0000");
    let output = Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"])
        .args(["-c", "advice.detachedHead=false"])
        .args(arguments)
        .env("GIT_AUTHOR_DATE", &date)
        .env("GIT_COMMITTER_DATE", &date)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_string()
}

/// Lead time in microseconds by what was shipped and the line.
type Leads = BTreeMap<(String, String), i64>;

/// The first that ships one of the commits counts; the first deployment of a line ships nothing.
fn leads(repository: &Repository, items: &[(String, Vec<String>, i64)]) -> Leads {
    let mut leads = Leads::new();
    for (line, deployments) in repository.shipped().iter().enumerate() {
        for (name, commits, time) in items {
            let by = |sha: &String| deployments.iter().position(|(_, set)| set.contains(sha));
            if let Some(at @ 1..) = commits.iter().find_map(by) {
                let (service, environment) = LINES[line];
                let lead = (deployments[at].0 - time) * 1_000_000;
                leads.insert((name.clone(), format!("{service}/{environment}")), lead);
            }
        }
    }
    leads
}

/// The engine's, after events in this order.
fn told(events: &[Json], workers: usize, now: i64, rng: &mut fastrand::Rng) -> BTreeMap<&'static str, Leads> {
    let catalog = catalog(&format!("{EVENTS}{METRICS}")).expect("sound contracts");
    let mut rig = Rig::start(&catalog, workers, 1, &[], now).expect("an engine");
    let raws: Vec<Raw> = events
        .iter()
        .enumerate()
        .map(|(offset, event)| Raw {
            partition: 0,
            offset: offset as i64,
            received: now,
            payload: event.to_string().into_bytes(),
            key: None,
            table: None,
        })
        .collect();
    rig.expect(&raws);
    let mut rest: Vec<&Raw> = raws.iter().collect();
    while !rest.is_empty() {
        let later = rest.split_off(rng.usize(1..=rest.len().min(200)));
        rig.send(&rest);
        rest = later;
    }
    rig.settle(now);
    let published = rig.published();
    let mut all = BTreeMap::new();
    for metric in ["commits", "changes"] {
        let index = catalog.metric_index(metric).expect("a metric");
        let by = vec!["sha".to_string(), "line".to_string()];
        let answer =
            published.metric(index, &MetricQuery { by, ..MetricQuery::default() }).expect("an answer");
        let mut leads = Leads::new();
        for row in &answer.rows {
            let [Value::Text(name), Value::Text(line)] = row.key.as_slice() else { panic!("{row:?}") };
            let [Value::Int(1), Value::Duration(lead)] = row.values.as_slice() else { panic!("{row:?}") };
            leads.insert((name.to_string(), line.to_string()), *lead);
        }
        all.insert(metric, leads);
    }
    let refused = rig.told.refused.lock().expect("no panic").len();
    assert_eq!(refused, 0);
    rig.stop();
    all
}

#[test]
fn lead_times_are_those_of_git() {
    let mut squashed = 0;
    for seed in 0..3 {
        let mut repository = Repository::new(seed);
        repository.work(45);
        let commits: Vec<(String, Vec<String>, i64)> =
            repository.commits().into_iter().map(|(sha, _, time)| (sha.clone(), vec![sha], time)).collect();
        let change = |(number, change): (usize, &Change)| {
            let shas = vec![change.merge_sha.clone(), change.head_sha.clone()];
            (format!("acme/shop#{number}"), shas, change.time)
        };
        let changes: Vec<_> = repository.changes.iter().enumerate().map(change).collect();
        let wanted = BTreeMap::from([
            ("commits", leads(&repository, &commits)),
            ("changes", leads(&repository, &changes)),
        ]);
        squashed += repository.changes.iter().filter(|change| change.merge_sha != change.head_sha).count();
        assert!(wanted["commits"].len() > 100 && wanted["changes"].len() > 30, "{wanted:?}");
        let mut events = repository.events();
        let now = (repository.now + HOUR) * 1_000_000;
        for workers in [1, 2, 4] {
            let mut rng = fastrand::Rng::with_seed(seed);
            assert_eq!(told(&events, workers, now, &mut rng), wanted, "seed {seed}, {workers} workers");
            repository.rng.shuffle(&mut events);
        }
    }
    assert!(squashed > 30, "{squashed}");
}
