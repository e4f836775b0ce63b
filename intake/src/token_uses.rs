//! Counts the uploads of a token that limits their number.

use carga_common::access::TokenLimits;
use carga_common::error::{ErrorKind, PortResult};
use carga_common::store::Store;
use carga_common::upload::Upload;

use crate::intake::Incoming;
use crate::refusal::Refusal;

/// The token of the sender, if it limits the number of uploads.
fn limited(incoming: &Incoming) -> Option<&TokenLimits> {
    let token = incoming.token.as_ref();
    token.filter(|token| token.max_uploads.is_some())
}

/// Counts an upload that is about to be created, and refuses it if the token is used up.
///
/// A request whose `Idempotency-Key` another request has taken meanwhile is not counted. It would
/// otherwise be refused because the other request has used the token up.
pub(crate) async fn count(store: &dyn Store, incoming: &Incoming) -> Result<(), Refusal> {
    let Some(token) = limited(incoming) else {
        return Ok(());
    };
    if let Some(key) = &incoming.idempotency_key
        && let Some(first) = store.first_upload(key).await?
    {
        return Err(Refusal::idempotency_in_progress(Some(&first.upload)));
    }
    match store.count_token_upload(token).await? {
        true => Ok(()),
        false => Err(Refusal::token_used_up(token)),
    }
}

/// Takes the count back if the upload was certainly not created. After any other error the upload
/// may exist, so it stays counted: a token never sends more than it may.
pub(crate) async fn give_back(
    store: &dyn Store,
    incoming: &Incoming,
    recorded: &PortResult<Option<Upload>>,
) {
    let Some(token) = limited(incoming).filter(|_| was_not_created(recorded)) else {
        return;
    };
    if let Err(error) = store.uncount_token_upload(token).await {
        tracing::warn!(
            token.id = %token.id,
            error = error.chain(),
            "cannot take back the count of an upload that was not created; the token can send one upload less"
        );
    }
}

fn was_not_created(recorded: &PortResult<Option<Upload>>) -> bool {
    match recorded {
        // `None`: another request has the `Idempotency-Key`.
        Ok(created) => created.is_none(),
        Err(error) => matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use carga_common::error::PortError;

    use super::*;

    #[test]
    fn only_an_upload_that_was_certainly_not_created_is_not_counted() {
        let failed = |kind| was_not_created(&Err(PortError::new(kind, "store.create", "fault")));
        assert!(was_not_created(&Ok(None)));
        assert!(failed(ErrorKind::Conflict) && failed(ErrorKind::NotFound));
        assert!(!failed(ErrorKind::Unavailable));
    }
}
