//! The Sandbox that the flags of a command mean.

use std::{collections::BTreeMap, str::FromStr};

use serde_json::Value;
use sidetrack_objects::{
    SandboxSpec,
    sandbox::{EnvVar, Follow, Fork, OnUnreachable, Workload, WorkloadKind},
};

use super::Failure;

/// The longest name of a fork.
const FORK_NAME_MAX: usize = 40;

/// What a Sandbox is to be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// Its keys; none: that of its name.
    pub keys: Vec<String>,
    /// How long it lives.
    pub ttl: Option<String>,
    /// What becomes of requests whose fork cannot be reached.
    pub on_unreachable: OnUnreachable,
    /// What it forks.
    pub forks: Vec<ForkDraft>,
}

/// What a fork is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct ForkDraft {
    /// Of which workload.
    pub workload: Workload,
    /// Other images.
    pub images: Vec<Image>,
    /// Variables.
    pub env: Vec<Variable>,
    /// How many pods.
    pub replicas: Option<i32>,
}

/// `[CONTAINER=]IMAGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Of which container; none: of the only one.
    pub container: Option<String>,
    /// Which image.
    pub image: String,
}

/// `[CONTAINER:]NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Of which container; none: of the only one.
    pub container: Option<String>,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A flag's value that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// No workload.
    #[error("expected KIND/NAME, as in \"deployment/orders\"")]
    Workload,
    /// A kind that cannot be forked.
    #[error("{0:?} cannot be forked: expected deployment, statefulset or rollout")]
    Kind(String),
    /// No image.
    #[error("expected [CONTAINER=]IMAGE, as in \"app=registry.example/orders:pr-1\"")]
    Image,
    /// No variable.
    #[error("expected [CONTAINER:]NAME=VALUE, as in \"FEATURE=on\"")]
    Variable,
}

/// The workload that `KIND/NAME` means, with the kinds as kubectl knows them.
pub fn workload(text: &str) -> Result<Workload, ValueError> {
    let (kind, name) = text.split_once('/').ok_or(ValueError::Workload)?;
    if name.is_empty() || name.contains('/') {
        return Err(ValueError::Workload);
    }
    // `deployments.apps/orders` is how `kubectl get -o name` writes it.
    let word = kind.to_ascii_lowercase();
    let kind = match word.split('.').next().unwrap_or_default() {
        "deployment" | "deployments" | "deploy" => WorkloadKind::Deployment,
        "statefulset" | "statefulsets" | "sts" => WorkloadKind::StatefulSet,
        "rollout" | "rollouts" | "ro" => WorkloadKind::Rollout,
        _ => return Err(ValueError::Kind(kind.to_owned())),
    };
    Ok(Workload { kind, name: name.to_owned() })
}

impl FromStr for Image {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // No image's name has the character.
        let (container, image) = match text.split_once('=') {
            Some((container, image)) => (Some(container), image),
            None => (None, text),
        };
        if image.is_empty() || container.is_some_and(str::is_empty) {
            return Err(ValueError::Image);
        }
        Ok(Self { container: container.map(str::to_owned), image: image.to_owned() })
    }
}

impl FromStr for Variable {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (left, value) = text.split_once('=').ok_or(ValueError::Variable)?;
        let (container, name) = match left.split_once(':') {
            Some((container, name)) => (Some(container), name),
            None => (None, left),
        };
        if name.is_empty() || container.is_some_and(str::is_empty) {
            return Err(ValueError::Variable);
        }
        Ok(Self { container: container.map(str::to_owned), name: name.to_owned(), value: value.to_owned() })
    }
}

impl ForkDraft {
    /// A copy of a workload as it is.
    #[must_use]
    pub fn of(workload: Workload) -> Self {
        Self { workload, images: Vec::new(), env: Vec::new(), replicas: None }
    }

    /// Whether it names something of a container without saying which.
    #[must_use]
    pub fn asks_for_container(&self) -> bool {
        self.images.iter().any(|image| image.container.is_none()) || self.env.iter().any(|one| one.container.is_none())
    }

