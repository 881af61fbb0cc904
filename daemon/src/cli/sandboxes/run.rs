//! What each command does: asks, and says what came of it.

use std::{
    fs,
    io::{self, Read as _, Write},
    path::Path,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{ApiResource, DynamicObject, LogParams},
};
use serde_json::json;
use sidetrack_objects::{Sandbox, sandbox::OnUnreachable};

use super::{
    ApplyArgs, ClusterArgs, CreateArgs, DeleteArgs, DryRun, ExtendArgs, GetArgs, KeyArgs, ListArgs, LogsArgs,
    RestartArgs, SandboxCommand, Unreachable, WaitArgs,
    get::{self, Known},
    list,
    show::{self, Form, Shape},
};
use crate::{
    cli::output,
    sandboxes::{
        Dry, Failure, RESTARTED_AT, Server,
        condition::Aim,
        draft::{self, Draft},
        key, lifetime, logs, manifest,
        pods::{self, ForkPod},
        wait,
    },
};

/// How often a change is tried that another one has overtaken.
const TRIES: usize = 5;

/// Does what a command says. Answers go to `out`, remarks to standard error.
pub fn run(command: &SandboxCommand, out: &mut dyn Write) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            SandboxCommand::Create(args) => create(args, out).await,
            SandboxCommand::Apply(args) => apply(args, out).await,
            SandboxCommand::List(args) => list(args, out).await,
            SandboxCommand::Get(args) => get(args, out).await,
            SandboxCommand::Extend(args) => extend(args, out).await,
            SandboxCommand::Restart(args) => restart(args, out).await,
            SandboxCommand::Logs(args) => logs(args, out).await,
            SandboxCommand::Delete(args) => delete(args, out).await,
            SandboxCommand::Key(args) => key(args, out).await,
            SandboxCommand::Wait(args) => wait(args, out).await,
        }
    })
}

/// A remark beside the answer.
fn remark(text: &str) {
    // Nothing is left to do if standard error is closed.
    _ = writeln!(io::stderr(), "sidetrack: {text}");
}

async fn find(cluster: &ClusterArgs) -> Result<Server, Failure> {
    Server::find(&cluster.access(), cluster.namespace.as_deref()).await
}

fn parsed(server: &Server, object: &DynamicObject) -> Result<Sandbox, Failure> {
    let asked = || Box::new(server.asked("get", "sandbox", Some(&object.name_any())));
    object.clone().try_parse().map_err(|error| Failure::Answer { asked: asked(), why: error.to_string() })
}

/// Says what was done to an object, or shows it.
fn done(out: &mut dyn Write, object: &DynamicObject, what: &str, shape: Option<Shape>) -> Result<(), Failure> {
    let text = match shape {
        Some(shape) => show::one(object, shape),
        None => format!("{} {what}\n", show::full_name(object)),
    };
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

async fn create(args: &CreateArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let draft = Draft {
        keys: args.keys.clone(),
        ttl: args.ttl.clone(),
        on_unreachable: match args.on_unreachable {
            Unreachable::Fail => OnUnreachable::Fail,
            Unreachable::Baseline => OnUnreachable::Baseline,
        },
        forks: args.forks.forks.clone(),
    };
    let asks = draft.forks.iter().any(draft::ForkDraft::asks_for_container);
    let server = match find(&args.cluster).await {
        Ok(server) => Some(server),
        // Nobody is asked: then it does not matter who would be.
        Err(_) if args.dry_run == Some(DryRun::Client) && !asks => None,
        Err(failure) => return Err(failure),
    };
    let mut only = Vec::new();
    for fork in &draft.forks {
        only.push(match &server {
            Some(server) if fork.asks_for_container() => {
                Some(draft::only_container(&fork.workload, &server.workload(&fork.workload).await?)?)
            }
            _ => None,
        });
    }
    let mut object = DynamicObject::new(&args.name, &ApiResource::erase::<Sandbox>(&()));
    object.metadata.namespace =
        server.as_ref().map(|server| server.namespace().to_owned()).or_else(|| args.cluster.namespace.clone());
    object.data = json!({"spec": draft.spec(&only)?});
    let Some(server) = server.filter(|_| args.dry_run != Some(DryRun::Client)) else {
        return done(out, &object, "created", Some(args.output.unwrap_or(Shape::Yaml)));
    };
    if args.dry_run == Some(DryRun::Server) {
        let checked = server.create(&object, Dry::Yes).await?;
        return done(out, &checked, "created (server dry run)", args.output);
    }
    let created = server.create(&object, Dry::No).await?;
    if !args.wait {
        return done(out, &created, "created", args.output);
    }
    if args.output.is_none() {
        done(out, &created, "created", None)?;
    }
    wait::until(&server, &args.name, Aim::Routed, args.timeout.timeout, created.uid()).await?;
    match args.output {
        None => done(out, &created, "routed", None),
        Some(_) => done(out, &server.sandbox(&args.name).await?, "routed", args.output),
    }
}

/// The text of a file, or of standard input.
fn read(path: &Path) -> Result<String, Failure> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    text.map_err(|source| Failure::File { path: path.to_owned(), source })
}

