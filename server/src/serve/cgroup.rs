//! How much memory the process's control group allows it (Linux): a container's limit.
//!
//! *In*: `/proc/self/cgroup`, `/proc/self/mountinfo`, the limits of the group and of those above it. *Out*: the least of
//! them. *Never*: a limit where none is told; a write.

use std::path::{Path, PathBuf};

/// What limits a group: of version 2 (beyond `high` it is slowed down, beyond `max` killed), of version 1.
const V2: [&str; 2] = ["memory.max", "memory.high"];
const V1: [&str; 1] = ["memory.limit_in_bytes"];

/// Bytes that the control group of this process may hold; `None` where nothing is told.
pub fn limit() -> Option<u64> {
    limit_below(Path::new("/"))
}

/// The same, of a system whose files are below `root`.
fn limit_below(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let (groups, mounts) = (read("proc/self/cgroup")?, read("proc/self/mountinfo")?);
    let limits = groups.lines().filter_map(group).flat_map(|(v2, group)| {
        let mounts = mounts.lines().filter_map(move |line| mount(line, v2));
        mounts.flat_map(move |(top, at)| {
            // Without a namespace of its own a container is told its path on the host, which is the mount's root.
            let inside = Path::new(group).strip_prefix(top).unwrap_or(Path::new("")).to_path_buf();
            let files: &[&str] = if v2 { &V2 } else { &V1 };
            files.iter().filter_map(move |file| least(root, Path::new(at), &inside, file))
        })
    });
    limits.min()
}

/// The version (2?) and path of a group that may limit memory: `4:memory:/a/b`, `0::/a/b`.
fn group(line: &str) -> Option<(bool, &str)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let memory = controllers.split(',').any(|controller| controller == "memory");
    (controllers.is_empty() || memory).then_some((controllers.is_empty(), path))
}

/// Root and place of a mount of this version of control groups, for version 1 of the memory controller.
fn mount(line: &str, v2: bool) -> Option<(&str, &str)> {
    let (place, system) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (top, at) = (place.next()?, place.next()?);
    let mut system = system.split(' ');
    let (kind, options) = (system.next()?, system.nth(1)?);
    let fits = match v2 {
        true => kind == "cgroup2",
        false => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
    };
    fits.then_some((top, at))
}

/// The least number in `file` of a group and all above it. No limit is a word, or more than any machine has.
fn least(root: &Path, mount: &Path, inside: &Path, file: &str) -> Option<u64> {
    let mount: PathBuf = root.join(mount.strip_prefix("/").unwrap_or(mount));
    let number =
        |group: &Path| std::fs::read_to_string(mount.join(group).join(file)).ok()?.trim().parse().ok();
    inside.ancestors().filter_map(number).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system of these files; what its limit is.
    fn limit_of(files: &[(&str, &str)]) -> Option<u64> {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        limit_below(folder.path())
    }

    #[test]
    fn a_container_of_version_2_has_a_namespace_of_its_own() {
        let mount = "29 23 0:26 / /sys/fs/cgroup ro,nosuid shared:4 - cgroup2 cgroup rw,nsdelegate\n";
        let of = |max: &str, high: &str| {
            limit_of(&[
                ("proc/self/cgroup", "0::/\n"),
                ("proc/self/mountinfo", mount),
                ("sys/fs/cgroup/memory.max", max),
                ("sys/fs/cgroup/memory.high", high),
            ])
        };
        assert_eq!(of("536870912\n", "max\n"), Some(512 << 20));
        assert_eq!(of("536870912\n", "268435456\n"), Some(256 << 20));
        assert_eq!(of("max\n", "max\n"), None);
    }

    #[test]
    fn a_group_above_may_allow_less() {
        let files = |above: &'static str| {
            limit_of(&[
                ("proc/self/cgroup", "0::/system.slice/streamgauge.service\n"),
                ("proc/self/mountinfo", "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
                ("sys/fs/cgroup/system.slice/memory.max", above),
                ("sys/fs/cgroup/system.slice/streamgauge.service/memory.max", "1000000\n"),
            ])
        };
        assert_eq!(files("max\n"), Some(1_000_000));
        assert_eq!(files("700000\n"), Some(700_000));
    }

    #[test]
    fn a_container_of_version_1_is_told_its_path_on_the_host() {
        let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
                      36 31 0:33 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";
        let of = |groups: &str| {
            limit_of(&[
                ("proc/self/cgroup", groups),
                ("proc/self/mountinfo", mounts),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "300000000\n"),
                ("sys/fs/cgroup/cpu/memory.limit_in_bytes", "1\n"),
            ])
        };
        assert_eq!(of("5:memory:/docker/abc\n3:cpu:/docker/abc\n0::/\n"), Some(300_000_000));
        assert_eq!(of("5:cpu,memory:/elsewhere\n"), Some(300_000_000));
        assert_eq!(of("3:cpu:/docker/abc\n"), None);
        assert_eq!(of("not what it should be"), None);
    }

    #[test]
    fn without_control_groups_there_is_no_limit() {
        assert_eq!(limit_of(&[]), None);
    }
}