    /// The fork, in which `only` is the container that nobody names.
    fn fork(&self, name: String, only: Option<&str>) -> Result<Fork, Failure> {
        let of = |named: &Option<String>| named.as_deref().or(only).map(str::to_owned);
        let unnamed =
            || Failure::Usage(format!("{}: name the container, as in --image app=IMAGE", words(&self.workload)));
        let mut images = BTreeMap::new();
        for Image { container, image } in &self.images {
            let container = of(container).ok_or_else(unnamed)?;
            if images.insert(container.clone(), image.clone()).is_some() {
                let fork = words(&self.workload);
                return Err(Failure::Usage(format!("{fork}: two images of container {container}: leave one out")));
            }
        }
        let mut env: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for Variable { container, name, value } in &self.env {
            let container = of(container).ok_or_else(unnamed)?;
            let all = env.entry(container.clone()).or_default();
            if all.iter().any(|one: &EnvVar| one.name == *name) {
                let fork = words(&self.workload);
                return Err(Failure::Usage(format!(
                    "{fork}: two values of {name} in container {container}: leave one out"
                )));
            }
            all.push(EnvVar { name: name.clone(), value: value.clone() });
        }
        Ok(Fork {
            name,
            workload: Some(self.workload.clone()),
            pod_selector: None,
            template: None,
            services: None,
            images: Some(images).filter(|all| !all.is_empty()),
            env: Some(env).filter(|all| !all.is_empty()),
            patch: None,
            replicas: self.replicas,
            init_containers: None,
            volumes: None,
        })
    }
}

impl Draft {
    /// What a Sandbox says. Of each fork in turn, `only` has the container that is meant where none is named.
    pub fn spec(&self, only: &[Option<String>]) -> Result<SandboxSpec, Failure> {
        let mut forks: Vec<Fork> = Vec::new();
        for (at, draft) in self.forks.iter().enumerate() {
            let name = fork_name(&draft.workload, |name| forks.iter().any(|fork| fork.name == name));
            forks.push(draft.fork(name, only.get(at).and_then(Option::as_deref))?);
        }
        Ok(SandboxSpec {
            keys: Some(self.keys.clone()).filter(|keys| !keys.is_empty()),
            ttl: self.ttl.clone(),
            on_unreachable: self.on_unreachable,
            follow: Follow::Never,
            accept_policy_gap: false,
            forks,
        })
    }
}

/// A fork has the name of its workload, as far as that can be one; with its kind behind it where another fork has that.
fn fork_name(workload: &Workload, taken: impl Fn(&str) -> bool) -> String {
    let plain = workload.name.replace('.', "-");
    let cut = |most: usize| plain.chars().take(most).collect::<String>().trim_end_matches('-').to_owned();
    let name = cut(FORK_NAME_MAX);
    if !taken(&name) {
        return name;
    }
    let kind = kind_word(workload.kind);
    let mut tail = format!("-{kind}");
    let mut next = 2;
    loop {
        let name = cut(FORK_NAME_MAX - tail.len()) + &tail;
        if !taken(&name) {
            return name;
        }
        tail = format!("-{kind}-{next}");
        next += 1;
    }
}

/// A kind as people type it.
#[must_use]
pub fn kind_word(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment => "deployment",
        WorkloadKind::StatefulSet => "statefulset",
        WorkloadKind::Rollout => "rollout",
    }
}

/// `deployment/orders`.
#[must_use]
pub fn words(workload: &Workload) -> String {
    format!("{}/{}", kind_word(workload.kind), workload.name)
}

