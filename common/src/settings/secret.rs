//! URLs that may hold a password.

use std::fmt;

/// A URL whose password is masked wherever the URL is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Wraps a URL without checking it.
    pub fn new(url: String) -> Self {
        Self(url)
    }

    /// The URL with its password, for the driver only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// False if a `/`, `#` or `?` in a password seems to end the authority too early: then the port
    /// is not a number, or an `@` is in the path or in the name of a query's parameter.
    pub(super) fn has_valid_authority(&self) -> bool {
        let Some(parts) = self.parts() else {
            return true;
        };
        let port = match parts.host.rsplit_once(':') {
            // The colon belongs to an IPv6 address without a port.
            Some((_, port)) if port.ends_with(']') => "",
            Some((_, port)) => port,
            None => "",
        };
        let (path, query) = parts.rest.split_once('?').unwrap_or((parts.rest, ""));
        let name = query.split('=').next().unwrap_or_default();
        let has_user = parts.user.is_some();
        let is_port = port.is_empty() || port.parse::<u16>().is_ok();
        is_port && (has_user || !(path.contains('@') || name.contains('@')))
    }

    /// Whether the URL has a user or a password.
    pub(super) fn has_user(&self) -> bool {
        !self.has_valid_authority() || self.parts().is_some_and(|parts| parts.user.is_some())
    }

    /// Adds this password, percent-encoded, unless the URL has one already. Only Redis accepts a
    /// password without a user.
    pub(super) fn with_password(self, password: &str) -> Self {
        let Some(parts) = self.parts() else {
            return self;
        };
        let Parts {
            scheme, host, rest, ..
        } = parts;
        let user = parts.user.unwrap_or_default();
        if user.contains(':') || (user.is_empty() && !matches!(scheme, "redis" | "rediss")) {
            return self;
        }
        let password = percent_encoded(password);
        Self(format!("{scheme}://{user}:{password}@{host}{rest}"))
    }

    /// `None` without an authority: a file's path and an object's prefix may contain any character.
    fn parts(&self) -> Option<Parts<'_>> {
        let (scheme, rest) = self.0.split_once("://")?;
        if matches!(scheme, "sqlite" | "file" | "s3") {
            return None;
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        Some(Parts {
            scheme,
            user,
            host,
            rest,
        })
    }

    /// The part before `:`.
    pub fn scheme(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }
}

/// `scheme://user@hostrest`
struct Parts<'a> {
    scheme: &'a str,
    /// The user, and the password if there is one.
    user: Option<&'a str>,
    /// The host, and the port if there is one.
    host: &'a str,
    /// The path, the query and the fragment.
    rest: &'a str,
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.has_valid_authority() {
            true => f.write_str(&masked(&self.0)),
            // It is unclear which part of the URL is the password.
            false => write!(f, "{}://***", self.scheme()),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Writes every byte as `%XX` except the unreserved characters of RFC 3986 (2.3).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Replaces the secret in `scheme://user:secret@host`. Everything between the first `:` of the user
/// part and the last `@` counts as the secret, so that a password with an unescaped `@` is masked
/// whole.
fn masked(url: &str) -> String {
    // A file name contains no password.
    if url.starts_with("sqlite:") || url.starts_with("file:") {
        return url.to_owned();
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return "***".to_owned();
    };
    // A query may contain a password as well (`?password=`), so the whole query is masked.
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
            // The password seems to end the authority, so all of the rest may belong to it.
            ("amqp://u:12?s3cret@h", "amqp://***"),
            ("http://u:12/s3cret@h", "http://***"),
            ("s3://bucket/a@b", "s3://bucket/a@b"),
            ("sqlite:///srv/a@b.db", "sqlite:///srv/a@b.db"),
        ] {
            let url = SecretUrl::new(url.to_owned());
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn a_password_with_special_characters_is_added_to_a_url_without_one() {
        for (url, complete) in [
            (
                "postgres://u@h:5432/db",
                "postgres://u:p%40s%2Fs%3A%231%3F@h:5432/db",
            ),
            ("amqp://u@h/%2f", "amqp://u:p%40s%2Fs%3A%231%3F@h/%2f"),
            ("redis://h:6379", "redis://:p%40s%2Fs%3A%231%3F@h:6379"),
            // A URL with another password, one without a user, and one with a query.
            ("postgres://u:other@h/db", "postgres://u:other@h/db"),
            ("postgres://h/db", "postgres://h/db"),
            (
                "postgres://u@h?x=1",
                "postgres://u:p%40s%2Fs%3A%231%3F@h?x=1",
            ),
        ] {
            let url = SecretUrl::new(url.to_owned()).with_password("p@s/s:#1?");
            assert_eq!(url.expose(), complete);
        }
    }

    #[test]
    fn an_authority_that_a_password_ends_too_early_is_invalid() {
        let is_valid = |url: &str| SecretUrl::new(url.to_owned()).has_valid_authority();
        for url in [
            "postgres://u:pw@h:5432/db",
            "postgres://u:p@ss@h/db",
            "postgres://h/db?user=a@b",
            "amqp://u:pw@h/%2f?name=a@b",
            "sqlite:///srv/a@b.db",
            "amqp://u:pw@[::1]:5672/%2f",
            "redis://[::1]",
            "redis://h",
        ] {
            assert!(is_valid(url), "{url}");
        }
        for url in [
            "postgres://u:p/w@h/db",
            "postgres://u:p#w@h/db",
            "postgres://u:p?w@h/db",
            "postgres://u:12/w@h/db",
            "amqp://u:12?w@h",
            "amqp://u:12#w?x@h",
            "redis://u:?w@h",
            "redis://h:port",
        ] {
            assert!(!is_valid(url), "{url}");
        }
    }
}
