//! Every metric of Carga. `docs/metrics.md` has the same table.
//!
//! Names follow Prometheus's conventions: base units (seconds, bytes), and `_total` at the end of a
//! counter. The word after `carga_` is the part of Carga that counts. The help text of a metric is
//! its documentation.

use super::metric::{Metric, counter, gauge, histogram};

/// Seconds of a request, of a confirm, of a commit or of an object.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Seconds of one call of a port. There are many operations, so there are fewer bounds. A merge is
/// one call, and may take minutes.
const CALL_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0,
];

/// Seconds of a whole upload.
const UPLOAD_SECONDS: &[f64] = &[
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0,
];

/// Batches in one transaction. `CARGA_GROUP_BATCHES` is at most 256.
const GROUP_BATCHES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// All metrics, in the order of `docs/metrics.md`.
pub const ALL: [&Metric; 51] = [
    &HTTP_REQUESTS,
    &HTTP_REQUEST_DURATION,
    &HTTP_REQUESTS_IN_FLIGHT,
    &HTTP_ACCEPT_ERRORS,
    &TLS_HANDSHAKE_ERRORS,
    &AUTHENTICATIONS,
    &KEY_LOOKUPS,
    &LIMIT_REFUSALS,
    &INTAKE_BYTES_RECEIVED,
    &INTAKE_ROWS_READ,
    &INTAKE_ROWS_REJECTED,
    &INTAKE_BATCHES_PUBLISHED,
    &INTAKE_CONFIRM_DURATION,
    &INTAKE_UPLOADS_RECEIVING,
    &INTAKE_UPLOADS_WAITING,
    &INTAKE_PUBLISH_BUDGET_USED,
    &INTAKE_PUBLISH_BUDGET,
    &UPLOADS_ENDED,
    &UPLOAD_DURATION,
    &UPLOAD_ROWS,
    &UPLOAD_ROWS_REJECTED,
    &WORKER_BATCHES,
    &WORKER_ROWS,
    &WORKER_ARCHIVED_BYTES,
    &WORKER_ARCHIVE_DURATION,
    &WORKER_COMMIT_DURATION,
    &WORKER_COMMIT_BATCHES,
    &WORKER_BATCHES_IN_HAND,
    &WORKER_BYTES_IN_HAND,
    &WORKER_PREFETCH_BATCHES,
    &WORKER_PREFETCH_BYTES,
    &WORKER_COMPLETION_CHECKS,
    &SWEEPER_SWEEPS,
    &SWEEPER_LAST_SUCCESS,
    &MAINTENANCE_UPLOADS,
    &WORKER_EVENTS_SENT,
    &PORT_CALLS,
    &PORT_CALL_DURATION,
    &QUEUE_MESSAGES,
    &UPLOADS_UNFINISHED,
    &OLDEST_PROCESSING,
    &DEAD_LETTERS,
    &EVENTS_UNSENT,
    &DATABASE_CONNECTIONS,
    &DATABASE_CONNECTIONS_MAX,
    &DEPENDENCY_DEGRADED,
    &STATE_READS,
    &PROCESS_START,
    &PROCESS_MEMORY,
    &PROCESS_FILES,
    &BUILD_INFO,
];

pub const HTTP_REQUESTS: Metric = counter(
    "carga_http_requests_total",
    &["method", "route", "status"],
    "Requests that were answered, or whose client disconnected first.",
);

pub const HTTP_REQUEST_DURATION: Metric = histogram(
    "carga_http_request_duration_seconds",
    SECONDS,
    &["method", "route"],
    "Time from the head of a request to the head of its answer.",
);

pub const HTTP_REQUESTS_IN_FLIGHT: Metric = gauge(
    "carga_http_requests_in_flight",
    &[],
    "Requests whose answer has not begun.",
);

pub const HTTP_ACCEPT_ERRORS: Metric = counter(
    "carga_http_accept_errors_total",
    &[],
    "Connections that could not be accepted, mostly because too many files are open.",
);

pub const TLS_HANDSHAKE_ERRORS: Metric = counter(
    "carga_tls_handshake_errors_total",
    &[],
    "Connections whose TLS handshake failed or took too long.",
);

pub const AUTHENTICATIONS: Metric = counter(
    "carga_authentications_total",
    &["outcome"],
    "Requests that were checked for a key and its scopes, by the outcome.",
);