/// The only container of a workload, by its object.
pub fn only_container(workload: &Workload, object: &Value) -> Result<String, Failure> {
    let containers = object["spec"]["template"]["spec"]["containers"].as_array();
    let names: Vec<_> = containers.into_iter().flatten().filter_map(|one| one["name"].as_str()).collect();
    match names.as_slice() {
        [only] => Ok((*only).to_owned()),
        // A Rollout may have its template elsewhere.
        [] => Err(Failure::Usage(format!(
            "{} names no container of its own: name it, as in --image app=IMAGE or --env app:NAME=VALUE",
            words(workload)
        ))),
        [first, ..] => Err(Failure::Usage(format!(
            "{} has the containers {}: say which, as in --image {first}=IMAGE or --env {first}:NAME=VALUE",
            words(workload),
            names.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn orders() -> Workload {
        workload("deployment/orders").expect("a workload")
    }

    fn said(failure: Result<impl std::fmt::Debug, Failure>) -> String {
        failure.expect_err("a failure").to_string()
    }

    #[test]
    fn a_workload_is_named_as_kubectl_names_it() {
        for (text, kind) in [
            ("deployment/a", WorkloadKind::Deployment),
            ("deploy/a", WorkloadKind::Deployment),
            ("deployments.apps/a", WorkloadKind::Deployment),
            ("Deployment/a", WorkloadKind::Deployment),
            ("sts/a", WorkloadKind::StatefulSet),
            ("statefulset.apps/a", WorkloadKind::StatefulSet),
            ("rollout/a", WorkloadKind::Rollout),
            ("rollouts.argoproj.io/a", WorkloadKind::Rollout),
        ] {
            assert_eq!(workload(text), Ok(Workload { kind, name: "a".into() }), "{text}");
        }
        for text in ["orders", "deployment/", "/a", "a/b/c", "daemonset/a"] {
            assert!(workload(text).is_err(), "{text}");
        }
        assert!(
            workload("daemonset/a")
                .expect_err("no")
                .to_string()
                .contains("expected deployment, statefulset or rollout")
        );
    }

    #[test]
    fn images_and_variables_may_say_of_which_container_they_are() {
        let image = |text: &str| text.parse::<Image>().map(|it| (it.container, it.image));
        let app = || Some("app".to_owned());
        assert_eq!(image("app=reg:5000/a:1"), Ok((app(), "reg:5000/a:1".into())));
        assert_eq!(image("reg:5000/a@sha256:00"), Ok((None, "reg:5000/a@sha256:00".into())));
        assert!(image("").is_err() && image("app=").is_err() && image("=a").is_err());
        let variable = |text: &str| text.parse::<Variable>().map(|it| (it.container, it.name, it.value));
        assert_eq!(variable("app:URL=http://x?a=b"), Ok((app(), "URL".into(), "http://x?a=b".into())));
        assert_eq!(variable("URL=http://x"), Ok((None, "URL".into(), "http://x".into())));
        assert_eq!(variable("EMPTY="), Ok((None, "EMPTY".into(), String::new())));
        assert!(variable("A").is_err() && variable("=a").is_err() && variable(":A=b").is_err());
    }

    #[test]
    fn what_is_not_said_is_not_in_the_object() {
        let draft = Draft { forks: vec![ForkDraft::of(orders())], ..Draft::default() };
        let spec = serde_json::to_value(draft.spec(&[]).expect("a spec")).expect("JSON");
        let fork = json!({"name": "orders", "workload": {"kind": "Deployment", "name": "orders"}});
        assert_eq!(spec, json!({"onUnreachable": "Fail", "follow": "Never", "forks": [fork]}));
    }

    #[test]
    fn what_names_no_container_is_of_the_only_one() {
        let mut fork = ForkDraft::of(orders());
        fork.images = vec!["orders:1".parse().expect("an image"), "proxy=envoy:2".parse().expect("an image")];
        fork.env = vec!["A=1".parse().expect("a variable"), "B=2".parse().expect("a variable")];
        assert!(fork.asks_for_container());
        let draft = Draft { forks: vec![fork], ..Draft::default() };
        let spec = draft.spec(&[Some("app".into())]).expect("a spec");
        let spec = serde_json::to_value(&spec.forks[0]).expect("JSON");
        assert_eq!(spec["images"], json!({"app": "orders:1", "proxy": "envoy:2"}));
        assert_eq!(spec["env"], json!({"app": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}));
        assert!(said(draft.spec(&[None])).contains("deployment/orders: name the container"));
    }

    #[test]
    fn nothing_is_said_twice() {
        let mut fork = ForkDraft::of(orders());
        fork.images = vec!["app=a:1".parse().expect("an image"), "app=a:2".parse().expect("an image")];
        let draft = Draft { forks: vec![fork.clone()], ..Draft::default() };
        assert!(said(draft.spec(&[])).contains("two images of container app"));
        fork.images.clear();
        fork.env = vec!["app:A=1".parse().expect("a variable"), "A=2".parse().expect("a variable")];
        let draft = Draft { forks: vec![fork], ..Draft::default() };
        assert!(said(draft.spec(&[Some("app".into())])).contains("two values of A in container app"));
    }

    #[test]
    fn each_fork_has_a_name_of_its_own_that_is_valid() {
        let long = "n".repeat(60);
        let drafts: Vec<_> =
            ["deploy/orders", "sts/orders", "ro/orders", "deploy/a.b", "sts/a-b", &format!("deploy/{long}")]
                .iter()
                .map(|text| ForkDraft::of(workload(text).expect("a workload")))
                .collect();
        let spec = Draft { forks: drafts, ..Draft::default() }.spec(&[]).expect("a spec");
        let names: Vec<_> = spec.forks.iter().map(|fork| fork.name.as_str()).collect();
        let expected = ["orders", "orders-statefulset", "orders-rollout", "a-b", "a-b-statefulset", &"n".repeat(40)];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_workload_with_several_containers_or_none_says_so() {
        let of = |names: &[&str]| {
            let containers: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            only_container(&orders(), &json!({"spec": {"template": {"spec": {"containers": containers}}}}))
        };
        assert_eq!(of(&["app"]).expect("the only one"), "app");
        assert!(
            said(of(&["app", "proxy"])).contains("has the containers app, proxy: say which, as in --image app=IMAGE")
        );
        assert!(said(of(&[])).contains("names no container of its own"));
    }
}
