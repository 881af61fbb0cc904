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
    /// The group that he is in; none where it is empty.
    pub group: &'static str,
}

/// May do everything.
pub const ADMIN: User = User { name: "admin", group: "system:masters" };

/// kube-controller-manager.
pub const CONTROLLERS: User = User { name: "system:kube-controller-manager", group: "" };
/// kube-scheduler.
pub const SCHEDULER: User = User { name: "system:kube-scheduler", group: "" };
/// kube-proxy of every node.
pub const PROXY: User = User { name: "system:kube-proxy", group: "" };
/// The kubelets of a cluster's nodes.
pub const NODES: [User; 2] =
    [User { name: "system:node:n1", group: "system:nodes" }, User { name: "system:node:n2", group: "system:nodes" }];

/// All of them.
pub const USERS: &[User] = &[ADMIN, CONTROLLERS, SCHEDULER, PROXY, NODES[0], NODES[1]];

impl User {
    /// What he says who he is. It is no secret: nobody reaches the server but who is in its lab.
    #[must_use]
    pub fn token(&self) -> String {
        format!("token-of-{}", self.file_name())
    }
}

impl User {
    /// His name, as a file may be called.
    pub(super) fn file_name(&self) -> String {
        self.name.replace(':', "-")
    }
}

/// The lines of the API server's token file: token, name, number, groups.
pub(super) fn tokens() -> String {
    let line = |(number, user): (usize, &User)| {
        let groups = if user.group.is_empty() { String::new() } else { format!(",\"{}\"", user.group) };
        format!("{},{},{number}{groups}\n", user.token(), user.name)
    };
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
