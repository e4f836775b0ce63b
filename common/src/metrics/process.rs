//! The memory and the files of this process, from `/proc`. Only Linux has it, so other systems do
//! not have these series.

use std::fs;

use super::table::{PROCESS_FILES, PROCESS_MEMORY};

/// Sets the gauges of the process.
pub(super) fn sample() {
    if let Some(bytes) = resident_bytes() {
        PROCESS_MEMORY.gauge().set(bytes as f64);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // Reading the directory opens one more file.
        PROCESS_FILES
            .gauge()
            .set(files.count().saturating_sub(1) as f64);
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::local::LocalRecorder;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_memory_and_the_files_of_a_process_are_sampled() {
        let recorder = LocalRecorder::new().unwrap();
        recorder.run(sample);
        let memory = recorder.value("carga_process_resident_memory_bytes");
        assert!(memory.unwrap() > 1_000_000.0);
        let files = recorder.value("carga_process_open_file_descriptors");
        assert!(files.unwrap() >= 3.0);
    }
}
