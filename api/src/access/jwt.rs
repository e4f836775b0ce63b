//! JWTs of another issuer, such as an identity provider, that requests carry instead of a key.
//!
//! [`JwtVerifier`] checks a JWT and makes its caller. `key_set` reads the public keys of the issuer
//! and pins the algorithm of each. `key_source` reads them again and again from a file, or through
//! `http` from a URL. `claims` turns the claims of a JWT into the rights of a caller.
//!
//! A build without the feature `servers` has none of this. If requests need a key, it does not
//! start with such a setting.

#[cfg(feature = "servers")]
mod claims;
#[cfg(feature = "servers")]
mod http;
#[cfg(feature = "servers")]
mod key_set;
#[cfg(feature = "servers")]
mod key_source;
#[cfg(not(feature = "servers"))]
mod unsupported;
#[cfg(feature = "servers")]
mod verifier;

#[cfg(not(feature = "servers"))]
pub use unsupported::JwtVerifier;
#[cfg(feature = "servers")]
pub use verifier::JwtVerifier;

/// Why an API does not start with the settings of JWTs.
#[derive(Debug, thiserror::Error)]
pub enum JwtFault {
    /// This build has no code for JWTs.
    #[error(
        "CARGA_JWT_SECRET or CARGA_JWT_JWKS is set, and this build cannot check JWTs; rebuild with --features servers"
    )]
    Unsupported,
    /// The public keys of the issuer cannot be read, or the set is empty.
    #[error("CARGA_JWT_JWKS={location}: {reason}")]
    Keys {
        /// The file or URL.
        location: String,
        /// What is wrong.
        reason: String,
    },
}
