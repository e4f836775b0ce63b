//! Makes tokens with at most the rights of the caller's key.

use carga_common::access::{
    KeyDigest, Scopes, SignedToken, Token, TokenId, TokenLimits, TokenMaker,
};
use carga_common::dataset::DatasetName;
use carga_intake::refusal::Refusal;
use jiff::{SignedDuration, Timestamp};

use super::keys::Keys;
use crate::caller::Caller;

/// What a new token allows. The caller may do at least this much.
#[derive(Debug)]
pub(crate) struct TokenRequest {
    pub(crate) scopes: Scopes,
    pub(crate) dataset: Option<DatasetName>,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) max_uploads: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
}

impl Keys {
    /// Makes a token for the holder of a key.
    pub(crate) async fn make_token(
        &self,
        request: TokenRequest,
        caller: &Caller,
    ) -> Result<(Token, SignedToken), Refusal> {
        let secret = self.secret.get().await?;
        let mark = |admin: &KeyDigest| TokenMaker::Admin(secret.admin_mark(admin));
        let maker = match &caller.key {
            Some(key) => Some(TokenMaker::Key(key.clone())),
            // The caller has shown `CARGA_ADMIN_KEY`.
            None => self.admin.as_ref().map(mark),
        };
        let failed = |error: &dyn std::error::Error| {
            tracing::error!(%error, "cannot make a token");
            Refusal::internal()
        };
        let token = Token {
            maker: maker.ok_or_else(Refusal::internal)?,
            tenant: caller.tenant.clone(),
            scopes: request.scopes,
            dataset: request.dataset,
            issued_at: in_seconds(request.issued_at),
            limits: TokenLimits {
                id: TokenId::generate().map_err(|error| failed(&error))?,
                expires_at: end_in_seconds(request.expires_at, caller.expires_at),
                max_uploads: request.max_uploads,
                max_bytes: request.max_bytes,
            },
        };
        let text = secret.sign(&token).map_err(|error| failed(&error))?;
        Ok((token, text))
    }
}

/// The time rounded down to a whole second, as a JWT has it.
fn in_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The end of a token, rounded up to a whole second, so that no token is shorter than requested. It
/// is rounded down if the key ends before that second.
fn end_in_seconds(end: Timestamp, end_of_key: Option<Timestamp>) -> Timestamp {
    let begun = in_seconds(end);
    let next = match begun < end {
        true => begun.checked_add(SignedDuration::from_secs(1)),
        false => Ok(begun),
    };
    let next = next.ok();
    next.filter(|next| end_of_key.is_none_or(|end| *next <= end))
        .unwrap_or(begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_at_the_next_whole_second_unless_its_key_ends_before() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let (second, next) = (time("2026-11-26T05:00:00Z"), time("2026-11-26T05:00:01Z"));
        let between = time("2026-11-26T05:00:00.3Z");
        assert_eq!(end_in_seconds(second, None), second);
        assert_eq!(end_in_seconds(between, None), next);
        for (end_of_key, expected) in [
            (between, second),
            (time("2026-11-26T05:00:00.9Z"), second),
            (next, next),
        ] {
            assert_eq!(end_in_seconds(between, Some(end_of_key)), expected);
        }
        assert_eq!(
            end_in_seconds(Timestamp::MAX, None),
            in_seconds(Timestamp::MAX)
        );
    }
}