pub const KEY_LOOKUPS: Metric = counter(
    "carga_key_lookups_total",
    &["source"],
    "Lookups of a key by its id, by the source of the answer.",
);

pub const LIMIT_REFUSALS: Metric = counter(
    "carga_limit_refusals_total",
    &["limit"],
    "Requests that were refused, and uploads that have failed, because of a limit or a quota.",
);

pub const INTAKE_BYTES_RECEIVED: Metric = counter(
    "carga_intake_bytes_received_total",
    &[],
    "Bytes of the files of uploads, as they were sent.",
);

pub const INTAKE_ROWS_READ: Metric = counter(
    "carga_intake_rows_read_total",
    &[],
    "Records that were read from the files of uploads, with those that were rejected.",
);

pub const INTAKE_ROWS_REJECTED: Metric = counter(
    "carga_intake_rows_rejected_total",
    &["code"],
    "Rows that were rejected while a file was read, by the code of the reason.",
);

pub const INTAKE_BATCHES_PUBLISHED: Metric = counter(
    "carga_intake_batches_published_total",
    &[],
    "Batches that the queue has confirmed.",
);

pub const INTAKE_CONFIRM_DURATION: Metric = histogram(
    "carga_intake_confirm_duration_seconds",
    SECONDS,
    &[],
    "Time from the first publish of a batch to its confirm, with all retries.",
);

pub const INTAKE_UPLOADS_RECEIVING: Metric = gauge(
    "carga_intake_uploads_receiving",
    &[],
    "Uploads that this process is receiving.",
);

pub const INTAKE_UPLOADS_WAITING: Metric = gauge(
    "carga_intake_uploads_waiting",
    &[],
    "Requests that wait for one of the CARGA_MAX_UPLOADS slots.",
);

pub const INTAKE_PUBLISH_BUDGET_USED: Metric = gauge(
    "carga_intake_publish_budget_used_bytes",
    &[],
    "Bytes of the batches that are not confirmed yet.",
);

pub const INTAKE_PUBLISH_BUDGET: Metric = gauge(
    "carga_intake_publish_budget_bytes",
    &[],
    "The most bytes of batches that are not confirmed yet (CARGA_PUBLISH_BUDGET_BYTES).",
);

pub const UPLOADS_ENDED: Metric = counter(
    "carga_uploads_ended_total",
    &["status"],
    "Uploads that this process has ended, by their status. An undo counts once more.",
);

pub const UPLOAD_DURATION: Metric = histogram(
    "carga_upload_duration_seconds",
    UPLOAD_SECONDS,
    &["status"],
    "Time from the creation of an upload to its end.",
);

pub const UPLOAD_ROWS: Metric = counter(
    "carga_upload_rows_total",
    &["outcome"],
    "Rows of the uploads that ended as completed or partial, by their outcome.",
);

pub const UPLOAD_ROWS_REJECTED: Metric = counter(
    "carga_upload_rows_rejected_total",
    &["code"],
    "Rejected rows of the uploads that ended as partial, by the code of the reason.",
);

pub const WORKER_BATCHES: Metric = counter(
    "carga_worker_batches_total",
    &["outcome"],
    "Deliveries of batches, by what the worker did with them.",
);

pub const WORKER_ROWS: Metric = counter(
    "carga_worker_rows_total",
    &["outcome"],
    "Rows of stored batches: stored in a table or staged for a merge, or rejected by the table.",
);

pub const WORKER_ARCHIVED_BYTES: Metric = counter(
    "carga_worker_archived_bytes_total",
    &[],
    "Bytes of the objects of batches, as they are stored in the archive.",
);

pub const WORKER_ARCHIVE_DURATION: Metric = histogram(
    "carga_worker_archive_duration_seconds",
    SECONDS,
    &[],
    "Time to write the object of a batch, with all retries.",
);

pub const WORKER_COMMIT_DURATION: Metric = histogram(
    "carga_worker_commit_duration_seconds",
    SECONDS,
    &[],
    "Time to store a group of batches in one transaction, with all retries.",
);

pub const WORKER_COMMIT_BATCHES: Metric = histogram(
    "carga_worker_commit_batches",
    GROUP_BATCHES,
    &[],
    "Batches of a group that is stored in one transaction.",
);

pub const WORKER_BATCHES_IN_HAND: Metric = gauge(
    "carga_worker_batches_in_hand",
    &[],
    "Batches that the worker is preparing or storing.",
);

