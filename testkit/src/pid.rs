//! Process identities that survive the reuse of a pid.
//!
//! Servers are recorded in files, and another process may kill them much later. By then the pid
//! could belong to another program, so every pid is stored together with its start time.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// The identity of one process: its pid and its start time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ProcessId {
    pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    started: u64,
}

/// The resources that a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time, including that of children that have been waited for.
    pub cpu: Duration,
    /// Peak memory (`VmHWM`) since the start or the last [`ProcessId::reset_peak`].
    pub peak_rss_bytes: u64,
}

impl ProcessId {
    /// The process that has this pid now, even if it is a zombie.
    pub fn of(pid: u32) -> Option<Self> {
        let pid = i32::try_from(pid).ok()?;
        stat(pid).map(|stat| stat.id)
    }

    pub(crate) fn current() -> Result<Self> {
        Self::of(std::process::id()).context("/proc has no entry for this process")
    }

    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether the process is running. A zombie is not, because only its exit status is left. But a
    /// zombie with another live thread still holds files and ports, so it counts as alive.
    pub fn is_alive(self) -> bool {
        let has_ended = |stat: &Stat| matches!(stat.state, 'Z' | 'X') && stat.threads <= 1;
        stat(self.pid).is_some_and(|stat| stat.id == self && !has_ended(&stat))
    }

    /// The resources used so far. For a zombie only the processor time is known.
    pub fn usage(self) -> Usage {
        let ticks = stat(self.pid).map_or(0, |stat| stat.ticks);
        Usage {
            cpu: Duration::from_secs(ticks) / clock_ticks_per_second() as u32,
            peak_rss_bytes: self.memory("VmHWM:"),
        }
    }

    /// The processor time of the process and of its live descendants.
    pub fn tree_cpu(self) -> Duration {
        let tree = with_descendants(&[self]).into_iter();
        tree.map(|process| process.usage().cpu).sum()
    }

    /// Resets the peak memory to the current memory.
    pub fn reset_peak(self) -> Result<()> {
        let file = format!("/proc/{}/clear_refs", self.pid);
        fs::write(&file, "5").with_context(|| format!("cannot write {file}"))
    }

    /// A size from `/proc/<pid>/status` in bytes, or 0 if the process has ended.
    pub(crate) fn memory(self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    }

    /// Sends a signal, or does nothing if the process has ended.
    pub(crate) fn signal(self, signal: Signal) -> Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(());
        };
        // Opened before the start time is compared, so that the pid cannot be reused in between.
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::SRCH) => return Ok(()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot open process {}", self.pid));
            }
        };
        if stat(self.pid).is_none_or(|stat| stat.id != self) {
            return Ok(());
        }
        match pidfd_send_signal(descriptor, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error)
                .with_context(|| format!("cannot send {signal:?} to process {}", self.pid)),
        }
    }
}

/// Kills processes and their descendants, and returns once all have ended.
///
/// A signal to the process group would miss Postgres' backends, each of which has its own session.
pub(crate) fn kill_trees(roots: &[ProcessId]) -> Result<()> {
    // A stopped parent cannot start another child while its children are listed.
    for root in roots {
        root.signal(Signal::STOP)?;
    }
    let victims = with_descendants(roots);
    for victim in &victims {
        victim.signal(Signal::KILL)?;
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while victims.iter().any(|victim| victim.is_alive()) {
        ensure!(
            Instant::now() < deadline,
            "killed processes still run after 20 s: {victims:?}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The live processes that were started with exactly this `NAME=value` in their environment.
pub(crate) fn with_environment(entry: &str) -> Vec<ProcessId> {
    let has_entry = |stat: &Stat| {
        fs::read(format!("/proc/{}/environ", stat.id.pid)).is_ok_and(|environment| {
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == entry.as_bytes())
        })
    };
    all_processes()
        .iter()
        .filter(|stat| has_entry(stat))
        .map(|stat| stat.id)
        .collect()
}

fn with_descendants(roots: &[ProcessId]) -> Vec<ProcessId> {
    let processes = all_processes();
    let mut tree: Vec<ProcessId> = roots
        .iter()
        .copied()
        .filter(|root| root.is_alive())
        .collect();
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        tree.extend(
            processes
                .iter()
                .filter(|stat| stat.parent == parent.pid)
                .map(|stat| stat.id),
        );
        next += 1;
    }
    tree
}

struct Stat {
    id: ProcessId,
    parent: i32,
    state: char,
    threads: u32,
    /// Processor time in clock ticks, including that of children that have been waited for.
    ticks: u64,
}

fn all_processes() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| stat(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect()
}

fn stat(pid: i32) -> Option<Stat> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses. It may contain spaces and parentheses.
    let mut fields = line.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // Fields 14 to 17, 20 and 22 of proc(5).
    let mut times = fields.by_ref().skip(9).take(4);
    let ticks = times.try_fold(0, |sum, ticks| Some(sum + ticks.parse::<u64>().ok()?))?;
    let threads = fields.nth(2)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    Some(Stat {
        id: ProcessId { pid, started },
        parent,
        state,
        threads,
        ticks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_with_another_start_time_is_not_alive() {
        let this = ProcessId::current().unwrap();
        let earlier = ProcessId {
            started: this.started - 1,
            ..this
        };
        assert!(this.is_alive());
        assert!(!earlier.is_alive());
        earlier
            .signal(Signal::KILL)
            .expect("a signal to a reused pid does nothing");
    }

    #[test]
    fn the_processor_time_includes_live_and_ended_children() {
        let burn = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done";
        let script = format!("sh -c '{burn}'; sh -c '{burn}; exec sleep 600' & wait");
        let mut shell = std::process::Command::new("sh")
            .args(["-c", &script])
            .spawn()
            .unwrap();
        let root = ProcessId::of(shell.id()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let sleeps = |process: &ProcessId| {
            let name = fs::read_to_string(format!("/proc/{}/comm", process.pid));
            name.is_ok_and(|name| name.trim() == "sleep")
        };
        while !with_descendants(&[root]).iter().any(sleeps) {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        let (own, tree) = (root.usage(), root.tree_cpu());
        kill_trees(&[root]).unwrap();
        shell.wait().unwrap();
        assert!(
            own.cpu > Duration::ZERO,
            "{own:?} lacks the time of the ended child"
        );
        assert!(tree > own.cpu, "{tree:?} lacks the time of the live child");
        assert!(own.peak_rss_bytes > 0);
    }

    #[test]
    fn killing_a_tree_kills_its_grandchildren() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "setsid sleep 600 & wait"])
            .spawn()
            .unwrap();
        let root = ProcessId::of(shell.id()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let tree = loop {
            let tree = with_descendants(&[root]);
            if tree.len() > 1 {
                break tree;
            }
            assert!(Instant::now() < deadline, "the shell started no child");
        };
        kill_trees(&[root]).unwrap();
        shell.wait().unwrap();
        assert!(tree.iter().all(|process| !process.is_alive()));
    }
}
