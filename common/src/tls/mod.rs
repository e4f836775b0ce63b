//! TLS of Carga's own port: the server's side, and connections to it from this machine. TLS to
//! Postgres, RabbitMQ, Redis and S3 belongs to their adapters.
//!
//! A build without the feature `tls` has the same items, and each of them answers
//! [`TlsError::NotBuilt`]. So the rest of Carga compiles the same code in every build.

mod error;

#[cfg(not(feature = "tls"))]
mod absent;
#[cfg(feature = "tls")]
mod certificate;
#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
mod server;
#[cfg(feature = "tls")]
mod validity;

#[cfg(not(feature = "tls"))]
pub use self::absent::TlsServer;
#[cfg(not(feature = "tls"))]
pub(crate) use self::absent::connect;
#[cfg(feature = "tls")]
pub(crate) use self::client::connect;
pub use self::error::TlsError;
#[cfg(feature = "tls")]
pub use self::server::TlsServer;