pub const WORKER_BYTES_IN_HAND: Metric = gauge(
    "carga_worker_in_hand_bytes",
    &[],
    "Bytes of the messages of the batches in hand.",
);

pub const WORKER_PREFETCH_BATCHES: Metric = gauge(
    "carga_worker_prefetch_batches",
    &[],
    "The most batches in hand (CARGA_PREFETCH).",
);

pub const WORKER_PREFETCH_BYTES: Metric = gauge(
    "carga_worker_prefetch_bytes",
    &[],
    "The most bytes in hand (CARGA_PREFETCH_BYTES).",
);

pub const WORKER_COMPLETION_CHECKS: Metric = counter(
    "carga_worker_completion_checks_total",
    &["outcome"],
    "Checks whether an upload is complete, after its batches were stored.",
);

pub const SWEEPER_SWEEPS: Metric = counter(
    "carga_sweeper_sweeps_total",
    &["outcome"],
    "Sweeps that could read the store, and sweeps that could not.",
);

pub const SWEEPER_LAST_SUCCESS: Metric = gauge(
    "carga_sweeper_last_success_timestamp_seconds",
    &[],
    "When a sweep last succeeded, in seconds since 1970.",
);

pub const MAINTENANCE_UPLOADS: Metric = counter(
    "carga_maintenance_uploads_total",
    &["action"],
    "Uploads that the sweeper or the retention has worked on, by its action.",
);

pub const WORKER_EVENTS_SENT: Metric = counter(
    "carga_worker_events_sent_total",
    &[],
    "Events of uploads that the broker has confirmed.",
);

pub const PORT_CALLS: Metric = counter(
    "carga_port_calls_total",
    &["port", "operation", "outcome"],
    "Calls of the store, the queue, the archive, the live counters and the shared rate limiter, by their outcome.",
);

pub const PORT_CALL_DURATION: Metric = histogram(
    "carga_port_call_duration_seconds",
    CALL_SECONDS,
    &["port", "operation"],
    "Time of a call of the store, the queue, the archive, the live counters or the shared rate limiter.",
);

pub const QUEUE_MESSAGES: Metric = gauge(
    "carga_queue_messages",
    &["state"],
    "Messages that wait in the queue; NaN while the queue does not answer.",
);

pub const UPLOADS_UNFINISHED: Metric = gauge(
    "carga_uploads_unfinished",
    &["status"],
    "Uploads in the store that have not ended; NaN while the store does not answer.",
);

pub const OLDEST_PROCESSING: Metric = gauge(
    "carga_oldest_processing_age_seconds",
    &[],
    "Time since the file of the oldest upload in status processing was received completely.",
);

pub const DEAD_LETTERS: Metric = gauge(
    "carga_dead_letters",
    &[],
    "Dead letters in the store, counted up to 10000; NaN while the store does not answer.",
);

pub const EVENTS_UNSENT: Metric = gauge(
    "carga_events_unsent",
    &[],
    "Events in the store that wait for the broker, counted up to 10000; NaN while the store does not answer, and 0 without a broker.",
);

pub const DATABASE_CONNECTIONS: Metric = gauge(
    "carga_database_connections",
    &["state"],
    "Connections of this process to the database.",
);

pub const DATABASE_CONNECTIONS_MAX: Metric = gauge(
    "carga_database_connections_max",
    &[],
    "The most connections of this process to the database.",
);

pub const DEPENDENCY_DEGRADED: Metric = gauge(
    "carga_dependency_degraded",
    &["dependency"],
    "1 if the dependency did not answer within 2 s, otherwise 0.",
);

pub const STATE_READS: Metric = counter(
    "carga_state_reads_total",
    &[],
    "How often the state of the servers was read for a scrape: at most once in 5 s.",
);

pub const PROCESS_START: Metric = gauge(
    "carga_process_start_time_seconds",
    &[],
    "When the process started, in seconds since 1970.",
);

pub const PROCESS_MEMORY: Metric = gauge(
    "carga_process_resident_memory_bytes",
    &[],
    "Resident memory of the process (Linux only).",
);

pub const PROCESS_FILES: Metric = gauge(
    "carga_process_open_file_descriptors",
    &[],
    "Open files and connections of the process (Linux only).",
);

pub const BUILD_INFO: Metric = gauge(
    "carga_build_info",
    &["version", "mode"],
    "1, with the version of Carga and the way in which it runs.",
);
