//! What the container may use: CPU quota and memory limit, from control groups of version 2 or 1.
//!
//! Inside a container its own group is usually mounted as the root of the hierarchy; on a host the group's path stands in
//! `/proc/self/cgroup`. A limit may be set on any group above ours, so all of them are looked at and the lowest counts.

type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Version 1 writes "no limit" as the largest page-aligned number; no machine has this much memory.
const MEMORY_NONSENSE: u64 = 1 << 50;

/// Whole CPUs that the quota comes to, rounded up; `None` without one.
pub(super) fn cpu_quota(read: Read<'_>) -> Option<usize> {
    let v2 = groups(read, "", "/sys/fs/cgroup").into_iter().filter_map(|group| {
        let text = read(&format!("{group}/cpu.max"))?;
        let (quota, period) = text.trim().split_once(' ')?;
        cpus(quota, period)
    });
    let v1 = groups(read, "cpu", "/sys/fs/cgroup/cpu").into_iter().filter_map(|group| {
        let quota = read(&format!("{group}/cpu.cfs_quota_us"))?;
        let period = read(&format!("{group}/cpu.cfs_period_us"))?;
        cpus(&quota, &period)
    });
    v2.chain(v1).min()
}

/// The memory limit in bytes; `None` without one.
pub(super) fn memory_limit(read: Read<'_>) -> Option<u64> {
    let v2 = groups(read, "", "/sys/fs/cgroup").into_iter().map(|group| format!("{group}/memory.max"));
    let v1 = groups(read, "memory", "/sys/fs/cgroup/memory")
        .into_iter()
        .map(|group| format!("{group}/memory.limit_in_bytes"));
    v2.chain(v1)
        .filter_map(|file| read(&file)?.trim().parse().ok())
        .filter(|bytes| (1..MEMORY_NONSENSE).contains(bytes))
        .min()
}

/// `max` and -1 are no numbers above zero: no quota.
fn cpus(quota: &str, period: &str) -> Option<usize> {
    let quota: u64 = quota.trim().parse().ok().filter(|quota| *quota > 0)?;
    let period: u64 = period.trim().parse().ok().filter(|period| *period > 0)?;
    usize::try_from(quota.div_ceil(period)).ok()
}

/// Directories of our group and of all above it, the mount's root included. `controller` is empty for version 2.
fn groups(read: Read<'_>, controller: &str, mount: &str) -> Vec<String> {
    let ours = read("/proc/self/cgroup").unwrap_or_default();
    let path = ours.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let matches = if controller.is_empty() {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|one| one == controller)
        };
        fields.next().filter(|_| matches)
    });
    let mut groups = vec![mount.to_owned()];
    let mut group = mount.to_owned();
    // A path with `..` leads out of the mount (the group of another namespace): it names nothing we can read.
    for part in
        path.unwrap_or("/").split('/').filter(|part| !part.is_empty()).take_while(|part| *part != "..")
    {
        group = format!("{group}/{part}");
        groups.push(group.clone());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine<'a>(files: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
    }

    #[test]
    fn version_2_in_a_container() {
        let read = machine(&[
            ("/proc/self/cgroup", "0::/\n"),
            ("/sys/fs/cgroup/cpu.max", "150000 100000\n"),
            ("/sys/fs/cgroup/memory.max", "134217728\n"),
        ]);
        assert_eq!((cpu_quota(&read), memory_limit(&read)), (Some(2), Some(128 << 20)));
    }

    #[test]
    fn version_2_on_a_host_the_lowest_limit_above_us_counts() {
        let read = machine(&[
            ("/proc/self/cgroup", "0::/kubepods/pod1/c1\n"),
            ("/sys/fs/cgroup/kubepods/memory.max", "4294967296\n"),
            ("/sys/fs/cgroup/kubepods/pod1/memory.max", "67108864\n"),
            ("/sys/fs/cgroup/kubepods/pod1/c1/memory.max", "max\n"),
            ("/sys/fs/cgroup/kubepods/pod1/c1/cpu.max", "50000 100000\n"),
        ]);
        assert_eq!((cpu_quota(&read), memory_limit(&read)), (Some(1), Some(64 << 20)));
    }

    #[test]
    fn version_1() {
        let read = machine(&[
            ("/proc/self/cgroup", "5:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/\n"),
            ("/sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us", "300000\n"),
            ("/sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "268435456\n"),
        ]);
        assert_eq!((cpu_quota(&read), memory_limit(&read)), (Some(3), Some(256 << 20)));
    }

    #[test]
    fn no_limits_and_nonsense() {
        let read = machine(&[
            ("/proc/self/cgroup", "0::/../../x\n1:cpu\ngarbage"),
            ("/sys/fs/cgroup/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "0\n"),
            ("/sys/fs/cgroup/memory.max", "max\n"),
        ]);
        assert_eq!((cpu_quota(&read), memory_limit(&read)), (None, None));
        assert_eq!((cpu_quota(&|_| None), memory_limit(&|_| None)), (None, None));
    }
}
