//! Who an agent is: its token says so, and the API server says whether that is true.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use sidetrack_acknowledge::meeting::AUDIENCE;

/// Where a pod-bound token's node stands (Kubernetes 1.32 and later).
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// The agents that are heard.
#[derive(Clone)]
pub struct Agents {
    /// The API server.
    pub client: Client,
    /// Their user: `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
}

/// Why somebody is not heard.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The API server cannot say.
    #[error("the API server cannot review the token: {0}; the controller needs the right to create tokenreviews")]
    Unreviewed(#[from] kube::Error),
    /// It is no valid token.
    #[error("the token is not valid for the audience {AUDIENCE}: {0}; mount a projected token with this audience")]
    Invalid(String),
    /// It is somebody else's.
    #[error("the token is that of {is}: only {expected} may say what is in force")]
    Stranger {
        /// Whose.
        is: String,
        /// Whose it should be.
        expected: String,
    },
    /// It is not bound to a pod that has a node.
    #[error(
        "the token does not say on which node its pod runs: it must be one that the kubelet has projected into the pod"
    )]
    Nowhere,
}

impl Agents {
    /// The node of the agent that has this token.
    pub async fn node_of(&self, token: String) -> Result<String, Refusal> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: Some(token), audiences: Some(vec![AUDIENCE.to_owned()]) },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let status = reviews.create(&PostParams::default(), &review).await?.status.unwrap_or_default();
        // An API server that does not know of audiences names none.
        let for_us = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
        let user = status.user.unwrap_or_default();
        if status.authenticated != Some(true) || !for_us {
            return Err(Refusal::Invalid(status.error.unwrap_or_else(|| "the API server does not know it".to_owned())));
        }
        let is = user.username.unwrap_or_default();
        if is != self.user {
            return Err(Refusal::Stranger { is, expected: self.user.clone() });
        }
        let node = user.extra.unwrap_or_default().remove(NODE_NAME).and_then(|mut names| names.pop());
        node.ok_or(Refusal::Nowhere)
    }
}
