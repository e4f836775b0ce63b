//! A file to read, or standard input.

use std::io::{self, stdin};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use futures::Stream;
use tokio::fs::File;
use tokio_util::io::ReaderStream;

/// Bytes per read.
const PIECE_BYTES: usize = 256 << 10;

/// An open file, or standard input.
pub(crate) struct Input {
    pub(crate) name: String,
    /// None for a pipe, which has no size.
    pub(crate) bytes: Option<u64>,
    file: File,
}

impl Input {
    pub(crate) async fn open(path: &Path) -> anyhow::Result<Self> {
        let (name, mut file) = if is_stdin(path) {
            // A duplicate of the descriptor, so that it can be read like any other file.
            let stdin = stdin().as_fd().try_clone_to_owned()?;
            let file = File::from_std(stdin.into());
            ("standard input".to_owned(), file)
        } else {
            let file = File::open(path).await;
            let file = file.with_context(|| format!("cannot open {}", path.display()))?;
            let name = path.file_name().unwrap_or(path.as_os_str());
            (name.to_string_lossy().into_owned(), file)
        };
        let metadata = file.metadata().await?;
        file.set_max_buf_size(PIECE_BYTES);
        Ok(Self {
            name,
            bytes: metadata.is_file().then_some(metadata.len()),
            file,
        })
    }

    pub(crate) fn pieces(self) -> impl Stream<Item = io::Result<Bytes>> + Unpin + Send + 'static {
        ReaderStream::with_capacity(self.file, PIECE_BYTES)
    }
}

pub(crate) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}
