//! `--fork` and the options that belong to it: those that stand behind it, up to the next one.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, error::ErrorKind};

use crate::sandboxes::draft::{ForkDraft, Image, Variable, workload};

const FORK: &str = "fork";
const IMAGE: &str = "image";
const ENV: &str = "env";
const REPLICAS: &str = "replicas";

/// What is forked, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ForkArgs {
    /// At least one.
    pub forks: Vec<ForkDraft>,
}

impl Args for ForkArgs {
    fn augment_args(command: Command) -> Command {
        let option = |name: &'static str, value: &'static str, help: &'static str| {
            Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Append)
        };
        command
            .arg(
                option(FORK, "KIND/NAME", "Fork this deployment, statefulset or rollout; several times for several")
                    .required(true)
                    .value_parser(workload),
            )
            .arg(
                option(
                    IMAGE,
                    "[CONTAINER=]IMAGE",
                    "Another image; the container may be left out where there is only one",
                )
                .value_parser(str::parse::<Image>),
            )
            .arg(
                option(ENV, "[CONTAINER:]NAME=VALUE", "Add or replace a variable").value_parser(str::parse::<Variable>),
            )
            .arg(
                option(REPLICAS, "N", "So many pods; without it one").value_parser(clap::value_parser!(i32).range(1..)),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The values of an option, each with its place among all words.
fn placed<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Vec<(usize, T)> {
    let values = matches.get_many::<T>(name).into_iter().flatten().cloned();
    matches.indices_of(name).into_iter().flatten().zip(values).collect()
}

impl FromArgMatches for ForkArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let (starts, mut forks): (Vec<_>, Vec<_>) =
            placed(matches, FORK).into_iter().map(|(at, workload)| (at, ForkDraft::of(workload))).unzip();
        let owner = |at: usize, option: &str| {
            let before = starts.iter().filter(|start| **start < at).count();
            match (before, starts.len()) {
                (0, 1) => Ok(0),
                (0, _) => {
                    let what =
                        format!("--{option} stands before every --fork: put it behind the one that it belongs to\n");
                    Err(Error::raw(ErrorKind::ArgumentConflict, what))
                }
                (n, _) => Ok(n - 1),
            }
        };
        for (at, image) in placed(matches, IMAGE) {
            forks[owner(at, IMAGE)?].images.push(image);
        }
        for (at, variable) in placed(matches, ENV) {
            forks[owner(at, ENV)?].env.push(variable);
        }
        for (at, replicas) in placed(matches, REPLICAS) {
            let fork: &mut ForkDraft = &mut forks[owner(at, REPLICAS)?];
            if fork.replicas.replace(replicas).is_some() {
                return Err(Error::raw(
                    ErrorKind::ArgumentConflict,
                    "two --replicas behind one --fork: leave one out\n",
                ));
            }
        }
        Ok(Self { forks })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
