//! Scopes: what the holder of a key may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One right of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Everything, and the keys of all tenants.
    Admin,
    /// Declaring datasets, and cancelling and undoing uploads.
    Manage,
    /// Reading uploads, rows and datasets.
    Read,
    /// Sending files.
    Upload,
}

impl Scope {
    /// All scopes, in the order of their names.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Manage, Self::Read, Self::Upload];

    /// The name in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Manage => "manage",
            Self::Read => "read",
            Self::Upload => "upload",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text does not name scopes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopesFault {
    /// The text is not the name of a scope.
    #[error("`{0:.100}` is not a scope; the scopes are `admin`, `manage`, `read` and `upload`")]
    Unknown(String),
    /// A key without a scope could do nothing.
    #[error("name at least one scope: `admin`, `manage`, `read` or `upload`")]
    Empty,
}

impl FromStr for Scope {
    type Err = ScopesFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| ScopesFault::Unknown(text.to_owned()))
    }
}

/// The scopes of a key, at least one. JSON has them as a list of names without duplicates, in the
/// order of the names.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

impl Scopes {
    /// The scope that implies all others.
    pub fn admin() -> Self {
        Self(Scope::Admin.bit())
    }

    /// The set of these scopes. Fails if there are none.
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Result<Self, ScopesFault> {
        let bits = scopes.into_iter().fold(0, |bits, scope| bits | scope.bit());
        match bits {
            0 => Err(ScopesFault::Empty),
            bits => Ok(Self(bits)),
        }
    }

    /// Whether the holder of these scopes may do what `scope` allows. `admin` allows everything.
    pub fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// Whether `scope` itself is one of these.
    pub fn contain(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// The scopes in the order of their names.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .into_iter()
            .filter(move |scope| self.contain(*scope))
    }
}

/// The names, separated by blanks.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Scope::name).collect();
        f.write_str(&names.join(" "))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

/// Names, separated by blanks.
impl FromStr for Scopes {
    type Err = ScopesFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let scopes: Result<Vec<Scope>, _> = text.split_whitespace().map(str::parse).collect();
        Self::new(scopes?)
    }
}

impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Scope::name))
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let scopes: Result<Vec<Scope>, _> = names.iter().map(|name| name.parse()).collect();
        let scopes = scopes.and_then(Self::new);
        scopes.map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_allows_only_what_it_names_and_admin_allows_everything() {
        for scope in Scope::ALL {
            let scopes = Scopes::new([scope]).unwrap();
            for other in Scope::ALL {
                let is_allowed = scope == other || scope == Scope::Admin;
                assert_eq!(scopes.allow(other), is_allowed, "{scope} {other}");
                assert_eq!(scopes.contain(other), scope == other, "{scope} {other}");
            }
        }
    }

    #[test]
    fn scopes_are_listed_by_name_and_once_each() {
        let given = [Scope::Upload, Scope::Read, Scope::Upload, Scope::Manage];
        let scopes = Scopes::new(given).unwrap();
        let json = r#"["manage","read","upload"]"#;
        assert_eq!(serde_json::to_string(&scopes).unwrap(), json);
        assert_eq!(serde_json::from_str::<Scopes>(json).unwrap(), scopes);
        assert_eq!(scopes.to_string(), "manage read upload");
        assert_eq!("upload read manage".parse(), Ok(scopes));
    }

    #[test]
    fn no_scope_and_an_unknown_scope_are_faults() {
        assert_eq!(Scopes::new([]), Err(ScopesFault::Empty));
        assert_eq!("".parse::<Scopes>(), Err(ScopesFault::Empty));
        assert!(serde_json::from_str::<Scopes>("[]").is_err());
        let fault = "read write".parse::<Scopes>().unwrap_err().to_string();
        assert!(fault.starts_with("`write` is not a scope"), "{fault}");
        assert!(serde_json::from_str::<Scopes>(r#"["Read"]"#).is_err());
    }
}
