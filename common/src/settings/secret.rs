//! URLs that may hold a password.

use std::fmt;

/// A URL that shows its password to nobody but the driver.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Takes a URL as it is.
    pub fn new(url: String) -> Self {
        Self(url)
    }

    /// The whole URL, for the driver alone.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The part before `:`.
    pub fn scheme(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `scheme://user:secret@host` with the secret replaced. Everything between the first `:` of the user part and the last `@`
/// before the path counts as secret, so that an unescaped `@` in a password gives nothing away.
fn masked(url: &str) -> String {
    // Names of files, which have no password to hide.
    if url.starts_with("sqlite:") || url.starts_with("file:") {
        return url.to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return "***".to_owned();
    };
    // What a query says may be a password as well (`?password=`), and nothing in it is worth showing.
    if let Some((address, _)) = rest.split_once('?') {
        return masked(&format!("{scheme}://{address}")) + "?***";
    }
    let Some((user, host)) = rest.rsplit_once('@') else {
        return url.to_owned();
    };
    match user.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{host}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::SecretUrl;

    #[test]
    fn a_password_is_never_shown() {
        for (url, shown) in [
            ("amqp://guest:s3cret@host/%2f", "amqp://guest:***@host/%2f"),
            ("postgres://u:p@ss@host/db", "postgres://u:***@host/db"),
            ("redis://:s3cret@host", "redis://:***@host"),
            ("postgres://u@host/db", "postgres://u@host/db"),
            ("s3cret", "***"),
            ("sqlite:carga.db", "sqlite:carga.db"),
            (
                "postgres://h/db?user=u&password=s3cret",
                "postgres://h/db?***",
            ),
        ] {
            let url = SecretUrl::new(url.to_owned());
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }
}
