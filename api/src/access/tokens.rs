//! Makes tokens with at most the rights of the caller's key.

use carga_common::access::{
    KeyDigest, Scopes, SignedToken, Token, TokenId, TokenLimits, TokenMaker,
};
use carga_common::dataset::DatasetName;
use carga_intake::refusal::Refusal;
use jiff::Timestamp;

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
                expires_at: in_seconds(request.expires_at),
                max_uploads: request.max_uploads,
                max_bytes: request.max_bytes,
            },
        };
        let text = secret.sign(&token).map_err(|error| failed(&error))?;
        Ok((token, text))
    }
}

/// The time without the part of a second, as a JWT has it.
fn in_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