async fn apply(args: &ApplyArgs, out: &mut dyn Write) -> Result<(), Failure> {
    // All are read before one is sent.
    let mut objects = Vec::new();
    for path in &args.files {
        let file = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
        objects.extend(manifest::parse(&read(path)?, &file)?);
    }
    for object in &objects {
        if let (Some(named), Some(meant)) = (&object.namespace, &args.cluster.namespace)
            && named != meant
        {
            let what = format!("{} is of namespace {named}: leave out -n {meant}, or change the file", object.name);
            return Err(Failure::Usage(what));
        }
    }
    let server = find(&args.cluster).await?;
    let (dry, what) = match args.dry_run {
        Some(_) => (Dry::Yes, "applied (server dry run)"),
        None => (Dry::No, "applied"),
    };
    let (mut applied, mut failures) = (Vec::new(), Vec::new());
    for object in &objects {
        match server.apply(object, dry, args.force_conflicts).await {
            Ok(stored) if args.output.is_some() => applied.push(stored),
            Ok(stored) => done(out, &stored, what, None)?,
            // What cannot be asked of one cannot be asked of the next.
            Err(failure @ (Failure::Unreachable { .. } | Failure::Unauthorized { .. })) => return Err(failure),
            Err(failure) => failures.push(failure),
        }
    }
    match (args.output, applied.as_slice()) {
        (None, _) | (Some(_), []) => {}
        (Some(shape), [one]) => done(out, one, what, Some(shape))?,
        (Some(shape), all) => out.write_all(show::many(all, shape).as_bytes())?,
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::Several(failures)) }
}

async fn list(args: &ListArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = find(&args.cluster).await?;
    let objects = server.list(args.all_namespaces, args.selector.as_deref()).await?;
    let text = match args.output.shape() {
        Some(shape) => show::many(&objects, shape),
        None if objects.is_empty() => {
            let place =
                if args.all_namespaces { "this cluster".into() } else { format!("namespace {}", server.namespace()) };
            let such = if args.selector.is_some() { " with these labels" } else { "" };
            format!("no Sandbox{such} in {place}: `sidetrack create` makes one\n")
        }
        None => {
            let sandboxes = objects.iter().map(|object| parsed(&server, object)).collect::<Result<Vec<_>, _>>()?;
            list::table(&sandboxes, args.all_namespaces, args.output == Form::Wide, Timestamp::now())
        }
    };
    Ok(out.write_all(text.as_bytes())?)
}

async fn get(args: &GetArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = find(&args.cluster).await?;
    let object = server.sandbox(&args.name).await?;
    if let Some(shape) = args.output.shape() {
        return done(out, &object, "", Some(shape));
    }
    let sandbox = parsed(&server, &object)?;
    let pods = server.pods(&sandbox, None).await;
    let pods = pods.as_deref().map_err(ToString::to_string);
    let known = Known { sandbox: &sandbox, pods, now: Timestamp::now() };
    Ok(out.write_all(get::page(&known, args.output == Form::Wide).as_bytes())?)
}

