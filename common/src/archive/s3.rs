//! The archive on S3, or on a server with the same API.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::create_bucket::CreateBucketError;
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, Delete, ObjectIdentifier,
};
use bytes::Bytes;

use super::{ArchiveKey, BatchArchive, PUT_ATTEMPTS, attempt_timeout};
use crate::error::{ErrorKind, PortError, PortResult};
use crate::upload::UploadId;

/// The region if none is configured. A self-hosted S3 server accepts any region.
const DEFAULT_REGION: &str = "us-east-1";

/// How long a program waits for S3 when it starts. After that it starts without S3.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// [`BatchArchive`] on S3.
#[derive(Debug, Clone)]
pub struct S3Archive {
    client: Client,
    bucket: String,
    /// Whether a missing bucket is created. On AWS its owner must create it.
    creates_bucket: bool,
    region: Option<Region>,
    /// Empty, or ends in a slash.
    prefix: String,
}

impl S3Archive {
    /// Prepares the client, and checks that the bucket exists. At a custom endpoint, for example
    /// LocalStack, a missing bucket is created. If S3 is away, the check is left to later calls:
    /// receiving does not need S3, and storing waits for it.
    pub async fn connect(bucket: &str, prefix: &str, endpoint: Option<&str>) -> PortResult<Self> {
        let mut config = aws_config::defaults(BehaviorVersion::latest())
            // The SDK has no such limit by default, and its protection against stalled streams ends
            // once it has buffered a body.
            .timeout_config(timeouts(attempt_timeout(0)))
            .retry_config(RetryConfig::standard().with_max_attempts(PUT_ATTEMPTS));
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(endpoint);
        }
        let mut config = config.load().await;
        if config.region().is_none() {
            let region = Region::from_static(DEFAULT_REGION);
            config = config.into_builder().region(region).build();
        }
        // Many `.env` files have an empty variable, which the SDK would use as the endpoint.
        let is_empty = |name: &str| std::env::var(name).is_ok_and(|value| value.is_empty());
        let is_aws =
            endpoint.is_none() && (is_empty("AWS_ENDPOINT_URL_S3") || is_empty("AWS_ENDPOINT_URL"));
        let custom_endpoint = config.endpoint_url().is_some() && !is_aws;
        let mut settings = aws_sdk_s3::config::Builder::from(&config);
        if is_aws {
            settings.set_endpoint_url(None);
        }
        // Servers other than AWS rarely resolve `bucket.host`.
        let settings = settings.force_path_style(custom_endpoint).build();
        let archive = Self {
            client: Client::from_conf(settings),
            bucket: bucket.to_owned(),
            creates_bucket: custom_endpoint,
            region: config.region().cloned(),
            prefix: match prefix.trim_matches('/') {
                "" => String::new(),
                prefix => format!("{prefix}/"),
            },
        };
        archive.check_at_start().await?;
        Ok(archive)
    }

    /// Checks the bucket unless S3 is away.
    async fn check_at_start(&self) -> PortResult<()> {
        let answer = tokio::time::timeout(START_TIMEOUT, self.ping()).await;
        let error = match answer {
            Ok(Err(error)) if error.kind() == ErrorKind::Unavailable => error,
            Ok(outcome) => return outcome,
            Err(_) => {
                let seconds = START_TIMEOUT.as_secs();
                let reason = format!("S3 did not answer within {seconds} s");
                PortError::unavailable("archive.ping", reason)
            }
        };
        tracing::warn!(
            error = error.chain(),
            bucket = self.bucket,
            "starting without the archive; batches wait until S3 answers"
        );
        Ok(())
    }

    async fn put_object(
        &self,
        key: &ArchiveKey,
        body: Bytes,
    ) -> Result<(), SdkError<PutObjectError>> {
        let timeouts = timeouts(attempt_timeout(body.len()));
        // The SDK sends the checksum of a body in memory as a header. The checksum of a streaming
        // body would be a trailer, which some S3 servers refuse.
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            // Without a `Content-Encoding`, even if the object is compressed: many clients would
            // decompress such a body unasked, and save plain JSON under a key that ends in `.gz`.
            // Its size and checksum would then differ from those in the manifest.
            .content_type(key.media_type())
            .body(ByteStream::from(body))
            .customize()
            .config_override(aws_sdk_s3::config::Builder::new().timeout_config(timeouts))
            .send()
            .await
            .map(drop)
    }

    async fn create_bucket(&self) -> PortResult<()> {
        // S3 refuses `us-east-1` as a location constraint, because it is the default.
        let location = self
            .region
            .as_ref()
            .map(Region::as_ref)
            .filter(|region| *region != DEFAULT_REGION)
            .map(|region| {
                CreateBucketConfiguration::builder()
                    .location_constraint(BucketLocationConstraint::from(region))
                    .build()
            });
        let created = self
            .client
            .create_bucket()
            .bucket(&self.bucket)
            .set_create_bucket_configuration(location)
            .send()
            .await;
        match created {
            Err(error)
                if !matches!(
                    error.as_service_error(),
                    // Another replica has created the bucket.
                    Some(
                        CreateBucketError::BucketAlreadyOwnedByYou(_)
                            | CreateBucketError::BucketAlreadyExists(_)
                    )
                ) =>
            {
                Err(port_error("archive.create_bucket", error))
            }
            _ => {
                tracing::info!(bucket = self.bucket, "created the archive's bucket");
                Ok(())
            }
        }
    }

    fn full_key(&self, key: &ArchiveKey) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn delete_page(&self, prefix: &str) -> PortResult<u64> {
        const OPERATION: &str = "archive.delete";
        let page = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .send()
            .await
            .map_err(|error| port_error(OPERATION, error))?;
        let objects = page
            .contents()
            .iter()
            .filter_map(|object| object.key())
            .map(|key| ObjectIdentifier::builder().key(key).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| PortError::new(ErrorKind::Internal, OPERATION, error))?;
        let count = objects.len() as u64;
        if count > 0 {
            let delete = Delete::builder()
                .set_objects(Some(objects))
                .quiet(true)
                .build()
                .map_err(|error| PortError::new(ErrorKind::Internal, OPERATION, error))?;
            let outcome = self
                .client
                .delete_objects()
                .bucket(&self.bucket)
                .delete(delete)
                .send()
                .await
                .map_err(|error| port_error(OPERATION, error))?;
            if let Some(error) = outcome.errors().first() {
                let (key, message) = (error.key(), error.message());
                let reason = format!(
                    "could not delete `{}`: {}",
                    key.unwrap_or_default(),
                    message.unwrap_or_default()
                );
                return Err(PortError::new(ErrorKind::Internal, OPERATION, reason));
            }
        }
        Ok(count)
    }
}

