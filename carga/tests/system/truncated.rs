//! Bodies that end early. `every_byte` cuts the bodies of `bodies` at each byte.

mod bodies;
mod every_byte;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

use crate::app::{App, KNOWN_DIALECT};
use crate::files::csv;
use crate::harness::Mode;

in_both_modes! {
    a_truncated_form_fails_its_upload_wherever_it_ends,
    a_truncated_raw_body_fails_its_upload,
}

/// A client that disconnects sees no answer, so the upload must record the failure.
async fn a_truncated_form_fails_its_upload_wherever_it_ends(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 2).await?;
    let file = csv(1500);
    let head = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\r\n";
    let form = format!("{head}{file}\r\n--B--\r\n");
    // The cuts are inside a row, at the end of the last row, and at every byte of the closing
    // boundary except its final line break.
    let begun = head.len() + 20_000;
    let boundary = head.len() + file.len();
    let cuts = [begun + 10_007, boundary - 1].into_iter();
    for cut in cuts.chain(boundary..form.len() - 2) {
        for chunked in [false, true] {
            let id = Uuid::now_v7();
            let mut stream = app.connect().await?;
            let length = match chunked {
                true => "transfer-encoding: chunked".to_owned(),
                false => format!("content-length: {}", form.len()),
            };
            let request = format!(
                "PUT /uploads/{id}?{KNOWN_DIALECT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: multipart/form-data; boundary=B\r\n{length}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await?;
            stream.write_all(&piece(&form[..begun], chunked)).await?;
            // Once the header has been accepted, the upload exists and can record the failure.
            app.wait_until_begun(id)
                .await
                .with_context(|| format!("cut at {cut}"))?;
            stream.write_all(&piece(&form[begun..cut], chunked)).await?;
            stream.shutdown().await?;
            let mut answer = String::new();
            // The answer may be lost with the connection, but it must not be a success.
            let _ = stream.read_to_string(&mut answer).await;
            ensure!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
                "cut at {cut}: {answer}"
            );
            let upload = app.expect_failed(id, "incomplete_body").await;
            upload.with_context(|| format!("cut at {cut}, chunked: {chunked}"))?;
        }
    }
    app.close().await
}

async fn a_truncated_raw_body_fails_its_upload(mode: Mode) -> Result<()> {
    let app = App::start(mode.harness().await?, 2).await?;
    let file = csv(1500);
    for chunked in [false, true] {
        let id = Uuid::now_v7();
        let mut stream = app.connect().await?;
        let length = match chunked {
            true => "transfer-encoding: chunked".to_owned(),
            false => format!("content-length: {}", file.len() + 1),
        };
        let request = format!(
            "PUT /uploads/{id}?{KNOWN_DIALECT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/csv\r\n{length}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        // The body has every row. Only the last declared byte, or the last chunk, is missing.
        stream.write_all(&piece(&file, chunked)).await?;
        app.wait_until_begun(id).await?;
        stream.shutdown().await?;
        app.expect_failed(id, "incomplete_body").await?;
    }
    app.close().await
}

fn piece(bytes: &str, chunked: bool) -> Vec<u8> {
    match chunked {
        true => format!("{:x}\r\n{bytes}\r\n", bytes.len()).into_bytes(),
        false => bytes.as_bytes().to_vec(),
    }
}
