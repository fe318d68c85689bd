//! How many processors this process may use, and the limits of its control groups.

use rustix::process::Pid;
use std::num::NonZero;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

/// The number of CPUs that this process may keep busy; never 0.
///
/// The affinity mask says where it may run, the quotas of its control groups how much of that it
/// gets, or got when this process first asked. A quota of one and a half CPUs counts as two: one worker too
/// many idles half of the time, one too few leaves paid time unused.
pub(crate) fn usable_cpus() -> usize {
    let by_mask = match rustix::thread::sched_getaffinity(None) {
        Ok(set) => set.count() as usize,
        // More CPUs than the fixed-size mask has bits.
        Err(_) => std::thread::available_parallelism().map_or(1, NonZero::get),
    };
    by_mask.min(*BY_QUOTA.get_or_init(quota)).max(1)
}

/// Read once: it takes half as long as a fork.
static BY_QUOTA: OnceLock<usize> = OnceLock::new();

fn quota() -> usize {
    let quota = group_limits("cpu", |group| match group {
        Group::V2(dir) => parse_cpu_max(&read(&dir.join("cpu.max"))?),
        Group::V1(dir) => {
            parse_v1_quota(&read(&dir.join("cpu.cfs_quota_us"))?, &read(&dir.join("cpu.cfs_period_us"))?)
        }
    });
    quota.and_then(|cpus| usize::try_from(cpus).ok()).unwrap_or(usize::MAX)
}

/// Has a process that was just forked begin on another CPU, if this process may use more than one.
///
/// The kernel may have put it into the queue of the CPU on which its parent runs, where it would wait until the
/// parent sleeps. It is not kept away.
pub(crate) fn begin_elsewhere(pid: u32) {
    let Ok(all) = rustix::thread::sched_getaffinity(None) else { return };
    let mut others = all;
    others.unset(rustix::thread::sched_getcpu());
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    // It has not got so far yet that it could choose CPUs itself.
    if others.count() > 0 && rustix::thread::sched_setaffinity(Some(pid), &others).is_ok() {
        let _ = rustix::thread::sched_setaffinity(Some(pid), &all);
    }
}

/// One directory in a control group hierarchy.
pub(super) enum Group {
    V1(PathBuf),
    V2(PathBuf),
}

/// The smallest limit that `limit_of` finds in this process's groups for `controller`, from its own
/// up to the root. A limit of an outer group holds for all groups inside.
pub(super) fn group_limits(controller: &str, limit_of: impl Fn(&Group) -> Option<u64>) -> Option<u64> {
    let membership = read(Path::new("/proc/self/cgroup"))?;
    groups(&membership, controller).iter().filter_map(limit_of).min()
}

pub(super) fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The directories that may hold limits, by the text of `/proc/self/cgroup`.
///
/// Without a cgroup namespace a container reads the host's path of its group but has only that group
/// mounted, as the root. So directories that do not exist are to be expected on the way up.
fn groups(membership: &str, controller: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.is_empty() {
            // Beside v1 hierarchies, the unified one is mounted one level down.
            for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
                groups.extend(up_to_root(Path::new(mount), path).into_iter().map(Group::V2));
            }
        } else if controllers.split(',').any(|name| name == controller) {
            let mut mounts = vec![controller];
            if controllers != controller {
                mounts.push(controllers);
            }
            for mount in mounts {
                let mount = Path::new("/sys/fs/cgroup").join(mount);
                groups.extend(up_to_root(&mount, path).into_iter().map(Group::V1));
            }
        }
    }
    groups
}

fn up_to_root(mount: &Path, path: &str) -> Vec<PathBuf> {
    let mut dir = mount.to_path_buf();
    for name in Path::new(path).components() {
        match name {
            Component::Normal(name) => dir.push(name),
            // A group outside of our namespace's root is shown as "/../..": only the root is ours.
            Component::ParentDir => return vec![mount.to_path_buf()],
            _ => {}
        }
    }
    dir.ancestors().take_while(|dir| dir.starts_with(mount)).map(Path::to_path_buf).collect()
}

/// `cpu.max` is "quota period", or "max period" without a limit.
fn parse_cpu_max(text: &str) -> Option<u64> {
    let mut fields = text.split_ascii_whitespace();
    let quota = fields.next()?.parse().ok()?;
    let period = fields.next()?.parse().ok()?;
    whole_cpus(quota, period)
}

/// The quota is -1 without a limit.
fn parse_v1_quota(quota: &str, period: &str) -> Option<u64> {
    whole_cpus(quota.trim().parse().ok()?, period.trim().parse().ok()?)
}

fn whole_cpus(quota: u64, period: u64) -> Option<u64> {
    (period != 0).then(|| quota.div_ceil(period).max(1))
}

/// Lets another thread that waits for this CPU have it, if there is one.
#[inline]
pub(crate) fn yield_cpu() {
    rustix::thread::sched_yield();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_at_least_one_cpu() {
        assert!(usable_cpus() >= 1);
    }

    #[test]
    fn a_quota_is_rounded_up() {
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max("100000 100000\n"), Some(1));
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(2));
        assert_eq!(parse_cpu_max("1000 100000\n"), Some(1));
        assert_eq!(parse_cpu_max("1000 0\n"), None);
        assert_eq!(parse_cpu_max(""), None);
        assert_eq!(parse_v1_quota("-1\n", "100000\n"), None);
        assert_eq!(parse_v1_quota("250000\n", "100000\n"), Some(3));
    }

    fn shown(membership: &str, controller: &str) -> Vec<String> {
        let show = |group: &Group| match group {
            Group::V1(dir) => format!("1 {}", dir.display()),
            Group::V2(dir) => format!("2 {}", dir.display()),
        };
        groups(membership, controller).iter().map(show).collect()
    }

    #[test]
    fn every_level_is_looked_at() {
        let expected = [
            "2 /sys/fs/cgroup/a.slice/b:c.service",
            "2 /sys/fs/cgroup/a.slice",
            "2 /sys/fs/cgroup",
            "2 /sys/fs/cgroup/unified/a.slice/b:c.service",
            "2 /sys/fs/cgroup/unified/a.slice",
            "2 /sys/fs/cgroup/unified",
        ];
        assert_eq!(shown("0::/a.slice/b:c.service\n", "cpu"), expected);
        let expected = [
            "1 /sys/fs/cgroup/cpu/x",
            "1 /sys/fs/cgroup/cpu",
            "1 /sys/fs/cgroup/cpu,cpuacct/x",
            "1 /sys/fs/cgroup/cpu,cpuacct",
        ];
        assert_eq!(shown("4:cpu,cpuacct:/x\n3:cpuset:/y\n1:name=systemd:/z\n", "cpu"), expected);
    }

    #[test]
    fn a_group_outside_of_the_namespace_is_the_root() {
        assert_eq!(shown("4:memory:/../../other\n", "memory"), ["1 /sys/fs/cgroup/memory"]);
        assert_eq!(shown("nonsense\n\n4:memory", "memory"), [""; 0]);
    }
}
