//! A container without memory: the kernel kills the server again and again, and nothing acknowledged is lost or twice.
//!
//! The server runs in a memory control group of its own (version 1 or 2). With `limits.memory` far above the group's limit it
//! is killed; by default it knows the group's limit, and pauses before. What was acknowledged is compared as in
//! `crashloop.rs`. `OOMS=20` is the long run. A control group needs root; without it the tests say so and are skipped.

#![allow(clippy::unwrap_used)] // a test fails where it unwraps
#![allow(clippy::print_stdout)] // `--nocapture` shows the figures

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

mod crash;
mod support;
use crash::oracle::Rng;
use crash::{Shop, number};
use support::{Server, log, streamgauge, wait};

const MIB: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(60);
const SIGKILL: i32 = 9;

/// A memory control group; removed when dropped, after its processes have ended.
struct Group {
    folder: PathBuf,
    v2: bool,
}

impl Group {
    /// A group for at most so many bytes, without swap; else why there can be none.
    fn new(name: &str, bytes: u64) -> Result<Self, String> {
        let name = format!("streamgauge-{name}-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let v2 = Path::new("/sys/fs/cgroup");
        let group = match v1.join("memory.limit_in_bytes").exists() {
            true => Self { folder: v1.join(name), v2: false },
            false => {
                let controllers = std::fs::read_to_string(v2.join("cgroup.controllers"));
                let controllers = controllers.map_err(|error| format!("{}: {error}", v2.display()))?;
                if !controllers.split_whitespace().any(|one| one == "memory") {
                    return Err("the system has no memory controller".to_owned());
                }
                write(&v2.join("cgroup.subtree_control"), "+memory")?;
                Self { folder: v2.join(name), v2: true }
            }
        };
        std::fs::create_dir(&group.folder).map_err(|error| format!("{}: {error}", group.folder.display()))?;
        let (limit, swap) = match group.v2 {
            true => ("memory.max", "memory.swap.max"),
            false => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
        };
        write(&group.folder.join(limit), &bytes.to_string())?;
        // Where swap is not accounted there is no such file.
        let _ = write(&group.folder.join(swap), &if group.v2 { 0 } else { bytes }.to_string());
        Ok(group)
    }

    /// How often the kernel has killed a process of it.
    fn kills(&self) -> u64 {
        let file = if self.v2 { "memory.events" } else { "memory.oom_control" };
        let text = std::fs::read_to_string(self.folder.join(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.unwrap_or_else(|| panic!("{file}: {text}")).trim().parse().unwrap()
    }

    /// A server in it, from its first byte on.
    fn spawn(&self, folder: &Path, variables: &[(&str, &str)]) -> Server {
        let program = streamgauge();
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.folder.join("cgroup.procs"));
        command.arg(program.get_program());
        for (name, _) in program.get_envs() {
            command.env_remove(name);
        }
        Server::spawn_by(command, folder, variables)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let gone = wait(Duration::from_secs(10), || std::fs::remove_dir(&self.folder).is_ok());
        if gone.is_err() {
            eprintln!("{} is left behind", self.folder.display());
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn skipped(why: &str) {
    eprintln!("SKIPPED: no memory control group can be made here (root is needed): {why}");
}

fn resident(server: &Server) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", server.child.id())).unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Bytes that a server of this folder has when it is ready.
fn needs(folder: &Path) -> u64 {
    let server = Server::start(folder);
    resident(&server)
}

/// Begins a request that takes so many bytes of the server's memory until it is dropped, or the server is gone.
fn half_a_request(server: &Server, bytes: u64) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap_or_default())?;
    // Longer than what is sent: it never ends.
    let length = 1023 * MIB;
    write!(stream, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")?;
    let part = vec![b' '; MIB as usize];
    (0..bytes / MIB).try_for_each(|_| stream.write_all(&part))?;
    Ok(stream)
}

/// Feeds a server in the group until the kernel kills it: because rows wait for a lake that does not come, or because of
/// a request that is too large, at any moment.
fn until_killed(group: &Group, shop: &mut Shop, rng: &mut Rng, round: u64) {
    let before = group.kills();
    let slow = round.is_multiple_of(2);
    let variables = [
        ("STREAMGAUGE_LIMITS__MEMORY", "1000GiB"),
        ("STREAMGAUGE_LIMITS__BODY", "1GiB"),
        ("STREAMGAUGE_LAKE__MEMORY", "100GiB"),
        ("STREAMGAUGE_AUDIT__MEMORY", "100GiB"),
        ("STREAMGAUGE_FAULT", if slow { "lake.before_files=sleep:600000@3" } else { "" }),
    ];
    let mut server = group.spawn(&shop.folder, &variables);
    let ready = server.ready(LONG);
    let large = (!slow).then(|| Instant::now() + Duration::from_millis(rng.next(2_000)));
    let end = Instant::now() + Duration::from_secs(300);
    while ready && shop.send(&server, rng) {
        if large.is_some_and(|at| at < Instant::now()) {
            // It ends with the server.
            let _ = half_a_request(&server, 1022 * MIB);
        }
        assert!(Instant::now() < end, "it is not killed: {} MiB", resident(&server) / MIB);
    }
    let ended = server.child.wait().unwrap();
    assert_eq!(ended.signal(), Some(SIGKILL), "{ended}\n{}", log(&shop.folder));
    assert_eq!(group.kills(), before + 1, "by the kernel");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_kernel_kills() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::new(folder.path(), None);
    let limit = needs(folder.path()) + 32 * MIB;
    let group = match Group::new("killed", limit) {
        Ok(group) => group,
        Err(why) => return skipped(&why),
    };
    let mut rng = Rng(number("SEED", 1));
    let rounds = number("OOMS", 4);
    let mut acknowledged = 0;
    for round in 0..rounds {
        until_killed(&group, &mut shop, &mut rng, round);
        if round % 4 == 3 || round + 1 == rounds {
            acknowledged = shop.verify("").acknowledged;
        }
    }
    println!(
        "{} kills by the kernel at {} MiB, {acknowledged} events acknowledged: 0 lost, 0 twice, 0 wrong",
        group.kills(),
        limit / MIB
    );
}

/// A container's limit is known: the intake pauses before the kernel kills.
#[test]
fn by_default_the_intake_pauses_below_the_limit_of_the_group() {
    let folder = tempfile::tempdir().unwrap();
    let mut shop = Shop::new(folder.path(), None);
    // The default is 3/4 of it; so much more is below the limit, too.
    let needs = needs(folder.path());
    let limit = 4 * (needs + 64 * MIB);
    let group = match Group::new("paused", limit) {
        Ok(group) => group,
        Err(why) => return skipped(&why),
    };
    let mut rng = Rng(7);
    let mut server = group.spawn(folder.path(), &[("STREAMGAUGE_LIMITS__BODY", "1GiB")]);
    assert!(server.ready(LONG), "{}", log(folder.path()));
    assert!(shop.send(&server, &mut rng));
    let mut large = half_a_request(&server, 0).unwrap();
    let part = vec![b' '; 4 * MIB as usize];
    while !server.text("/readyz").contains("limits.memory is reached") {
        large.write_all(&part).unwrap();
        assert!(resident(&server) < limit, "{} MiB of {}", resident(&server) / MIB, limit / MIB);
    }
    assert_eq!(server.status("/readyz"), 503);
    assert!(shop.send(&server, &mut rng));
    assert_eq!(shop.answered().unwrap().status, 503);
    assert_eq!(server.status("/v1/metrics/revenue?window=all"), 200, "answers go on");
    drop(large);
    assert!(server.ready(LONG), "{}", server.text("/readyz"));
    assert!(shop.send(&server, &mut rng));
    assert_eq!(shop.answered().unwrap().status, 202);
    assert_eq!(group.kills(), 0);
    drop(server);
    shop.verify("");
}
