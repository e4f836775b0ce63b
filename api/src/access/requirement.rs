//! What each route requires of a key.

use std::collections::HashMap;

use axum::http::Method;
use carga_common::access::Scope;
use carga_intake::refusal::{Refusal, RefusalKind};

use crate::caller::Caller;

/// What a route requires of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing: the route needs no key.
    Open,
    /// A key with one of these scopes. If there are others besides `upload`, a key that has only
    /// `upload` of them may use the route only for the uploads that it has sent.
    AnyOf(&'static [Scope]),
}

impl Requirement {
    /// Reading uploads, their rows, and datasets.
    pub(crate) const READ: Self = Self::AnyOf(&[Scope::Read, Scope::Upload]);
    /// Sending a file.
    pub(crate) const SEND: Self = Self::AnyOf(&[Scope::Upload]);
    /// Stopping an upload.
    pub(crate) const CANCEL: Self = Self::AnyOf(&[Scope::Manage, Scope::Upload]);
    /// Changing what is stored.
    pub(crate) const MANAGE: Self = Self::AnyOf(&[Scope::Manage]);
    /// Making a token, which never has more rights than its key.
    pub(crate) const ANY: Self = Self::AnyOf(&Scope::ALL);
    /// Using the keys, the audit log, the log filter and the metrics.
    pub(crate) const ADMIN: Self = Self::AnyOf(&[Scope::Admin]);

    /// Refuses a caller without the scopes, and notes whether the route is limited to uploads of
    /// the caller.
    pub(super) fn check(self, caller: &mut Caller) -> Result<(), Refusal> {
        let Self::AnyOf(scopes) = self else {
            return Ok(());
        };
        if !scopes.iter().any(|scope| caller.has(*scope)) {
            return Err(missing_scope(scopes));
        }
        let has_another = |scope: &Scope| *scope != Scope::Upload && caller.has(*scope);
        caller.only_own = scopes.len() > 1 && !scopes.iter().any(has_another);
        Ok(())
    }
}

fn missing_scope(scopes: &[Scope]) -> Refusal {
    let names: Vec<String> = scopes.iter().map(|scope| format!("`{scope}`")).collect();
    let message = format!(
        "this call needs a key with scope {}, and the key of the request does not have it; use another key",
        names.join(" or ")
    );
    Refusal::new(RefusalKind::Forbidden, "missing_scope", message)
}

/// The requirements of all routes, by path and method.
#[derive(Debug, Default)]
pub(super) struct Requirements(HashMap<&'static str, Vec<(Method, Requirement)>>);

impl Requirements {
    pub(super) fn add(&mut self, path: &'static str, method: Method, requirement: Requirement) {
        self.0.entry(path).or_default().push((method, requirement));
    }

    /// The requirement of a route. `HEAD` is answered by the handler of `GET`.
    pub(super) fn of(&self, path: &str, method: &Method) -> Option<Requirement> {
        let get = Method::GET;
        let method = if *method == Method::HEAD {
            &get
        } else {
            method
        };
        let methods = self.0.get(path)?;
        let found = methods.iter().find(|(known, _)| known == method);
        found.map(|(_, requirement)| *requirement)
    }

    /// The methods of a path for the header `Allow`.
    pub(super) fn allow(&self, path: &str) -> String {
        let methods = self.0.get(path).map(Vec::as_slice).unwrap_or_default();
        let mut names: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
        if names.contains(&"GET") {
            names.push("HEAD");
        }
        names.join(",")
    }
}

#[cfg(test)]
mod tests {
    use carga_common::access::Scopes;

    use super::*;

    fn caller(scopes: &[Scope]) -> Caller {
        Caller {
            scopes: Scopes::new(scopes.iter().copied()).unwrap(),
            ..Caller::unlimited()
        }
    }

    #[test]
    fn a_caller_without_the_scopes_is_refused_with_their_names() {
        let refusal = Requirement::READ.check(&mut caller(&[Scope::Manage]));
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Forbidden);
        assert_eq!(refusal.failure.code, "missing_scope");
        let message = refusal.failure.message;
        assert!(message.contains("`read` or `upload`"), "{message}");
        for scope in [Scope::Read, Scope::Upload, Scope::Manage] {
            assert!(Requirement::ADMIN.check(&mut caller(&[scope])).is_err());
        }
    }

    #[test]
    fn a_caller_with_scope_upload_reads_and_cancels_only_its_own_uploads() {
        let only_own = |requirement: Requirement, scopes: &[Scope]| {
            let mut caller = caller(scopes);
            requirement.check(&mut caller).unwrap();
            caller.only_own
        };
        assert!(only_own(Requirement::READ, &[Scope::Upload]));
        assert!(only_own(Requirement::READ, &[Scope::Upload, Scope::Manage]));
        assert!(!only_own(Requirement::READ, &[Scope::Upload, Scope::Read]));
        assert!(only_own(Requirement::CANCEL, &[Scope::Upload, Scope::Read]));
        assert!(!only_own(Requirement::CANCEL, &[Scope::Manage]));
        assert!(!only_own(Requirement::READ, &[Scope::Admin]));
        assert!(!only_own(Requirement::SEND, &[Scope::Upload]));
    }

    #[test]
    fn a_route_is_found_by_path_and_method() {
        let mut requirements = Requirements::default();
        requirements.add("/a", Method::GET, Requirement::READ);
        requirements.add("/a", Method::PUT, Requirement::MANAGE);
        let of = |path, method| requirements.of(path, &method);
        assert_eq!(of("/a", Method::GET), Some(Requirement::READ));
        assert_eq!(of("/a", Method::HEAD), Some(Requirement::READ));
        assert_eq!(of("/a", Method::PUT), Some(Requirement::MANAGE));
        assert_eq!(of("/a", Method::DELETE), None);
        assert_eq!(of("/b", Method::GET), None);
        assert_eq!(requirements.allow("/a"), "GET,PUT,HEAD");
    }
}
