//! Runs one command, and measures its time, processor time and memory.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use carga_testkit::{ProcessId, Usage};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::Run;
use crate::rig::mib;

/// A running command that is being measured.
pub(super) struct RunningCommand {
    name: &'static str,
    child: Child,
    id: ProcessId,
    start: Instant,
}

impl RunningCommand {
    pub(super) fn start(name: &'static str, mut command: Command) -> Result<Self> {
        let start = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let id = ProcessId::of(child.id()).with_context(|| format!("{name} ended immediately"))?;
        Ok(Self {
            name,
            child,
            id,
            start,
        })
    }

    /// Waits until the command ends.
    ///
    /// Its memory is sampled every 20 ms. Its processor time is read before the process is reaped,
    /// because reaping removes the process from `/proc`.
    pub(super) fn finish(mut self) -> Result<Run> {
        let pid = Pid::from_child(&self.child);
        let ended = AtomicBool::new(false);
        let (seconds, peak) = std::thread::scope(|scope| {
            let sampler = scope.spawn(|| {
                let mut peak = 0;
                while !ended.load(Ordering::Relaxed) {
                    peak = peak.max(self.id.usage().peak_rss_bytes);
                    std::thread::sleep(Duration::from_millis(20));
                }
                peak
            });
            let waited = waitid(
                WaitId::Pid(pid),
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            );
            let seconds = self.start.elapsed().as_secs_f64();
            ended.store(true, Ordering::Relaxed);
            let peak = sampler.join().unwrap_or_default();
            waited.map(|_| (seconds, peak))
        })?;
        let Usage { cpu, .. } = self.id.usage();
        let status = self.child.wait()?;
        ensure!(status.success(), "{} failed ({status})", self.name);
        let named = |value: f64| [(self.name.to_owned(), value)].into();
        Ok(Run {
            seconds,
            accepted_seconds: None,
            cpu_seconds: named(cpu.as_secs_f64()),
            peak_mib: named(mib(peak)),
        })
    }
}
