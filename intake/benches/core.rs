//! Measures the pure core without I/O: reading, encoding, decoding, archiving, and encoding for
//! COPY.
//!
//! `core STAGE [TIMES]` stops after a stage, so the difference between two stages is the cost
//! of the later one. `bench/instructions.sh` counts their instructions. Run `core` directly to
//! see rows per second.

#[path = "../tests/limits/mod.rs"]
mod limits;

use std::fmt::Write as _;
use std::slice::Chunks;
use std::time::Instant;

use bytes::Bytes;
use carga_common::archive::batch_object;
use carga_common::batch::{Batch, BatchEncoder, BatchLimits, EncodedBatch};
use carga_common::store::copy;
use carga_common::upload::{UploadId, UploadKey};
use carga_intake::csv::{CsvOptions, CsvReader, Next};
use carga_intake::open::{FileBytes, open};
use carga_intake::refusal::Refusal;
use futures::FutureExt;

use self::limits::LIMITS;

/// The size of the pieces, as they arrive from a socket.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Stage {
    Read,
    Encode,
    Decode,
    Archive,
    Copy,
}

impl Stage {
    fn named(name: &str) -> Option<Self> {
        match name {
            "read" => Some(Self::Read),
            "encode" => Some(Self::Encode),
            "decode" => Some(Self::Decode),
            "archive" => Some(Self::Archive),
            "copy" => Some(Self::Copy),
            _ => None,
        }
    }
}

fn main() {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let stage = arguments.next();
    let stage = stage.as_deref().map_or(Some(Stage::Copy), Stage::named);
    let times = arguments
        .next()
        .map_or(Some(100), |times| times.parse().ok());
    let (Some(stage), Some(times)) = (stage, times) else {
        eprintln!("usage: core [read|encode|decode|archive|copy] [TIMES]");
        std::process::exit(2);
    };
    let files = [flights(), quoted()];
    let start = Instant::now();
    let (mut rows, mut bytes) = (0, 0);
    for _ in 0..times {
        for file in &files {
            let output = run(file, stage);
            rows += output.rows;
            bytes += output.bytes;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{rows} rows became {bytes} bytes: {:.0} rows/s",
        rows as f64 / seconds
    );
}

/// Real rows, short cells, nothing quoted.
fn flights() -> Vec<u8> {
    include_bytes!("../../examples/flights.csv").to_vec()
}

/// Quoted text with newlines, delimiters, doubled quotes and characters beyond ASCII.
fn quoted() -> Vec<u8> {
    let mut file = "id,title,body\n".to_owned();
    for id in 0..1_000 {
        let _ = writeln!(
            file,
            "{id},\"a title, number {id}\",\"Zürich said \"\"grüezi\"\" to everybody,\nand everybody answered \\o/ in a long, long line of text\""
        );
    }
    file.into_bytes()
}

#[derive(Default)]
struct Output {
    rows: u64,
    bytes: usize,
}

fn run(file: &[u8], stage: Stage) -> Output {
    let mut pieces = Pieces(file.chunks(PIECE_BYTES));
    let mut reader = open_in_memory(&mut pieces);
    let limits = BatchLimits {
        rows: 1_000,
        bytes: 4 << 20,
    };
    let upload = UploadKey::first(UploadId::generate());
    let mut encoder = BatchEncoder::new(upload, reader.columns(), "", limits);
    let mut output = Output::default();
    loop {
        let next = reader
            .next()
            .unwrap_or_else(|refusal| panic!("{refusal:?}"));
        match next {
            Next::More => match pieces.0.next() {
                Some(piece) => reader.push(piece),
                None => reader.end(),
            },
            Next::End => break,
            Next::Rejected(rejected) => panic!("{rejected:?}"),
            Next::Row if stage == Stage::Read => {
                output.bytes += reader.cells().map(str::len).sum::<usize>();
            }
            Next::Row => {
                let full = encoder.push(reader.rows_read(), reader.cells());
                if let Some(batch) = full.unwrap_or_else(|error| panic!("{error}")) {
                    store(batch, stage, &mut output);
                }
            }
        }
    }
    let (last, _) = encoder.finish();
    if let Some(batch) = last {
        store(batch, stage, &mut output);
    }
    output.rows = reader.rows_read();
    output
}

/// A file in memory.
struct Pieces<'a>(Chunks<'a, u8>);

impl FileBytes for Pieces<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        Ok(self.0.next().map(Bytes::copy_from_slice))
    }

    fn compression(&self) -> Option<&'static str> {
        None
    }
}

/// Nothing here waits, so the future is ready at once.
fn open_in_memory(pieces: &mut Pieces<'_>) -> CsvReader {
    let opened = open(pieces, CsvOptions::default(), LIMITS).now_or_never();
    match opened {
        Some(Ok((reader, _))) => reader,
        other => panic!("the file did not open: {other:?}"),
    }
}

fn store(batch: EncodedBatch, stage: Stage, output: &mut Output) {
    output.bytes += batch.body.len();
    if stage < Stage::Decode {
        return;
    }
    let batch = Batch::decode(batch.body).unwrap_or_else(|error| panic!("{error}"));
    output.bytes += batch.row_count();
    if stage < Stage::Archive {
        return;
    }
    output.bytes += batch_object(&batch).len();
    if stage < Stage::Copy {
        return;
    }
    let mut rows = Vec::with_capacity(2 * batch.size_bytes());
    let mut next = 0;
    while next < batch.row_count() {
        next =
            copy::append_rows(&mut rows, 1, &batch, next).unwrap_or_else(|error| panic!("{error}"));
        output.bytes += rows.len();
        rows.clear();
    }
}