async fn extend(args: &ExtendArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = find(&args.cluster).await?;
    let object = match (&args.ttl, args.by) {
        (Some(ttl), _) => server.patch(&args.name, &json!({"spec": {"ttl": ttl}})).await?,
        (None, by) => longer(&server, &args.name, by.unwrap_or_default()).await?,
    };
    let sandbox = parsed(&server, &object)?;
    let end = sandbox.spec.ttl.as_deref().and_then(|ttl| lifetime::end_by(&sandbox, ttl));
    let now = Timestamp::now();
    let what = match end {
        Some(end) if end > now => format!("lives until {end}, for {}", list::since(now, end)),
        Some(end) => format!("has lived until {end}, {} ago: it is over", list::since(end, now)),
        None => "changed".into(),
    };
    done(out, &object, &what, args.output)
}

/// Lets a Sandbox live longer than it would; what somebody else changes meanwhile counts.
async fn longer(server: &Server, name: &str, by: std::time::Duration) -> Result<DynamicObject, Failure> {
    let mut tries = 1;
    loop {
        let object = server.sandbox(name).await?;
        let ttl = lifetime::longer(&parsed(server, &object)?, by, Timestamp::now())?;
        let version = object.resource_version();
        match server.patch(name, &json!({"metadata": {"resourceVersion": version}, "spec": {"ttl": ttl}})).await {
            Err(Failure::Refused { code: 409, .. }) if tries < TRIES => tries += 1,
            answer => return answer,
        }
    }
}

/// Sees that a Sandbox has this fork.
fn has_fork(sandbox: &Sandbox, fork: &str) -> Result<(), Failure> {
    let forks = &sandbox.spec.forks;
    if forks.iter().any(|one| one.name == fork) {
        return Ok(());
    }
    let names = forks.iter().map(|fork| fork.name.as_str()).collect::<Vec<_>>().join(", ");
    Err(Failure::Nothing(format!("sandbox {} has no fork {fork}: there are {names}", sandbox.name_any())))
}

async fn restart(args: &RestartArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = find(&args.cluster).await?;
    let sandbox = parsed(&server, &server.sandbox(&args.name).await?)?;
    if let Some(fork) = &args.fork {
        has_fork(&sandbox, fork)?;
    }
    let mut meant = sandbox.spec.forks.iter().filter(|fork| args.fork.as_ref().is_none_or(|name| fork.name == *name));
    if meant.all(|fork| fork.pod_selector.is_some()) {
        let which = args.fork.as_deref().map_or("of this sandbox's forks".into(), |fork| format!("of fork {fork}"));
        return Err(Failure::Usage(format!("the pods {which} are somebody else's: restart them where they are made")));
    }
    let at = Timestamp::now();
    let (annotation, what) = match &args.fork {
        None => (RESTARTED_AT.to_owned(), "restarts".to_owned()),
        Some(fork) => (format!("{RESTARTED_AT}.{fork}"), format!("restarts fork {fork}")),
    };
    let object = server.patch(&args.name, &json!({"metadata": {"annotations": {annotation: at.to_string()}}})).await?;
    done(out, &object, &what, args.output)
}

