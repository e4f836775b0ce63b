//! The properties of a message.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

use super::topology::broker_reason;
use crate::batch::BatchId;
use crate::upload::Epoch;

const EPOCH_HEADER: &str = "carga-epoch";
const ATTEMPT_HEADER: &str = "carga-attempt";
const POSTPONED_HEADER: &str = "carga-postponed";
pub(super) const INSTALLATION_HEADER: &str = "carga-installation";
const RETURNED_HEADER: &str = "carga-returned";
const REASON_HEADER: &str = "carga-reason";

/// The delivery mode of a message that survives a restart of the broker.
pub(super) const PERSISTENT: u8 = 2;

/// The properties of a message as Carga reads and writes them.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    pub(super) id: Option<BatchId>,
    pub(super) attempt: u32,
    pub(super) postponed: u32,
    /// The installation that published the message. Copies keep it. `None` in a message of an older
    /// build.
    pub(super) installation: Option<String>,
    /// Whether the message is the copy of one that was delivered and returned. The broker marks
    /// only the original.
    pub(super) is_returned: bool,
    pub(super) reason: Option<String>,
}

impl Envelope {
    /// The envelope of a batch that is published for the first time.
    pub(super) fn first(id: BatchId, installation: String) -> Self {
        Self {
            id: Some(id),
            attempt: 1,
            postponed: 0,
            installation: Some(installation),
            is_returned: false,
            reason: None,
        }
    }

    pub(super) fn of(properties: &BasicProperties) -> Self {
        let header = |name| header(properties, name);
        let number = |name| number(properties, name);
        let count = |name| number(name).and_then(|count| u32::try_from(count).ok());
        let text = |name| match header(name)? {
            AMQPValue::LongString(value) => Some(value.to_string()),
            _ => None,
        };
        let epoch = number(EPOCH_HEADER)
            .and_then(|epoch| i32::try_from(epoch).ok())
            .map(Epoch::from);
        let message_id = properties.message_id().as_ref();
        Self {
            id: message_id.and_then(|id| BatchId::from_message_id(id.as_str(), epoch?)),
            attempt: count(ATTEMPT_HEADER).unwrap_or(1),
            postponed: count(POSTPONED_HEADER).unwrap_or(0),
            installation: text(INSTALLATION_HEADER),
            is_returned: header(RETURNED_HEADER).is_some(),
            reason: text(REASON_HEADER).or_else(|| reason_of_broker(properties)),
        }
    }

    pub(super) fn properties(&self) -> BasicProperties {
        let mut headers = FieldTable::default();
        let mut insert = |name: &str, value: AMQPValue| {
            headers.insert(name.into(), value);
        };
        insert(ATTEMPT_HEADER, AMQPValue::LongUInt(self.attempt));
        if self.postponed > 0 {
            insert(POSTPONED_HEADER, AMQPValue::LongUInt(self.postponed));
        }
        if let Some(installation) = &self.installation {
            let installation = AMQPValue::LongString(installation.as_str().into());
            insert(INSTALLATION_HEADER, installation);
        }
        if self.is_returned {
            insert(RETURNED_HEADER, AMQPValue::Boolean(true));
        }
        if let Some(reason) = &self.reason {
            insert(REASON_HEADER, AMQPValue::LongString(reason.as_str().into()));
        }
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_app_id("carga".into());
        if let Some(id) = self.id {
            insert(EPOCH_HEADER, AMQPValue::LongInt(id.upload.epoch.get()));
            properties = properties.with_message_id(id.to_string().into());
        }
        properties.with_headers(headers)
    }
}

/// How often the broker has delivered a message before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    /// Deliveries whose holders ended. RabbitMQ before 4.3 also counts the messages that a holder
    /// has returned.
    pub(super) unsettled: u32,
    /// The number of earlier deliveries. RabbitMQ before 4.0 does not count them separately.
    pub(super) all: u32,
}

impl Counts {
    pub(super) fn of(properties: &BasicProperties) -> Self {
        let count = |name| {
            let count = number(properties, name).unwrap_or(0);
            u32::try_from(count).unwrap_or(0)
        };
        let unsettled = count("x-delivery-count");
        Self {
            unsettled,
            all: unsettled.max(count("x-acquired-count")),
        }
    }
}

/// The reason of a dead letter that RabbitMQ itself made, and that has no reason from Carga.
fn reason_of_broker(properties: &BasicProperties) -> Option<String> {
    // The latest entry is the first one. Older entries may be from an earlier retry.
    let AMQPValue::FieldArray(deaths) = header(properties, "x-death")? else {
        return None;
    };
    let AMQPValue::FieldTable(latest) = deaths.as_slice().first()? else {
        return None;
    };
    let text = |name: &str| match latest.inner().get(name)? {
        AMQPValue::LongString(value) => Some(value.to_string()),
        _ => None,
    };
    let queue = text("queue").unwrap_or_default();
    Some(broker_reason(&queue, &text("reason")?))
}

fn number(properties: &BasicProperties, name: &str) -> Option<i64> {
    match header(properties, name)? {
        AMQPValue::LongInt(value) => Some(i64::from(*value)),
        AMQPValue::LongUInt(value) => Some(i64::from(*value)),
        AMQPValue::LongLongInt(value) => Some(*value),
        _ => None,
    }
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

#[cfg(test)]
mod tests {
    use super::super::super::{SUSPECT_AFTER, SUSPECT_LIMIT, unsettled_reason};
    use super::*;
    use crate::upload::{UploadId, UploadKey};

    #[test]
    fn an_envelope_is_read_as_it_was_written() {
        let batch = BatchId {
            upload: UploadKey::first(UploadId::generate()),
            seq: 7,
        };
        let written = Envelope {
            attempt: 3,
            postponed: 2,
            is_returned: true,
            reason: Some("as a test".to_owned()),
            ..Envelope::first(batch, "an installation".to_owned())
        };
        let read = Envelope::of(&written.properties());
        assert_eq!(read.id, Some(batch));
        assert_eq!((read.attempt, read.postponed), (3, 2));
        assert_eq!(read.installation.as_deref(), Some("an installation"));
        assert!(read.is_returned);
        assert_eq!(read.reason.as_deref(), Some("as a test"));
    }

    #[test]
    fn a_message_of_an_older_build_has_no_installation() {
        let read = Envelope::of(&BasicProperties::default());
        assert_eq!((read.attempt, read.postponed), (1, 0));
        assert_eq!(read.installation, None);
        assert!(!read.is_returned);
    }

    #[test]
    fn the_reason_of_the_broker_tells_the_deliveries() {
        let reason = broker_reason("carga.suspects", "delivery_limit");
        assert_eq!(reason, unsettled_reason(SUSPECT_AFTER + SUSPECT_LIMIT));
        let reason = broker_reason("carga.batches", "delivery_limit");
        assert_eq!(reason, "delivered 21 times without being settled");
        let reason = broker_reason("carga.batches", "maxlen");
        assert_eq!(reason, "dead-lettered by RabbitMQ: maxlen");
    }
}
