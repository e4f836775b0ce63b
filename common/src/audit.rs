//! The audit log: who has changed what.
//!
//! [`acting_as`] says who does something. Every change that the store makes within it leaves an
//! entry, in the transaction of the change, so neither can be there without the other. A change
//! that Carga makes by itself has no actor, and leaves none.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use crate::tenant::Tenant;

/// Who makes a change, with the request and the address that it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    name: Cow<'static, str>,
    address: Option<IpAddr>,
    request_id: Option<String>,
}

impl Actor {
    /// The holder of a key, of a token or of a JWT, as uploads record their sender.
    pub fn sender(name: &str) -> Self {
        Self::named(name.to_owned())
    }

    /// The holder of a JWT without the claim `sub`.
    pub fn unnamed_jwt() -> Self {
        Self::named("JWT without sub")
    }

    /// The holder of `CARGA_ADMIN_KEY`.
    pub fn admin_key() -> Self {
        Self::named("admin key")
    }

    /// Whoever runs a command of `carga`.
    pub fn command_line() -> Self {
        Self::named("command line")
    }

    /// A client of an API without authentication.
    pub fn nobody() -> Self {
        Self::named("nobody")
    }

    fn named(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            address: None,
            request_id: None,
        }
    }

    /// Adds the request, and the address at the other end of its connection.
    #[must_use]
    pub fn in_request(self, request_id: Option<String>, address: Option<IpAddr>) -> Self {
        Self {
            address,
            request_id,
            ..self
        }
    }
}

tokio::task_local! {
    static ACTOR: Actor;
}

/// Does some work on behalf of this actor. Tasks that the work spawns do not inherit the actor.
pub async fn acting_as<T>(actor: Actor, work: impl Future<Output = T>) -> T {
    ACTOR.scope(actor, work).await
}

/// Does some work in another task on behalf of the actor of this task.
pub fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let actor = ACTOR.try_with(Actor::clone).ok();
    async move {
        match actor {
            Some(actor) => acting_as(actor, work).await,
            None => work.await,
        }
    }
}

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// An upload was created.
    CreateUpload,
    /// An upload was cancelled.
    CancelUpload,
    /// An upload was undone.
    UndoUpload,
    /// Dead letters of an upload were retried.
    RetryUpload,
    /// A dataset was declared.
    CreateDataset,
    /// The definition of a dataset was changed.
    ChangeDataset,
    /// A dataset was deleted.
    DeleteDataset,
    /// A key was made.
    CreateKey,
    /// A key was revoked.
    RevokeKey,
    /// A token was made.
    CreateToken,
    /// The log filter of a process was changed.
    ChangeLog,
}

impl Action {
    /// The change of a put that declares a dataset, or changes a declared one.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn putting_dataset(is_new: bool) -> Self {
        match is_new {
            true => Self::CreateDataset,
            false => Self::ChangeDataset,
        }
    }

    /// The name of the change in the database and in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateUpload => "upload.create",
            Self::CancelUpload => "upload.cancel",
            Self::UndoUpload => "upload.undo",
            Self::RetryUpload => "upload.retry",
            Self::CreateDataset => "dataset.create",
            Self::ChangeDataset => "dataset.change",
            Self::DeleteDataset => "dataset.delete",
            Self::CreateKey => "key.create",
            Self::RevokeKey => "key.revoke",
            Self::CreateToken => "token.create",
            Self::ChangeLog => "log.change",
        }
    }
}

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Entries are listed by this number, which ascends.
    pub id: u64,
    /// When the change was made.
    pub at: Timestamp,
    /// The tenant of the changed object.
    pub tenant: Tenant,
    /// A sender as uploads record it, `JWT without sub`, `admin key`, `command line`, or `nobody`
    /// without authentication.
    pub actor: String,
    /// The name of the change, such as `upload.create`. A newer build may have written another one.
    pub action: String,
    /// The public id of an upload, the name of a dataset, the id of a key or of a token, or the new
    /// log filter.
    pub object: String,
    /// The address at the other end of the connection; `None` for commands.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub address: Option<IpAddr>,
    /// The id of the request; `None` for commands.
    pub request_id: Option<String>,
}

/// An entry that an adapter writes.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[derive(Debug)]
pub(crate) struct NewEntry {
    pub(crate) tenant: String,
    pub(crate) action: Action,
    pub(crate) object: String,
    actor: Actor,
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl NewEntry {
    /// The entry of a change by the actor of this task; `None` without an actor.
    pub(crate) fn new(
        tenant: impl Into<String>,
        action: Action,
        object: impl Into<String>,
    ) -> Option<Self> {
        Some(Self {
            actor: ACTOR.try_with(Actor::clone).ok()?,
            tenant: tenant.into(),
            action,
            object: object.into(),
        })
    }

    pub(crate) fn actor(&self) -> &str {
        &self.actor.name
    }

    pub(crate) fn address(&self) -> Option<String> {
        self.actor.address.as_ref().map(IpAddr::to_string)
    }

    pub(crate) fn request_id(&self) -> Option<&str> {
        self.actor.request_id.as_deref()
    }

    fn log(&self) {
        tracing::info!(
            target: "carga::audit",
            tenant = self.tenant,
            actor = self.actor(),
            action = self.action.name(),
            object = self.object,
            address = self.address(),
            request.id = self.request_id(),
            "changed"
        );
    }
}

/// Whether changes in this task have an actor.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn has_actor() -> bool {
    ACTOR.try_with(|_| ()).is_ok()
}

/// The entry that a transaction has written, if there is one. It is logged after the commit.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
#[derive(Debug)]
#[must_use = "log it after the commit"]
pub(crate) struct Written(pub(crate) Option<NewEntry>);

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl Written {
    /// Logs the entry, with the target `carga::audit`.
    pub(crate) fn log(self) {
        if let Some(entry) = self.0 {
            entry.log();
        }
    }
}

#[cfg(all(test, any(feature = "postgres", feature = "sqlite")))]
mod tests {
    use super::*;

    fn current() -> Option<String> {
        let entry = NewEntry::new("default", Action::CreateKey, "an object")?;
        Some(entry.actor().to_owned())
    }

    #[tokio::test]
    async fn a_change_without_an_actor_has_no_entry() {
        assert_eq!(current(), None);
        assert!(!has_actor());
    }

    #[tokio::test]
    async fn another_task_has_the_actor_only_if_it_inherits_it() {
        let spawn = async || {
            let plain = tokio::spawn(async { current() }).await.unwrap();
            let inheriting = tokio::spawn(inherited(async { current() })).await.unwrap();
            (plain, inheriting)
        };
        assert_eq!(spawn().await, (None, None));
        let acting = acting_as(Actor::nobody(), spawn());
        assert_eq!(acting.await, (None, Some("nobody".to_owned())));
    }

    #[tokio::test]
    async fn the_inner_actor_counts() {
        let inner = acting_as(Actor::admin_key(), async { current() });
        let actor = acting_as(Actor::command_line(), inner).await;
        assert_eq!(actor.as_deref(), Some("admin key"));
    }
}