#[async_trait]
impl BatchArchive for S3Archive {
    async fn put(&self, key: &ArchiveKey, body: Bytes) -> PortResult<()> {
        let mut outcome = self.put_object(key, body.clone()).await;
        // S3 was away when this program started, or LocalStack has lost its objects in a restart.
        if self.creates_bucket && outcome.as_ref().is_err_and(answers_not_found) {
            self.create_bucket().await?;
            outcome = self.put_object(key, body).await;
        }
        outcome.map_err(|error| match port_error("archive.put", error) {
            // Only the bucket can be missing, and the batch is valid. The bucket's owner can create
            // the bucket again.
            error if error.kind() == ErrorKind::NotFound => {
                PortError::unavailable("archive.put", error)
            }
            error => error,
        })
    }

    async fn get(&self, key: &ArchiveKey) -> PortResult<Bytes> {
        const OPERATION: &str = "archive.get";
        let object = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .send()
            .await
            .map_err(|error| port_error(OPERATION, error))?;
        let body = object.body.collect().await;
        Ok(body
            .map_err(|error| PortError::unavailable(OPERATION, error))?
            .into_bytes())
    }

    async fn delete(&self, key: &ArchiveKey) -> PortResult<()> {
        let deleted = self
            .client
            .delete_object()
            .bucket(&self.bucket)
            .key(self.full_key(key))
            .send()
            .await
            .map_err(|error| port_error("archive.delete", error));
        match deleted {
            // AWS does not report an absent key, but other servers do.
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete_upload(&self, upload: UploadId) -> PortResult<u64> {
        let prefix = format!("{}{}", self.prefix, ArchiveKey::prefix(upload));
        let mut deleted = 0;
        loop {
            match self.delete_page(&prefix).await? {
                0 => return Ok(deleted),
                count => deleted += count,
            }
        }
    }

    async fn ping(&self) -> PortResult<()> {
        let answer = self.client.head_bucket().bucket(&self.bucket).send().await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) if self.creates_bucket && answers_not_found(&error) => {
                self.create_bucket().await
            }
            Err(error) => Err(port_error("archive.ping", error)),
        }
    }
}

