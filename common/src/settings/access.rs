//! Whether requests need a key.

use std::fmt;
use std::net::SocketAddr;

use super::jwt::JwtSettings;
use super::ports::Switch;
use super::reader::Reader;
use crate::access::KeyDigest;

/// The shortest admin key. 32 random letters and digits cannot be guessed.
const MIN_ADMIN_KEY: usize = 32;

/// The longest admin key. A longer one is probably another file by mistake.
const MAX_ADMIN_KEY: usize = 512;

/// Whether requests need a key, as far as the settings say it.
#[derive(Debug, Clone)]
pub struct AccessSettings {
    /// `CARGA_AUTH`; `None` if it is not set.
    pub auth: Option<bool>,
    /// `CARGA_ADMIN_KEY`
    pub admin_key: Option<AdminKey>,
    /// The JWTs of another issuer that are accepted; `None` if no JWT is accepted.
    pub jwt: Option<JwtSettings>,
}

/// A key that may do everything and is in no table. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminKey(String);

impl AdminKey {
    /// The key itself, for a request.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The digest with which the key of a request is compared.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest::of(&self.0)
    }
}

impl fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Whether requests need a key.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// Every client may do everything.
    Off,
    /// Every request needs a key: one in the store, or this one.
    On(Option<AdminKey>),
}

/// Other machines may reach the listener, and `CARGA_AUTH` does not say whether their requests need
/// a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "CARGA_LISTEN={listen} may be reached from other machines, so CARGA_AUTH must be set: \
     `on` if every request needs an API key (make the first one with `carga keys create --admin`), \
     `off` if every client that reaches the port may read, change and delete everything"
)]
pub struct Undecided {
    /// The listener.
    pub listen: SocketAddr,
}

impl AccessSettings {
    pub(super) fn read(reader: &mut Reader<'_>, listen: SocketAddr) -> Self {
        let default = is_loopback(listen).then_some("off");
        let auth = reader.optional("CARGA_AUTH", default);
        let auth = auth.and_then(|text| match text.parse::<Switch>() {
            Ok(Switch(is_on)) => Some(is_on),
            Err(fault) => {
                reader.fault(format!("CARGA_AUTH={text}: {fault}"));
                None
            }
        });
        let admin_key = reader.password("CARGA_ADMIN_KEY").and_then(|key| {
            if let Err(fault) = check(&key) {
                reader.fault(format!("CARGA_ADMIN_KEY: {fault}"));
                return None;
            }
            Some(AdminKey(key))
        });
        Self {
            auth,
            admin_key,
            jwt: JwtSettings::read(reader),
        }
    }

    /// Whether requests to this listener need a key. Without `CARGA_AUTH`, requests to a loopback
    /// listener need none, and every other listener is a fault.
    pub fn authentication(&self, listen: SocketAddr) -> Result<Authentication, Undecided> {
        match self.auth {
            Some(true) => Ok(Authentication::On(self.admin_key.clone())),
            Some(false) => Ok(Authentication::Off),
            None if is_loopback(listen) => Ok(Authentication::Off),
            None => Err(Undecided { listen }),
        }
    }
}

fn is_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

/// Checks that nobody can guess the key, and that a header can carry it.
fn check(key: &str) -> Result<(), String> {
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("use only visible ASCII characters and no blanks".to_owned());
    }
    match key.len() {
        MIN_ADMIN_KEY..=MAX_ADMIN_KEY => Ok(()),
        length => Err(format!(
            "it has {length} characters, and {MIN_ADMIN_KEY} to {MAX_ADMIN_KEY} are needed; `openssl rand -hex 32` makes one"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::settings::{Mode, Settings, SettingsError};

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let variables: HashMap<_, _> = variables.iter().copied().collect();
        Settings::read(Mode::Embedded, &|name| {
            variables.get(name).map(|value| (*value).to_owned())
        })
    }

    /// What a listener does: `off`, `on`, or the reason why it does not start.
    fn outcome(variables: &[(&str, &str)]) -> String {
        let settings = read(variables).unwrap();
        match settings.authentication() {
            Ok(Authentication::Off) => "off".to_owned(),
            Ok(Authentication::On(_)) => "on".to_owned(),
            Err(undecided) => undecided.to_string(),
        }
    }

    #[test]
    fn requests_to_a_loopback_listener_need_no_key_unless_the_setting_says_so() {
        for listen in [
            "127.0.0.1:8080",
            "127.1.2.3:1",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:1",
        ] {
            let listen = ("CARGA_LISTEN", listen);
            assert_eq!(outcome(&[listen]), "off");
            assert_eq!(outcome(&[listen, ("CARGA_AUTH", "off")]), "off");
            assert_eq!(outcome(&[listen, ("CARGA_AUTH", "on")]), "on");
        }
        assert_eq!(outcome(&[]), "off");
        assert_eq!(outcome(&[("CARGA_ADMIN_KEY", KEY)]), "off");
    }

    #[test]
    fn a_listener_for_other_machines_does_not_start_before_the_setting_is_set() {
        for listen in [
            "0.0.0.0:8080",
            "[::]:8080",
            "192.0.2.1:80",
            "[::ffff:192.0.2.1]:80",
        ] {
            let listen = ("CARGA_LISTEN", listen);
            let reason = outcome(&[listen, ("CARGA_AUTH", "")]);
            for text in [listen.1, "CARGA_AUTH", "`on`", "`off`", "carga keys create"] {
                assert!(reason.contains(text), "{reason}");
            }
            assert_eq!(outcome(&[listen, ("CARGA_AUTH", "off")]), "off");
            assert_eq!(outcome(&[listen, ("CARGA_AUTH", "on")]), "on");
        }
    }

    #[test]
    fn a_faulty_setting_is_reported_without_the_key() {
        let short = &KEY[1..];
        let long = KEY.repeat(17);
        let blank = format!("{KEY} x");
        for key in [short, &long, &blank, &KEY.replace('0', "é")] {
            let fault = read(&[("CARGA_ADMIN_KEY", key)]).unwrap_err().to_string();
            assert!(fault.contains("CARGA_ADMIN_KEY: "), "{fault}");
            assert!(!fault.contains(&KEY[1..9]), "{fault}");
        }
        let fault = read(&[("CARGA_AUTH", "yes")]).unwrap_err().to_string();
        assert!(
            fault.contains("CARGA_AUTH=yes: use `on` or `off`"),
            "{fault}"
        );
    }

    #[test]
    fn the_admin_key_is_masked() {
        let settings = read(&[("CARGA_ADMIN_KEY", KEY), ("CARGA_AUTH", "on")]).unwrap();
        assert!(!format!("{settings:?}").contains(&KEY[..8]));
        let shown = settings.effective.iter();
        let mut shown = shown.filter(|setting| setting.name == "CARGA_ADMIN_KEY");
        assert_eq!(shown.next().unwrap().value.as_deref(), Some("***"));
        let Ok(Authentication::On(Some(key))) = settings.authentication() else {
            panic!("no key");
        };
        assert_eq!(key.expose(), KEY);
        assert!(key.digest().matches(&KeyDigest::of(KEY)));
    }
}