async fn logs(args: &LogsArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = find(&args.cluster).await?;
    let sandbox = parsed(&server, &server.sandbox(&args.name).await?)?;
    if let Some(fork) = &args.fork {
        has_fork(&sandbox, fork)?;
    }
    let pods = server.pods(&sandbox, args.fork.as_deref()).await?;
    let sources = logs::sources(&pods, args.container.as_deref());
    if sources.is_empty() && pods.iter().all(|one| pods::is_placed(&one.pod)) {
        let whose = args.fork.as_ref().map_or_else(String::new, |fork| format!("fork {fork} of "));
        let what = match &args.container {
            Some(container) if !pods.is_empty() => {
                let names = containers(pods.iter().map(|one| &one.pod));
                format!("no pod of {whose}sandbox {} has a container {container}: there are {names}", args.name)
            }
            _ => format!("{whose}sandbox {} has no pod: `sidetrack get {}` says why", args.name, args.name),
        };
        return Err(Failure::Nothing(what));
    }
    let params = LogParams {
        follow: args.follow,
        previous: args.previous,
        tail_lines: args.tail.map(i64::from),
        // The API has whole seconds, and none is no answer.
        since_seconds: args.since.map(|since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX).max(1)),
        ..LogParams::default()
    };
    let mut failures = match logs::copy(&server, sources, &params, out).await {
        Ok(()) => Vec::new(),
        Err(Failure::Several(all)) => all,
        Err(failure) => return Err(failure),
    };
    // Of such a pod the API server says that its log is empty.
    for ForkPod { pod, .. } in pods.iter().filter(|one| !pods::is_placed(&one.pod)) {
        let why = pods::why(pod).join("; ");
        failures.push(Failure::Nothing(format!("pod {} has no log, no node runs it: {why}", pod.name_any())));
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::Several(failures)) }
}

/// The names of all containers, each once.
fn containers<'a>(pods: impl Iterator<Item = &'a Pod>) -> String {
    let specs = pods.filter_map(|pod| pod.spec.as_ref());
    let all = specs.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let names: std::collections::BTreeSet<_> = all.map(|container| container.name.as_str()).collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

async fn delete(args: &DeleteArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = find(&args.cluster).await?;
    let (mut going, mut failures) = (Vec::new(), Vec::new());
    for name in &args.names {
        match server.delete(name).await {
            Ok(left) => {
                let what = if left.is_some() { "is being deleted" } else { "deleted" };
                say(out, name, what)?;
                going.extend(left.map(|uid| (name, uid)));
            }
            Err(Failure::NotFound { .. }) if args.ignore_not_found => {}
            Err(failure @ (Failure::Unreachable { .. } | Failure::Unauthorized { .. })) => return Err(failure),
            Err(failure) => failures.push(failure),
        }
    }
    for (name, uid) in going.into_iter().filter(|_| args.wait) {
        match wait::until(&server, name, Aim::Deleted, args.timeout.timeout, Some(uid)).await {
            Ok(()) => say(out, name, "deleted")?,
            Err(failure) => failures.push(failure),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::Several(failures)) }
}

/// Says something of a Sandbox whose object is not at hand.
fn say(out: &mut dyn Write, name: &str, what: &str) -> Result<(), Failure> {
    let object = DynamicObject::new(name, &ApiResource::erase::<Sandbox>(&()));
    done(out, &object, what, None)
}

async fn key(args: &KeyArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = find(&args.cluster).await?;
    let sandbox = parsed(&server, &server.sandbox(&args.name).await?)?;
    let carriers = match server.carriers().await {
        Ok(carriers) => carriers.filter(|all| !all.is_empty()),
        Err(failure @ Failure::Forbidden { .. }) => {
            remark(&format!(
                "the cluster's settings cannot be read, its carriers are taken for the default ones: {failure}"
            ));
            None
        }
        Err(failure) => return Err(failure),
    };
    let carriers = carriers.unwrap_or_else(key::default_carriers);
    let keys = key::keys(&sandbox);
    let mut headers = keys.iter().flat_map(|key| carriers.iter().filter_map(move |carrier| key::header(carrier, key)));
    let text = if args.all {
        headers.map(|header| output::plain(&header.to_string()) + "\n").collect()
    } else {
        let none = || Failure::Nothing(format!("sandbox {} has no key that a carrier could hold", args.name));
        let header = headers.next().ok_or_else(none)?;
        match &args.curl {
            Some(url) => key::curl(&header, url)? + "\n",
            None => output::plain(&header.to_string()) + "\n",
        }
    };
    Ok(out.write_all(text.as_bytes())?)
}

async fn wait(args: &WaitArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let server = find(&args.cluster).await?;
    wait::until(&server, &args.name, args.aim, args.timeout.timeout, None).await?;
    say(out, &args.name, args.aim.word())
}
