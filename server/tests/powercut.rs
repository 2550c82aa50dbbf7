//! The power is cut again and again: what was acknowledged is on the disk, not only in the system's memory.
//!
//! `kill -9` cannot see a missing `fsync`: the system still writes what it was given. Here the data folder is a file system
//! of its own in a file (ext4, and xfs where `mkfs.xfs` is there); it is shut down without its journal being flushed, which
//! loses all that was not synced, then mounted again. The comparison is that of `crashloop.rs`.
//!
//! `make powercut CUTS=40` is the long run. Needs root, loop devices and `xfs_io` (Debian: xfsprogs); without them the
//! tests say so and are skipped.

#![allow(clippy::unwrap_used)] // a test fails where it unwraps
#![allow(clippy::print_stdout)] // `--nocapture` shows the figures

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

mod crash;
mod support;
use crash::oracle::Rng;
use crash::{Shop, number};
use support::{Server, log};

/// Skipped syncs that must be caught. Those of the log are left out by `strace`, beside the program.
const BUGS: [&str; 4] = [UNSYNCED_LOG, "unsynced_lake", "unsynced_checkpoint", "log_not_durable"];
const UNSYNCED_LOG: &str = "unsynced_log";
const SIZE: &str = "400M";

/// Runs a program as the machine has it; what it says when it fails.
fn tool(name: &str, args: &[&str]) -> Result<String, String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let run = Command::new(name).args(args).env("PATH", path).output().map_err(|e| format!("{name}: {e}"))?;
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    match run.status.success() {
        true => Ok(said),
        false => Err(format!("{name} {}: {}", args.join(" "), String::from_utf8_lossy(&run.stderr).trim())),
    }
}

/// A disk in a file, mounted; unmounted when dropped.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    fn new(kind: &str, folder: &Path) -> Result<Self, String> {
        let disk = Self { image: folder.join("disk.img"), mount: folder.join("shop/data") };
        std::fs::create_dir_all(&disk.mount).unwrap();
        let image = disk.image.to_str().unwrap();
        tool("truncate", &["-s", SIZE, image])?;
        tool(&format!("mkfs.{kind}"), &["-q", image])?;
        tool("xfs_io", &["-V"])?;
        disk.up()?;
        Ok(disk)
    }

    fn up(&self) -> Result<(), String> {
        tool("mount", &["-o", "loop", self.image.to_str().unwrap(), self.mount.to_str().unwrap()]).map(drop)
    }

    /// From here on nothing reaches the disk, and what has not been synced is lost.
    fn cut(&self) {
        tool("xfs_io", &["-x", "-c", "shutdown", self.mount.to_str().unwrap()]).unwrap();
    }

    fn down(&self) -> Result<(), String> {
        tool("umount", &[self.mount.to_str().unwrap()]).map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may never have been mounted; what is busy goes when it is free.
        let _ = tool("umount", &["-l", self.mount.to_str().unwrap()]);
    }
}

/// The file systems that this machine can make; says loudly what it cannot.
fn disks(folder: &Path) -> Vec<(&'static str, Disk)> {
    let mut disks = Vec::new();
    for kind in ["ext4", "xfs"] {
        let folder = folder.join(kind);
        std::fs::create_dir_all(&folder).unwrap();
        match Disk::new(kind, &folder) {
            Ok(disk) => disks.push((kind, disk)),
            Err(why) => eprintln!(
                "SKIPPED: no power cuts on {kind}: {why}. They need root, loop devices, mkfs.{kind} and xfs_io \
                 (apt-get install xfsprogs)"
            ),
        }
    }
    disks
}

/// From here on syncs of the log do nothing and say that all is well.
fn without_syncs(disk: &Disk, server: &Server) -> Child {
    let traced = disk.image.with_extension("strace");
    let _ = std::fs::remove_file(&traced);
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:retval=0"]);
    for file in std::fs::read_dir(disk.mount.join("log")).unwrap() {
        command.arg("-P").arg(file.unwrap().path());
    }
    command.args(["-p", &server.child.id().to_string(), "-o"]).arg(&traced).stderr(Stdio::piped());
    let mut strace = command.spawn().expect("strace is there (apt-get install strace)");
    let mut line = String::new();
    BufReader::new(strace.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("attached"), "strace: {line}");
    strace
}

