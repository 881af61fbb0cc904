use std::os::unix::fs::symlink;

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;

const HEAD: &str = "apiVersion: sidetrack.dev/v1alpha1\nkind: RouteTable\nservices:";

fn text(key: &str) -> String {
    format!(
        "{HEAD}\n- name: shop/orders\n  addresses: [\"10.96.0.10:80\"]\n  routes:\n  - key: {key}\n    fail: gone\n"
    )
}

fn key(meant: Option<&Meant>) -> String {
    meant.map_or_else(|| "none".into(), |meant| meant.table.services()[0].routes[0].key.clone())
}

struct Followed {
    directory: tempfile::TempDir,
    routes: Routes,
    stop: CancellationToken,
}

impl Followed {
    fn new(prepare: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        prepare(directory.path());
        let stop = CancellationToken::new();
        let routes = start(directory.path().join("routes.yaml"), stop.clone()).expect("it can be watched");
        Self { directory, routes, stop }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn next(&mut self) -> String {
        timeout(Duration::from_secs(10), self.routes.meant.changed()).await.expect("in time").expect("still followed");
        key(self.routes.meant.borrow_and_update().as_deref())
    }

    async fn end(self) {
        self.stop.cancel();
        self.routes.task.await.expect("ends");
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("written");
}

#[tokio::test]
async fn a_file_that_is_written_in_place_is_read() {
    let mut followed = Followed::new(|at| write(&at.join("routes.yaml"), &text("one")));
    assert_eq!(key(followed.routes.meant.borrow().as_deref()), "one");
    write(&followed.at("routes.yaml"), &text("two"));
    assert_eq!(followed.next().await, "two");
    followed.end().await;
}

#[tokio::test]
async fn a_file_that_another_is_renamed_over_is_read() {
    let mut followed = Followed::new(|at| write(&at.join("routes.yaml"), &text("one")));
    for name in ["two", "three"] {
        write(&followed.at(".routes.yaml.swp"), &text(name));
        std::fs::rename(followed.at(".routes.yaml.swp"), followed.at("routes.yaml")).expect("renamed");
        assert_eq!(followed.next().await, name);
    }
    followed.end().await;
}

#[tokio::test]
async fn a_config_map_whose_data_link_is_swapped_is_read() {
    let mut followed = Followed::new(|at| {
        std::fs::create_dir(at.join("..v1")).expect("made");
        write(&at.join("..v1/routes.yaml"), &text("one"));
        symlink("..v1", at.join("..data")).expect("linked");
        symlink("..data/routes.yaml", at.join("routes.yaml")).expect("linked");
    });
    assert_eq!(key(followed.routes.meant.borrow().as_deref()), "one");
    for (version, name) in [("..v2", "two"), ("..v3", "three")] {
        std::fs::create_dir(followed.at(version)).expect("made");
        write(&followed.at(version).join("routes.yaml"), &text(name));
        symlink(version, followed.at("..data_tmp")).expect("linked");
        std::fs::rename(followed.at("..data_tmp"), followed.at("..data")).expect("renamed");
        assert_eq!(followed.next().await, name);
    }
    followed.end().await;
}

#[tokio::test]
async fn an_invalid_or_missing_file_changes_nothing() {
    let mut followed = Followed::new(|at| write(&at.join("routes.yaml"), &text("one")));
    write(&followed.at("routes.yaml"), &text("\"no key\""));
    sleep_until_read(&followed).await;
    std::fs::remove_file(followed.at("routes.yaml")).expect("removed");
    sleep_until_read(&followed).await;
    assert!(!followed.routes.meant.has_changed().expect("still followed"));
    write(&followed.at("routes.yaml"), &text("two"));
    assert_eq!(followed.next().await, "two");
    followed.end().await;
}

#[tokio::test]
async fn what_is_no_file_changes_nothing_and_does_not_stop_the_watch() {
    let mut followed = Followed::new(|at| write(&at.join("routes.yaml"), &text("one")));
    let odd: [fn(&Path); 3] = [
        |at| mkfifo(at, Mode::S_IRWXU).expect("made"),
        |at| std::fs::create_dir(at).expect("made"),
        |at| symlink("/dev/zero", at).expect("linked"),
    ];
    for (n, make) in odd.into_iter().enumerate() {
        make(&followed.at("odd"));
        std::fs::remove_file(followed.at("routes.yaml")).expect("removed");
        std::fs::rename(followed.at("odd"), followed.at("routes.yaml")).expect("renamed");
        sleep_until_read(&followed).await;
        assert!(!followed.routes.meant.has_changed().expect("still followed"));
        std::fs::rename(followed.at("routes.yaml"), followed.at(&format!("was-odd-{n}"))).expect("renamed");
        let next = format!("after-{n}");
        write(&followed.at("routes.yaml"), &text(&next));
        assert_eq!(followed.next().await, next);
    }
    followed.end().await;
}

#[tokio::test]
async fn a_fifo_at_the_start_says_what_to_do_and_is_followed() {
    let mut followed = Followed::new(|at| mkfifo(&at.join("routes.yaml"), Mode::S_IRWXU).expect("made"));
    let said = followed.routes.first_error.as_ref().expect("it is no file").to_string();
    assert!(
        said.ends_with(
            "this is a FIFO (a pipe), expected a regular file: put the RouteTable into a file and give that file's path"
        ),
        "{said}"
    );
    write(&followed.at("new"), &text("two"));
    std::fs::rename(followed.at("new"), followed.at("routes.yaml")).expect("renamed");
    assert_eq!(followed.next().await, "two");
    followed.end().await;
}

#[test]
fn each_reason_why_it_cannot_be_read_is_said_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("routes.yaml");
    let mut file = File { path: path.clone(), text: None, unreadable: None };
    assert!(matches!(file.read(), Some(Err(DocumentError::Read { .. }))));
    assert!(file.read().is_none());
    std::fs::create_dir(&path).expect("made");
    assert!(matches!(file.read(), Some(Err(DocumentError::NotAFile { what: "directory", .. }))));
    assert!(file.read().is_none());
}

/// Longer than it may take until a change is read.
async fn sleep_until_read(_: &Followed) {
    sleep(QUIET_MAX + QUIET).await;
}

#[tokio::test]
async fn a_table_that_says_the_same_in_other_words_is_no_change() {
    let followed = Followed::new(|at| write(&at.join("routes.yaml"), &text("one")));
    write(&followed.at("routes.yaml"), &format!("# a comment\n{}", text("one")));
    sleep_until_read(&followed).await;
    assert!(!followed.routes.meant.has_changed().expect("still followed"));
    followed.end().await;
}

#[tokio::test]
async fn a_file_that_is_invalid_at_the_start_says_why_and_is_followed() {
    let mut followed = Followed::new(|at| write(&at.join("routes.yaml"), "kind: x"));
    assert!(matches!(followed.routes.first_error, Some(DocumentError::Invalid { .. })));
    assert!(followed.routes.meant.borrow().is_none());
    write(&followed.at("routes.yaml"), &text("two"));
    assert_eq!(followed.next().await, "two");
    followed.end().await;
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_an_error_that_says_what_to_do() {
    let error = start("/nonexistent/routes.yaml".into(), CancellationToken::new()).expect_err("no such directory");
    assert!(error.to_string().contains("make the directory first"), "{error}");
}
