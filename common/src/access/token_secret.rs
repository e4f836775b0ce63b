//! Signs tokens, and checks their signatures.
//!
//! A token is a JWT (RFC 7519) that is signed with HMAC-SHA-256. Its header is one fixed text, and
//! a text with any other header is not a token. So nobody but this module chooses the algorithm
//! (RFC 8725, 2.1). The type `carga+jwt` in the header tells tokens from the JWTs of others.
//!
//! The signature is checked before anything else is read: a forged token costs two digests and no
//! lookup.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::{KeyDigest, KeyId, Token, TokenId, TokenLimits, TokenMaker, Unobtainable};

/// `{"alg":"HS256","typ":"carga+jwt"}` in base64url, and the dot behind it.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6ImNhcmdhK2p3dCJ9.";

/// The claim `iss` of every token.
const ISSUER: &str = "carga";

/// The longest token. A token whose names have the greatest length needs half of these bytes.
const MAX_BYTES: usize = 2048;

/// Whether a text has the header of a token. All other JWTs are those of another issuer.
pub fn is_token(text: &str) -> bool {
    text.starts_with(HEADER)
}

/// The secret with which all APIs of one database sign tokens. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; 32]);

/// A short digest of `CARGA_ADMIN_KEY` in the tokens that were made with it, so that they end when
/// the key changes. Without the secret, nobody can check guesses of the key against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdminMark([u8; 16]);

/// The text of a token. Only [`expose`](Self::expose) shows it.
#[derive(Clone)]
pub struct SignedToken(String);

impl SignedToken {
    /// The text, for the client that asked for it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SignedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedToken(***)")
    }
}

/// Why a text is not a valid token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// The text has another header, is too long, or its parts are not base64url.
    #[error("not a token")]
    NotAToken,
    /// The signature is that of another secret, or of other claims.
    #[error("wrong signature")]
    WrongSignature,
    /// The claims are signed, and this build does not know one of them.
    #[error("unknown claims")]
    UnknownClaims,
    /// Its time is over.
    #[error("expired")]
    Expired,
}

/// The claims of a token. A claim that this build does not know may be a limit of a newer build, so
/// such a token is refused.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    jti: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin: Option<String>,
    tenant: String,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_uploads: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    iat: i64,
    exp: i64,
}

impl TokenSecret {
    /// A secret of 256 random bits.
    pub fn generate() -> Result<Self, Unobtainable> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| Unobtainable(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// The bytes, for the store.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The mark of an admin key with this digest.
    pub fn admin_mark(&self, digest: &KeyDigest) -> AdminMark {
        let mac = self.mac(&[b"admin key ", digest.as_bytes()]);
        let mac: [u8; 32] = mac.finalize().into_bytes().into();
        let (mark, _) = mac.split_at(16);
        let mut short = [0; 16];
        short.copy_from_slice(mark);
        AdminMark(short)
    }

    /// The text of a token.
    pub fn sign(&self, token: &Token) -> Result<SignedToken, serde_json::Error> {
        let claims = serde_json::to_vec(&Claims::of(token))?;
        let mut text = HEADER.to_owned();
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut text);
        let signature = self.mac(&[text.as_bytes()]).finalize().into_bytes();
        text.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        Ok(SignedToken(text))
    }

    /// The token with this text, if this secret signed it and it has not ended.
    pub fn verify(&self, text: &str, now: Timestamp) -> Result<Token, TokenFault> {
        if !is_token(text) || text.len() > MAX_BYTES {
            return Err(TokenFault::NotAToken);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenFault::NotAToken)?;
        let claims = signed.get(HEADER.len()..).ok_or(TokenFault::NotAToken)?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature);
        let signature = signature.map_err(|_| TokenFault::NotAToken)?;
        // In constant time, so that the time tells nothing about the right signature.
        let checked = self.mac(&[signed.as_bytes()]).verify_slice(&signature);
        checked.map_err(|_| TokenFault::WrongSignature)?;
        let claims = BASE64_URL_SAFE_NO_PAD.decode(claims);
        let claims = claims.map_err(|_| TokenFault::UnknownClaims)?;
        let claims: Option<Claims> = serde_json::from_slice(&claims).ok();
        let token = claims.and_then(Claims::token);
        let token = token.ok_or(TokenFault::UnknownClaims)?;
        match token.limits.expires_at > now {
            true => Ok(token),
            false => Err(TokenFault::Expired),
        }
    }

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        // HMAC fills a short key with zeros (RFC 2104, 2). The length of a whole block is never
        // wrong.
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.0);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        for part in parts {
            mac.update(part);
        }
        mac
    }
}

impl From<[u8; 32]> for TokenSecret {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(***)")
    }
}

impl Claims {
    fn of(token: &Token) -> Self {
        let (sub, admin) = match &token.maker {
            TokenMaker::Key(id) => (Some(id.to_string()), None),
            TokenMaker::Admin(mark) => (None, Some(BASE64_URL_SAFE_NO_PAD.encode(mark.0))),
        };
        let TokenLimits {
            id,
            expires_at,
            max_uploads,
            max_bytes,
        } = &token.limits;
        Self {
            iss: ISSUER.to_owned(),
            jti: id.to_string(),
            sub,
            admin,
            tenant: token.tenant.to_string(),
            scope: token.scopes.to_string(),
            dataset: token.dataset.as_ref().map(ToString::to_string),
            max_uploads: *max_uploads,
            max_bytes: *max_bytes,
            iat: token.issued_at.as_second(),
            exp: expires_at.as_second(),
        }
    }

    /// `None` if a claim has a value that no build writes.
    fn token(self) -> Option<Token> {
        let maker = match (self.sub, self.admin) {
            (Some(id), None) => TokenMaker::Key(id.parse::<KeyId>().ok()?),
            (None, Some(mark)) => {
                let mark = BASE64_URL_SAFE_NO_PAD.decode(mark).ok()?;
                TokenMaker::Admin(AdminMark(mark.try_into().ok()?))
            }
            _ => return None,
        };
        let dataset = self.dataset.map(|name| name.parse()).transpose();
        let limits = TokenLimits {
            id: self.jti.parse::<TokenId>().ok()?,
            expires_at: Timestamp::from_second(self.exp).ok()?,
            max_uploads: self.max_uploads,
            max_bytes: self.max_bytes,
        };
        (self.iss == ISSUER).then_some(Token {
            maker,
            tenant: self.tenant.parse().ok()?,
            scopes: self.scope.parse().ok()?,
            dataset: dataset.ok()?,
            issued_at: Timestamp::from_second(self.iat).ok()?,
            limits,
        })
    }
}

#[cfg(test)]
mod tests;
