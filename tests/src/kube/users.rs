//! Who may log in, each by a token, and the files by which programs do.
//!
//! Tests of rights impersonate users that stand nowhere ([`Kubectl::as_user`](super::Kubectl::as_user)); a program under
//! test logs in as a ServiceAccount, by a token from `kubectl create token`.

use serde_json::json;
use std::path::Path;

/// A user with a token of his own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The name by which rights are given.
    pub name: &'static str,
    /// The group that he is in.
    pub group: &'static str,
}

/// May do everything.
pub const ADMIN: User = User { name: "admin", group: "system:masters" };

/// All of them.
pub const USERS: &[User] = &[ADMIN];

impl User {
    /// What he says who he is. It is no secret: nobody reaches the server but who is in its lab.
    #[must_use]
    pub fn token(&self) -> String {
        format!("token-of-{}", self.name)
    }
}

/// The lines of the API server's token file: token, name, number, groups.
pub(super) fn tokens() -> String {
    let line = |(number, user): (usize, &User)| format!("{},{},{number},\"{}\"\n", user.token(), user.name, user.group);
    USERS.iter().enumerate().map(line).collect()
}

/// A kubeconfig: JSON, which is YAML too.
pub(super) fn kubeconfig(user: &User, server: &str, ca: &Path) -> String {
    let name = "lab";
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": { "server": server, "certificate-authority": ca } }],
        "users": [{ "name": user.name, "user": { "token": user.token() } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": user.name } }],
        "current-context": name,
    });
    format!("{config:#}\n")
}
