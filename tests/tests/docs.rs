//! What the documentation names is there: files, items in them, headings, counters.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sidetrack_splice::abi::reason::Reason;
use xtask::counters;

fn root() -> PathBuf {
    xtask::root()
}

/// A document, without its blocks of code.
struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    fn read(path: PathBuf) -> Result<Self> {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut code = false;
        let prose = |line: &&str| {
            let fence = line.starts_with("```");
            code ^= fence;
            !fence && !code
        };
        let text = text.lines().filter(prose).collect::<Vec<_>>().join("\n");
        Ok(Self { path, text })
    }

    /// README, CONTRIBUTING and all of `docs/`.
    fn all() -> Result<Vec<Self>> {
        let mut paths = vec![root().join("README.md"), root().join("CONTRIBUTING.md")];
        for entry in fs::read_dir(root().join("docs"))? {
            paths.extend(Some(entry?.path()).filter(|path| path.extension().is_some_and(|it| it == "md")));
        }
        paths.into_iter().map(Self::read).collect()
    }

    /// What stands between backticks.
    fn quoted(&self) -> impl Iterator<Item = &str> {
        self.text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
    }

    /// Where links lead.
    fn links(&self) -> impl Iterator<Item = &str> {
        self.text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
    }

    /// Headings, as the anchors that a link names them by.
    fn anchors(&self) -> Vec<String> {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let anchor = |text: &str| text.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-");
        let headings = self.text.lines().filter(|line| line.starts_with('#'));
        headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    }
}

/// Whether a quoted word means a file or directory of this tree: it begins with one of its directories. Words in capitals
/// and patterns stand for many.
fn is_path(word: &str) -> bool {
    let (first, rest) = word.split_once('/').unwrap_or((word, ""));
    let placeholder = |path: &Path| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        path.extension().is_some_and(|it| it == "rs") && !stem.chars().any(char::is_lowercase)
    };
    let names_many = word.contains(['*', '<', ' ', '{']) || placeholder(Path::new(word));
    let ours = [
        "acknowledge",
        ".ci",
        "controller",
        "daemon",
        "deploy",
        "docs",
        "ebpf",
        "objects",
        "resolve",
        "splice",
        "tests",
        "xtask",
    ];
    ours.contains(&first) && (!rest.is_empty() || word.ends_with('/')) && !names_many
}

