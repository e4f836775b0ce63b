//! The arguments of `carga keys`.

use std::convert::Infallible;

use carga_common::access::{KeyId, NotAKeyId, Scope, Scopes};
use carga_common::dataset::DatasetName;
use carga_common::tenant::Tenant;
use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, and print it once
    ///
    /// The key alone goes to standard output, and everything else to standard error. The store
    /// keeps only a digest, so nobody can print the key again.
    Create(NewKeyArguments),
    /// List the keys, the oldest first, without their secrets
    List {
        /// Only the keys of this tenant
        #[arg(long)]
        tenant: Option<Tenant>,
    },
    /// Revoke a key; servers refuse it within 5 seconds
    Revoke {
        /// The key's id, which is the 12 characters after `carga_`, or the whole key
        #[arg(value_parser = named_key)]
        id: NamedKey,
    },
}

/// The id of a key, or why the argument does not name a key.
type NamedKey = Result<KeyId, NotAKeyId>;

/// The fault is reported later, because the errors of clap quote the argument, and this one may be
/// a key.
fn named_key(text: &str) -> Result<NamedKey, Infallible> {
    Ok(KeyId::named_by(text))
}

#[derive(Debug, Args)]
pub(crate) struct NewKeyArguments {
    /// Let the holder do everything, and make further keys; short for `--scope admin`
    #[arg(long, conflicts_with = "scopes")]
    admin: bool,
    /// What the holder may do: upload, read, manage or admin; may be repeated
    #[arg(
        long = "scope",
        value_name = "SCOPE",
        required_unless_present = "admin"
    )]
    scopes: Vec<Scope>,
    /// The owner of everything that the holder sends and sees
    #[arg(long, default_value_t)]
    pub(crate) tenant: Tenant,
    /// The only dataset to which the holder may send files
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: Option<DatasetName>,
    /// A name for people
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Let the key expire after this many days
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) expires_in: Option<u32>,
}

impl NewKeyArguments {
    /// The scopes. clap has checked that there is one at least.
    pub(crate) fn scopes(&self) -> anyhow::Result<Scopes> {
        match self.admin {
            true => Ok(Scopes::admin()),
            false => Ok(Scopes::new(self.scopes.iter().copied())?),
        }
    }
}

#[cfg(test)]
mod tests {
    use carga_common::access::ApiKey;
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    /// The scopes of a key that this command line makes; `None` if it is not valid.
    fn scopes_of(flags: &[&str]) -> Option<String> {
        let arguments = [&["carga", "keys", "create"][..], flags].concat();
        match Arguments::try_parse_from(arguments).ok()?.command? {
            Command::Keys(KeyCommand::Create(new)) => Some(new.scopes().unwrap().to_string()),
            _ => None,
        }
    }

    #[test]
    fn a_key_to_revoke_is_named_by_its_id_or_whole_and_only_its_id_is_kept() {
        let parse = |name: &str| {
            let arguments = Arguments::try_parse_from(["carga", "keys", "revoke", name]);
            match arguments.unwrap().command.unwrap() {
                Command::Keys(KeyCommand::Revoke { id }) => id,
                other => panic!("{other:?}"),
            }
        };
        let key = ApiKey::generate().unwrap();
        for name in [key.id().as_str(), key.expose()] {
            assert_eq!(parse(name).as_ref(), Ok(key.id()));
        }
        assert_eq!(parse(&key.expose()[1..]), Err(NotAKeyId));
    }

    #[test]
    fn a_key_has_the_scopes_of_the_command_line_and_never_none() {
        let scopes = |flags: &[&str]| scopes_of(flags).unwrap_or_default();
        assert_eq!(scopes(&["--admin"]), "admin");
        assert_eq!(
            scopes(&["--scope", "upload", "--scope=read"]),
            "read upload"
        );
        assert_eq!(
            scopes(&["--scope", "upload", "--expires-in", "90"]),
            "upload"
        );
        for flags in [
            &[][..],
            &["--scope", "write"],
            &["--admin", "--scope", "read"],
            &["--admin", "--tenant", "A"],
            &["--admin", "--expires-in", "0"],
            &["--admin", "--dataset", "a/b"],
        ] {
            assert_eq!(scopes_of(flags), None, "{flags:?}");
        }
    }
}