/// The time limits of a connection and of an attempt.
fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(attempt)
        .build()
}

/// Whether the server has answered with 404.
fn answers_not_found<E>(error: &SdkError<E>) -> bool {
    let answer = error.raw_response();
    answer.is_some_and(|answer| answer.status().as_u16() == 404)
}

/// Maps an S3 error. A server that is away, slow or throttling is *unavailable*. One that refuses
/// the credentials, or has no such bucket, is *misconfigured*. An absent key is *not found*. Every
/// other error is *internal*.
fn port_error<E>(operation: &'static str, error: SdkError<E>) -> PortError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let kind = match &error {
        SdkError::TimeoutError(_) | SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => {
            ErrorKind::Unavailable
        }
        SdkError::ServiceError(answer) => kind_of(
            answer.raw().status().as_u16(),
            error.code().unwrap_or_default(),
        ),
        _ => ErrorKind::Internal,
    };
    PortError::new(kind, operation, error)
}

/// The kind of an answer with this HTTP status and S3 error code.
fn kind_of(status: u16, code: &str) -> ErrorKind {
    match (status, code) {
        (404, "NoSuchBucket") => ErrorKind::Misconfigured,
        (404, _) => ErrorKind::NotFound,
        (400, "RequestTimeout") | (408 | 429 | 500..=599, _) => ErrorKind::Unavailable,
        // AWS answers an expired token and some unknown keys with 400, and a wrong region with 301
        // or 400.
        (
            400,
            "ExpiredToken"
            | "InvalidToken"
            | "InvalidAccessKeyId"
            | "TokenRefreshRequired"
            | "AuthorizationHeaderMalformed"
            | "KMS.DisabledException"
            | "KMS.NotFoundException",
        )
        | (301 | 401 | 403, _) => ErrorKind::Misconfigured,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_about_credentials_or_the_bucket_is_not_charged_to_the_object() {
        for (status, code, kind) in [
            (403, "AccessDenied", ErrorKind::Misconfigured),
            (403, "RequestTimeTooSkewed", ErrorKind::Misconfigured),
            (403, "SignatureDoesNotMatch", ErrorKind::Misconfigured),
            (401, "Unauthorized", ErrorKind::Misconfigured),
            (301, "PermanentRedirect", ErrorKind::Misconfigured),
            (400, "ExpiredToken", ErrorKind::Misconfigured),
            (400, "InvalidToken", ErrorKind::Misconfigured),
            (400, "InvalidAccessKeyId", ErrorKind::Misconfigured),
            (400, "TokenRefreshRequired", ErrorKind::Misconfigured),
            (
                400,
                "AuthorizationHeaderMalformed",
                ErrorKind::Misconfigured,
            ),
            (400, "KMS.DisabledException", ErrorKind::Misconfigured),
            (400, "KMS.NotFoundException", ErrorKind::Misconfigured),
            (404, "NoSuchBucket", ErrorKind::Misconfigured),
            (404, "NoSuchKey", ErrorKind::NotFound),
            (400, "RequestTimeout", ErrorKind::Unavailable),
            (503, "SlowDown", ErrorKind::Unavailable),
            (400, "InvalidDigest", ErrorKind::Internal),
        ] {
            assert_eq!(kind_of(status, code), kind, "{status} {code}");
        }
    }
}