/// Whether an item of this name is declared in a source.
fn declares(source: &str, name: &str) -> bool {
    let kinds = ["fn", "const", "static", "struct", "enum", "type", "trait"];
    kinds.iter().any(|kind| {
        source.match_indices(&format!("{kind} {name}")).any(|(at, found)| {
            let end = source[at + found.len()..].chars().next();
            !end.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    })
}

#[test]
fn every_file_and_item_that_the_documentation_names_is_there() -> Result<()> {
    let mut missing = Vec::new();
    let mut found = 0;
    for document in Document::all()? {
        for word in document.quoted().filter(|word| is_path(word.split("::").next().unwrap_or(word))) {
            let (path, item) = word.split_once("::").map_or((word, None), |(path, item)| (path, Some(item)));
            let file = root().join(path);
            let there = match item {
                None => file.exists(),
                Some(item) => fs::read_to_string(&file).is_ok_and(|source| declares(&source, item)),
            };
            if there {
                found += 1;
            } else {
                missing.push(format!("{}: {word}", document.path.display()));
            }
        }
    }
    ensure!(missing.is_empty(), "not there:\n{}", missing.join("\n"));
    ensure!(found > 100, "only {found} names were recognised: does this test still read the documentation?");
    Ok(())
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    let documents = Document::all()?;
    let mut broken = Vec::new();
    for document in &documents {
        for link in document.links().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let directory = document.path.parent().context("a document lies in a directory")?;
            let target = if file.is_empty() { document.path.clone() } else { directory.join(file) };
            let known = || Document::read(target.clone()).is_ok_and(|to| to.anchors().iter().any(|it| it == anchor));
            if !target.exists() || !anchor.is_empty() && !known() {
                broken.push(format!("{}: {link}", document.path.display()));
            }
        }
    }
    ensure!(broken.is_empty(), "broken:\n{}", broken.join("\n"));
    Ok(())
}

#[test]
fn the_reference_of_counters_is_what_the_code_says() -> Result<()> {
    let stands = fs::read_to_string(root().join(counters::PATH)).context(counters::PATH)?;
    let drift = stands.lines().zip(counters::document().lines()).position(|(is, should)| is != should);
    ensure!(
        stands == counters::document(),
        "{}:{}: differs from the code, run `cargo xtask docs`",
        counters::PATH,
        drift.unwrap_or(0) + 1
    );
    Ok(())
}

#[test]
fn no_counter_is_named_that_there_is_not() -> Result<()> {
    let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    let groups = ["reset_", "refused_", "opaque_"];
    let of_a_group = |name: &&str| groups.iter().any(|group| name.starts_with(group) && name.len() > group.len());
    for document in Document::all()? {
        for word in document.quoted().filter(of_a_group) {
            ensure!(names.contains(&word), "{}: there is no counter {word}", document.path.display());
        }
    }
    // Advice goes from one to another.
    for reason in Reason::ALL {
        for word in reason.advice().split('`').skip(1).step_by(2).filter(of_a_group) {
            ensure!(names.contains(&word), "{}: there is no counter {word}", reason.name());
        }
    }
    Ok(())
}

/// A right that a role gives: its name, a resource, a verb.
type Right = (String, String, String);

/// What the manifests give.
fn given() -> Result<BTreeSet<Right>> {
    fn words(list: &Value) -> impl Iterator<Item = &str> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str)
    }
    let mut rights = BTreeSet::new();
    for file in [
        "deploy/kustomize/base/agent/access.yaml",
        "deploy/kustomize/base/controller/access.yaml",
        "deploy/access/controller.yaml",
        "deploy/access/roles.yaml",
    ] {
        let text = fs::read_to_string(root().join(file)).context(file)?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| file.to_owned())?;
        for object in &objects {
            for rule in object["rules"].as_array().into_iter().flatten() {
                for (resource, verb) in
                    words(&rule["resources"]).flat_map(|it| words(&rule["verbs"]).map(move |v| (it, v)))
                {
                    let role = object["metadata"]["name"]
                        .as_str()
                        .with_context(|| format!("{file}: a role without a name"))?;
                    rights.insert((role.to_owned(), resource.to_owned(), verb.to_owned()));
                }
            }
        }
    }
    Ok(rights)
}

/// What the table of rights names: a section for each role, in each row resources and verbs.
fn explained() -> Result<BTreeSet<Right>> {
    let document = Document::read(root().join("docs/access.md"))?;
    let words = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let (mut rights, mut role) = (BTreeSet::new(), String::new());
    for line in document.text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.trim_matches('`').clone_into(&mut role);
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, what, verbs, why, without, _] = cells[..] else { continue };
        ensure!(!why.is_empty() && !without.is_empty(), "docs/access.md: {line}");
        for resource in words(what) {
            for verb in words(verbs) {
                ensure!(
                    rights.insert((role.clone(), resource.clone(), verb.clone())),
                    "docs/access.md: {role} has two rows for {verb} of {resource}"
                );
            }
        }
    }
    Ok(rights)
}

#[test]
fn each_right_in_the_manifests_has_its_reason() -> Result<()> {
    let (given, explained) = (given()?, explained()?);
    ensure!(given.len() > 50, "only {} rights were read: does this test still read the manifests?", given.len());
    let unexplained: Vec<_> = given.difference(&explained).collect();
    let idle: Vec<_> = explained.difference(&given).collect();
    ensure!(unexplained.is_empty(), "docs/access.md does not say what these are for: {unexplained:?}");
    ensure!(idle.is_empty(), "docs/access.md has rows for what no role gives: {idle:?}");
    Ok(())
}
