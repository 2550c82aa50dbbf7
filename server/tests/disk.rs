//! A disk that is full, and one whose syncs fail: pushes are refused, answers go on, and all goes on by itself.
//!
//! The data folder is on a tmpfs that a file fills up; syncs are made to fail by `strace`, which takes their place. Both
//! need root, or a machine that lets them; without it the tests say so and are skipped.

#![allow(clippy::unwrap_used)] // a test fails where it unwraps

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

mod crash;
mod support;
use crash::Shop;
use crash::oracle::Rng;
use support::{Server, agent, log, wait};

const CALM: Duration = Duration::from_secs(60);

/// A small disk in memory; unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn new(folder: &Path) -> Result<Self, String> {
        let mount = folder.join("data");
        std::fs::create_dir_all(&mount).unwrap();
        let mut command = Command::new("mount");
        let run = command.args(["-t", "tmpfs", "-o", "size=96m", "tmpfs"]).arg(&mount).output();
        match run {
            Ok(run) if run.status.success() => Ok(Self(mount)),
            Ok(run) => Err(String::from_utf8_lossy(&run.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&vec![0; size]).is_err() {
                size /= 2;
            }
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Pushes until one is refused, and looks at what is said meanwhile.
fn refused(shop: &mut Shop, server: &Server, rng: &mut Rng, why: &str) {
    let mut status = 202;
    for _ in 0..3_000 {
        assert!(shop.send(server, rng), "the server is gone\n{}", log(&shop.folder));
        status = shop.answered().unwrap().status;
        if status != 202 {
            break;
        }
    }
    assert_eq!(status, 503, "{}", log(&shop.folder));
    let after = shop.answered().unwrap().retry_after.as_deref();
    assert!(after.is_some_and(|seconds| seconds.parse::<u64>().is_ok()), "{after:?}");
    let told = server.text("/readyz?verbose");
    assert!(told.contains("pushes are refused with 503") && told.contains(why), "{told}");
    let answer = agent().get(format!("{}/v1/metrics/revenue?window=all", server.url)).call().unwrap();
    assert_eq!(answer.status(), 200, "answers go on");
    let health = server.get("/v1/health");
    assert_eq!(health["status"], "degraded", "{health}");
}

/// From now on pushes are taken again.
fn resumes(shop: &mut Shop, server: &Server, rng: &mut Rng) {
    let shop = std::cell::RefCell::new((shop, rng));
    let taken = wait(CALM, || {
        let (shop, rng) = &mut *shop.borrow_mut();
        shop.send(server, rng) && shop.answered().unwrap().status == 202
    });
    let folder = shop.into_inner().0.folder.clone();
    assert!(taken.is_ok(), "pushes are not taken again\n{}", log(&folder));
    let told = wait(CALM, || !server.text("/readyz").contains("pushes are refused"));
    assert!(told.is_ok(), "{}", server.text("/readyz"));
}

#[test]
fn a_full_disk_refuses_pushes_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let disk = match Small::new(folder.path()) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("SKIPPED: no small disk can be mounted (root is needed): {why}"),
    };
    let (mut shop, mut rng) = (Shop::new(folder.path(), None), Rng(1));
    let server = Server::start(folder.path());
    for _ in 0..20 {
        assert!(shop.send(&server, &mut rng));
    }
    disk.fill();
    refused(&mut shop, &server, &mut rng, "No space left");
    disk.free();
    resumes(&mut shop, &server, &mut rng);
    // Killed while it is full, too.
    disk.fill();
    refused(&mut shop, &server, &mut rng, "No space left");
    drop(server);
    disk.free();
    shop.verify("");
    drop(disk);
}

#[test]
fn a_sync_that_fails_acknowledges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut shop, mut rng) = (Shop::new(folder.path(), None), Rng(2));
    let server = Server::start(folder.path());
    for _ in 0..20 {
        assert!(shop.send(&server, &mut rng));
    }
    let traced = folder.path().join("strace.out");
    let strace = Command::new("strace")
        .args(["-f", "-q", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO", "-o"])
        .arg(&traced)
        .args(["-p", &server.child.id().to_string()])
        .stderr(Stdio::piped())
        .spawn();
    let mut strace = match strace {
        Ok(strace) => strace,
        Err(why) => return eprintln!("SKIPPED: strace is missing (apt-get install strace): {why}"),
    };
    // It may not be allowed to, which it says by ending.
    let mut attached = false;
    for _ in 0..200 {
        attached |= std::fs::metadata(&traced).is_ok_and(|file| file.len() > 0);
        if attached || strace.try_wait().unwrap().is_some() {
            break;
        }
        assert!(shop.send(&server, &mut rng));
        std::thread::sleep(Duration::from_millis(50));
    }
    if !attached {
        let _ = strace.kill();
        let _ = strace.wait();
        return eprintln!("SKIPPED: strace may not look into other processes here");
    }
    refused(&mut shop, &server, &mut rng, "Input/output error");
    std::thread::sleep(Duration::from_secs(2));
    let ended = Command::new("kill").args(["-INT", &strace.id().to_string()]).status();
    assert!(ended.is_ok_and(|status| status.success()));
    strace.wait().unwrap();
    resumes(&mut shop, &server, &mut rng);
    drop(server);
    shop.verify("");
}
