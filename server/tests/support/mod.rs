//! The binary as a user runs it.
//!
//! *In*: arguments, folders. *Out*: what it prints, its exit code, a running server. *Never*: a fixed port,
//! a process left behind.
#![allow(dead_code, unreachable_pub)] // Each test file uses its part.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The binary, in an environment without settings of the machine it runs on.
pub fn streamgauge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STREAMGAUGE_")) {
        command.env_remove(name);
    }
    command
}

/// Runs to the end in `folder`.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    streamgauge().args(arguments).current_dir(folder).output().expect("the binary runs")
}

/// A folder with the starter's settings and contracts.
pub fn shop() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["init"]);
    folder
}

/// Orders of the starter's contract, a line each, of three countries in turn.
pub fn orders(ids: std::ops::Range<u32>, amount: impl Fn(u32) -> String) -> String {
    let now = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(1);
    let order = |id: u32| {
        let country = ["de", "fr", "uk"][id as usize % 3];
        json!({"event_id": format!("e{id}"), "event_type": "order.placed", "timestamp": now.to_string(),
            "order_id": id.to_string(), "country": country, "amount": amount(id)})
        .to_string()
            + "\n"
    };
    ids.map(order).collect()
}

/// Standard output, after checking the exit code.
pub fn ok(folder: &Path, arguments: &[&str]) -> String {
    exits(folder, arguments, 0).0
}

/// Standard output and standard error, after checking the exit code.
pub fn exits(folder: &Path, arguments: &[&str], code: i32) -> (String, String) {
    let output = run(folder, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n--- stdout\n{out}\n--- stderr\n{err}");
    (out, err)
}

/// A running server; killed when dropped.
pub struct Server {
    /// The process.
    pub child: Child,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
}

impl Server {
    /// `streamgauge serve` in `folder`, on a free port; returns when it is ready.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    /// The same with further variables.
    pub fn start_with(folder: &Path, variables: &[(&str, &str)]) -> Self {
        let mut server = Self::spawn(folder, variables);
        assert!(server.ready(Duration::from_secs(30)), "not ready: {}", log(folder));
        server
    }

    /// The process, as soon as it listens or has ended.
    pub fn spawn(folder: &Path, variables: &[(&str, &str)]) -> Self {
        Self::spawn_by(streamgauge(), folder, variables)
    }

    /// The same, where the program is started by `command`.
    pub fn spawn_by(mut command: Command, folder: &Path, variables: &[(&str, &str)]) -> Self {
        let mut child = command
            .arg("serve")
            .current_dir(folder)
            .env("STREAMGAUGE_SERVER__LISTEN", "127.0.0.1:0")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(
                std::fs::File::options().create(true).append(true).open(folder.join("serve.log")).unwrap(),
            )
            .spawn()
            .expect("the binary runs");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let url = line.split_whitespace().last().unwrap_or_default().to_owned();
        Self { child, url }
    }

    /// Whether it becomes ready before it ends.
    pub fn ready(&mut self, limit: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < limit && self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if self.status("/readyz") == 200 {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// The status of a GET.
    pub fn status(&self, path: &str) -> u16 {
        agent().get(format!("{}{path}", self.url)).call().map_or(0, |r| r.status().as_u16())
    }

    /// The body of a GET.
    pub fn text(&self, path: &str) -> String {
        let answer = agent().get(format!("{}{path}", self.url)).call();
        answer.map_or_else(|e| e.to_string(), |mut r| r.body_mut().read_to_string().unwrap_or_default())
    }

    /// The JSON of a GET.
    pub fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).unwrap_or(Value::Null)
    }

    /// Pushes a body; the answer.
    pub fn push(&self, body: &str) -> Value {
        let mut answer = agent().post(format!("{}/v1/events", self.url)).send(body).expect("an answer");
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|s| s.success()));
    }

    /// Waits for the end; the exit code.
    pub fn end(mut self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(30) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server does not end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the server of `folder` has logged.
pub fn log(folder: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = std::fs::File::open(folder.join("serve.log")) {
        let _ = file.read_to_string(&mut text);
    }
    text
}

/// Runs with something on standard input; standard output.
pub fn with_input(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = streamgauge()
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

/// Waits until `done` or the time is over.
pub fn wait(limit: Duration, done: impl Fn() -> bool) -> Result<(), ()> {
    let started = Instant::now();
    while started.elapsed() < limit {
        if done() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(())
}

/// What another program finds in the lake of a server: `read` (counts and sums of all tables) or `sql` (a table and a query),
/// or does there; the error is its words.
pub fn lake(folder: &Path, command: &str, more: &[&str]) -> Result<Value, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/lake.sh");
    let data = folder.join("data/lake");
    let mut run = Command::new(script);
    let run = run.arg(command).arg(data.join("catalog.db")).arg(&data).args(more).output();
    let run = run.expect("the script runs");
    match run.status.success() {
        // What only changes something says nothing.
        true => Ok(serde_json::from_slice(&run.stdout).unwrap_or_default()),
        false => Err(String::from_utf8_lossy(&run.stderr).into_owned()),
    }
}

/// A client that tells answers of every status.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent()
}