/// Cuts the power of a shop that is being fed; `most` milliseconds after it was ready at the latest.
fn cut(disk: &Disk, shop: &mut Shop, rng: &mut Rng, bug: &str, most: u64) -> Duration {
    let started = Instant::now();
    let mut server = Server::spawn(&shop.folder, &[("STREAMGAUGE_BUG", bug)]);
    let ready = server.ready(Duration::from_secs(60));
    assert!(ready, "not ready after a power cut\n{}", log(&shop.folder));
    let took = started.elapsed();
    shop.adds_up(&server);
    let strace = (bug == UNSYNCED_LOG).then(|| without_syncs(disk, &server));
    let end = Instant::now() + Duration::from_millis(20 + rng.next(most));
    while Instant::now() < end {
        assert!(shop.send(&server, rng), "the server is gone\n{}", log(&shop.folder));
        std::thread::sleep(Duration::from_millis(rng.next(20)));
    }
    disk.cut();
    // What is still acknowledged counts as well; that there is no answer is right.
    for _ in 0..3 {
        let _ = shop.send(&server, rng);
    }
    drop(server);
    if let Some(mut strace) = strace {
        strace.wait().unwrap();
    }
    disk.down().unwrap();
    disk.up().unwrap();
    took
}

fn run(disk: &Disk, cuts: u64, seed: u64, bug: &str) -> (usize, Vec<Duration>) {
    let mut rng = Rng(seed);
    let mut shop = Shop::new(disk.mount.parent().unwrap(), None);
    let (mut acknowledged, mut took) = (0, Vec::new());
    for one in 0..cuts {
        took.push(cut(disk, &mut shop, &mut rng, bug, 2_500));
        if one % 10 == 9 || one + 1 == cuts {
            acknowledged = shop.verify(bug).acknowledged;
        }
    }
    took.sort_unstable();
    (acknowledged, took)
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let cuts = number("CUTS", 2);
    for (kind, disk) in disks(folder.path()) {
        let (acknowledged, took) = run(&disk, cuts, number("SEED", 1), "");
        let quantile = |q: usize| took[(took.len() - 1) * q / 100].as_millis();
        println!(
            "{kind}: {cuts} power cuts, {acknowledged} events acknowledged: 0 lost, 0 twice, 0 wrong; ready again \
             after {} ms (p50), {} ms (p99)",
            quantile(50),
            quantile(99)
        );
    }
}

/// A sync that is left out is found, or the cuts prove nothing; only with `BUGS=all` or `BUGS=name`.
#[test]
fn seeded_mistakes_are_caught() {
    let Ok(which) = std::env::var("BUGS") else {
        return eprintln!(
            "not run: `BUGS=all` switches the mistakes on, one after the other (`make mistakes`)"
        );
    };
    // A name that is not in the list is tried, too.
    let wanted: Vec<&str> = if which == "all" { BUGS.into() } else { vec![&which] };
    let mut missed = Vec::new();
    for bug in wanted {
        for kind in ["ext4", "xfs"] {
            let folder = tempfile::tempdir().unwrap();
            let Some((_, disk)) = disks(folder.path()).into_iter().find(|(made, _)| *made == kind) else {
                continue;
            };
            let caught = std::panic::catch_unwind(|| run(&disk, 10, 1, bug));
            match caught {
                Ok(_) => missed.push(format!("{bug} on {kind}")),
                Err(caught) => {
                    let text = caught.downcast_ref::<String>().map(String::as_str);
                    let text = text.or(caught.downcast_ref::<&str>().copied()).unwrap_or_default();
                    println!("{bug} on {kind}: {}", text.lines().take(2).collect::<Vec<_>>().join(" "));
                }
            }
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
